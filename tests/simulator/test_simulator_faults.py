"""Each fault has the effect that its name says, and the ledger records the charge and what the client received."""

from typing import Any, NamedTuple

import pytest
import requests

from simulator.engine.faults import GET_FAULTS, POST_FAULTS, draw
from simulator.process import Simulator

VOICE = "/api/v1/sonic/create-voice"
TASK = "/api/v1/sonic/task/"
CREDITS = "/api/v1/get-credits"
RECORDING = {"audio_url": "https://example.com/anna.mp3"}


class CallResult(NamedTuple):
    """The result of a call for its client: an exception or a response."""

    lost: type[Exception] | None = None
    answer: requests.Response | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status, None without a response."""
        return None if self.answer is None else self.answer.status_code

    def json(self) -> Any:
        """Return the JSON of the response, None if it is not JSON."""
        try:
            return None if self.answer is None else self.answer.json()
        except requests.JSONDecodeError:
            return None


def call(api: requests.Session, method: str, path: str, *, timeout_s: float = 10) -> CallResult:
    """Make a call, with a timeout for each read of the response."""
    try:
        return CallResult(answer=api.request(method, path, json=RECORDING, timeout=(10, timeout_s)))
    except requests.RequestException as error:
        return CallResult(lost=type(error))


def looks_like(kind: str, result: CallResult) -> bool:
    """Return whether the client observed a fault of this kind."""
    match kind:
        case "reset":
            return result.lost is requests.ConnectionError
        case "hang":
            return result.lost is requests.ReadTimeout
        case "cut":
            return result.lost is requests.exceptions.ChunkedEncodingError
        case "error":
            return result.status == 502
        case "html":
            return result.answer is not None and result.answer.text.startswith("<html>") and result.status in (200, 502)
        case "garbage":
            return result.status == 200 and result.json() in (None, [], {"ok": True})
        case "rate_limited":
            return result.status == 429
        case "no_task_id":
            return bool(result.json() == {"code": 200, "message": "success"})
        case "rate_in_body":
            return result.status == 200 and bool(result.json()["code"] == 429)
        case "rate_403" | "style_403" | "subscription_403" | "key_401":
            return result.status == int(kind[-3:])
        case "busy" | "false_failure":
            return result.status == 200 and any(word in result.json() for word in ("status", "success", "data"))
        case "lost_task":
            return result.status == 400 and bool(result.json()["error"] == "task not found.")
    return kind == "drip" and result.status == 200


@pytest.mark.parametrize("name", POST_FAULTS)
def test_a_post_that_meets_a_fault_is_charged_or_not_as_its_name_says(
    simulator: Simulator, api: requests.Session, name: str
) -> None:
    """Only `…_after` faults are charged; of these only a dripping response gives the client its task_id."""
    simulator.set_dials(post_faults={name: 1}, drip_s=0.001)

    result = call(api, "POST", VOICE, timeout_s=0.3 if "hang" in name else 10)

    assert looks_like(name.removesuffix("_before").removesuffix("_after"), result), result
    ledger = simulator.ledger()
    assert ledger["faults"] == {name: 1}
    assert ledger["credits_spent"] == (4 if name.endswith("_after") else 0)
    assert [charge["answered"] for charge in ledger["charges"]] == [name == "drip_after"] * name.endswith("_after")


@pytest.mark.parametrize("name", GET_FAULTS)
def test_a_poll_that_meets_a_fault_does_not_hurt_its_task(
    simulator: Simulator, api: requests.Session, name: str
) -> None:
    """The fault is observed, and without it the next poll succeeds."""
    simulator.set_dials(voice_s=0, drip_s=0.001)
    path = TASK + api.post(VOICE, json=RECORDING).json()["task_id"]
    simulator.set_dials(get_faults={name: 1})

    result = call(api, "GET", path, timeout_s=0.3 if name == "hang" else 10)

    assert looks_like(name, result), result
    simulator.set_dials(get_faults={})
    assert "persona_id" in api.get(path).json()["data"]


def test_get_credits_meets_the_faults_of_a_get_but_has_no_task_to_lose(
    simulator: Simulator, api: requests.Session
) -> None:
    """`lost_task` does not affect it."""
    simulator.set_dials(get_faults={"error": 1})
    assert api.get(CREDITS).status_code == 502
    simulator.set_dials(get_faults={"lost_task": 1})
    assert api.get(CREDITS).status_code == 200


def test_a_request_that_is_refused_meets_no_fault_after_its_charge(simulator: Simulator, api: requests.Session) -> None:
    """Without a charge the refusal is sent unchanged."""
    simulator.set_dials(post_faults={"reset_after": 1})
    assert api.post(VOICE, json={}).status_code == 400


def test_a_charge_whose_client_left_is_not_answered(simulator: Simulator, api: requests.Session) -> None:
    """A client that times out was charged, and the ledger records that it did not receive the task_id."""
    simulator.set_dials(latency_s=30)
    assert call(api, "POST", VOICE, timeout_s=0.3).lost is requests.ReadTimeout
    assert [charge["answered"] for charge in simulator.ledger()["charges"]] == [False]


def test_a_task_lost_to_a_fault_and_ordered_again_is_a_double_charge(
    simulator: Simulator, api: requests.Session
) -> None:
    """Equal requests have the same fingerprint, also with different webhooks; the ledger lists it."""
    simulator.set_dials(post_faults={"reset_after": 1})
    call(api, "POST", VOICE)
    simulator.set_dials(post_faults={})
    api.post(VOICE, json={**RECORDING, "webhook_url": "http://127.0.0.1:9/hook"})
    api.post(VOICE, json={"audio_url": "https://example.com/ben.mp3"})

    ledger = simulator.ledger()

    first, second, other = (charge["fingerprint"] for charge in ledger["charges"])
    assert first == second != other
    assert ledger["double_charges"] == [first]


def test_a_fault_owns_its_share_of_the_draws() -> None:
    """The shares are adjacent, and the rest means no fault."""
    table = {"reset_before": 0.25, "reset_after": 0.25}
    names = [fault and fault.name for fault in (draw(table, fraction) for fraction in (0.1, 0.3, 0.6))]
    assert names == ["reset_before", "reset_after", None]
