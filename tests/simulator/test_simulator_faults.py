"""Each fault does to a client what its name says, and the ledger tells whether it was charged and what it was told."""

from typing import Any, NamedTuple

import pytest
import requests

from simulator.engine.faults import GET_FAULTS, POST_FAULTS, drawn
from simulator.process import Simulator

VOICE = "/api/v1/sonic/create-voice"
TASK = "/api/v1/sonic/task/"
CREDITS = "/api/v1/get-credits"
RECORDING = {"audio_url": "https://example.com/anna.mp3"}


class Seen(NamedTuple):
    """What a client saw of a call: the exception it ended with, or its answer."""

    lost: type[Exception] | None = None
    answer: requests.Response | None = None

    @property
    def status(self) -> int | None:
        """The HTTP status, if there was one."""
        return None if self.answer is None else self.answer.status_code

    def json(self) -> Any:
        """The answer's JSON; None when it is no JSON."""
        try:
            return None if self.answer is None else self.answer.json()
        except requests.JSONDecodeError:
            return None


def call(api: requests.Session, method: str, path: str, *, patience_s: float = 10) -> Seen:
    """Make a call and wait so long for each byte of the answer."""
    try:
        return Seen(answer=api.request(method, path, json=RECORDING, timeout=(10, patience_s)))
    except requests.RequestException as error:
        return Seen(lost=type(error))


def looks_like(kind: str, seen: Seen) -> bool:
    """Whether what a client saw is what a fault of this kind looks like."""
    match kind:
        case "reset":
            return seen.lost is requests.ConnectionError
        case "hang":
            return seen.lost is requests.ReadTimeout
        case "cut":
            return seen.lost is requests.exceptions.ChunkedEncodingError
        case "error":
            return seen.status == 502
        case "html":
            return seen.answer is not None and seen.answer.text.startswith("<html>") and seen.status in (200, 502)
        case "garbage":
            return seen.status == 200 and seen.json() in (None, [], {"ok": True})
        case "rate_limited":
            return seen.status == 429
        case "no_task_id":
            return bool(seen.json() == {"code": 200, "message": "success"})
        case "rate_in_body":
            return seen.status == 200 and bool(seen.json()["code"] == 429)
        case "rate_403" | "style_403" | "subscription_403" | "key_401":
            return seen.status == int(kind[-3:])
        case "busy" | "false_failure":
            return seen.status == 200 and any(word in seen.json() for word in ("status", "success", "data"))
        case "lost_task":
            return seen.status == 400 and bool(seen.json()["error"] == "task not found.")
    return kind == "drip" and seen.status == 200


@pytest.mark.parametrize("name", POST_FAULTS)
def test_a_post_that_meets_a_fault_is_charged_or_not_as_its_name_says(
    simulator: Simulator, api: requests.Session, name: str
) -> None:
    """`…_after` faults are charged, all others are not; the client knows its task_id only from a dripping answer."""
    simulator.turn(post_faults={name: 1}, drip_s=0.001)

    seen = call(api, "POST", VOICE, patience_s=0.3 if "hang" in name else 10)

    assert looks_like(name.removesuffix("_before").removesuffix("_after"), seen), seen
    ledger = simulator.ledger()
    assert ledger["faults"] == {name: 1}
    assert ledger["credits_spent"] == (4 if name.endswith("_after") else 0)
    assert [charge["answered"] for charge in ledger["charges"]] == [name == "drip_after"] * name.endswith("_after")


@pytest.mark.parametrize("name", GET_FAULTS)
def test_a_poll_that_meets_a_fault_does_not_hurt_its_task(
    simulator: Simulator, api: requests.Session, name: str
) -> None:
    """The fault is seen, and without it the next poll tells the result."""
    simulator.turn(voice_s=0, drip_s=0.001)
    path = TASK + api.post(VOICE, json=RECORDING).json()["task_id"]
    simulator.turn(get_faults={name: 1})

    seen = call(api, "GET", path, patience_s=0.3 if name == "hang" else 10)

    assert looks_like(name, seen), seen
    simulator.turn(get_faults={})
    assert "persona_id" in api.get(path).json()["data"]


def test_get_credits_meets_the_faults_of_a_get_but_has_no_task_to_lose(
    simulator: Simulator, api: requests.Session
) -> None:
    """`lost_task` leaves it alone."""
    simulator.turn(get_faults={"error": 1})
    assert api.get(CREDITS).status_code == 502
    simulator.turn(get_faults={"lost_task": 1})
    assert api.get(CREDITS).status_code == 200


def test_a_request_that_is_refused_meets_no_fault_after_its_charge(simulator: Simulator, api: requests.Session) -> None:
    """There was no charge, so the refusal is told plainly."""
    simulator.turn(post_faults={"reset_after": 1})
    assert api.post(VOICE, json={}).status_code == 400


def test_a_charge_whose_client_left_is_not_answered(simulator: Simulator, api: requests.Session) -> None:
    """A client that loses patience was charged all the same, and the ledger knows that it was not told."""
    simulator.turn(latency_s=30)
    assert call(api, "POST", VOICE, patience_s=0.3).lost is requests.ReadTimeout
    assert [charge["answered"] for charge in simulator.ledger()["charges"]] == [False]


def test_a_task_lost_to_a_fault_and_ordered_again_is_a_double_charge(
    simulator: Simulator, api: requests.Session
) -> None:
    """The same request twice has one fingerprint, wherever its webhooks go; the ledger lists it."""
    simulator.turn(post_faults={"reset_after": 1})
    call(api, "POST", VOICE)
    simulator.turn(post_faults={})
    api.post(VOICE, json={**RECORDING, "webhook_url": "http://127.0.0.1:9/hook"})
    api.post(VOICE, json={"audio_url": "https://example.com/ben.mp3"})

    ledger = simulator.ledger()

    first, second, other = (charge["fingerprint"] for charge in ledger["charges"])
    assert first == second != other
    assert ledger["double_charges"] == [first]


def test_a_fault_owns_its_share_of_the_draws() -> None:
    """The shares lie side by side, and what is left over is no fault."""
    table = {"reset_before": 0.25, "reset_after": 0.25}
    names = [fault and fault.name for fault in (drawn(table, fraction) for fraction in (0.1, 0.3, 0.6))]
    assert names == ["reset_before", "reset_after", None]
