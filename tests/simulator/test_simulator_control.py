"""The control port: dials, ledger, credits, refusals, settling and resets."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from simulator.process import ControlError, Simulator

VOICE = "/api/v1/sonic/create-voice"
TASK = "/api/v1/sonic/task/"
CREDITS = "/api/v1/get-credits"
RECORDING = {"audio_url": "https://example.com/anna.mp3"}


def answers(api: requests.Session) -> bool:
    """Return whether the API can be reached."""
    try:
        return api.get(CREDITS).status_code == 200
    except requests.ConnectionError:
        return False


def test_dials_can_be_turned_while_it_runs(simulator: Simulator) -> None:
    """The changed dials are shown, and no others change."""
    before = simulator.dials()
    simulator.set_dials(voice_s=7, post_faults={"reset_after": 0.1})
    assert simulator.dials() == {**before, "voice_s": 7, "post_faults": {"reset_after": 0.1}}


@pytest.mark.parametrize(
    ("dials", "text"),
    [
        ({"speed": 1}, "speed: there is no such dial"),
        ({"voice_s": -1}, "voice_s: it must be a number, at least 0, not -1"),
        ({"voice_s": "fast"}, 'voice_s: it must be a number, at least 0, not "fast"'),
        ({"voice_s": True}, "voice_s: it must be a number"),
        ({"voice_s": 10**400}, "voice_s: it must be a number"),
        ({"voice_failure": 1.5}, "voice_failure: it must be a number, from 0 to 1"),
        ({"credits": 1.5}, "credits: it must be a whole number, at least 0"),
        ({"concurrency": "all"}, "concurrency: it must be a whole number, at least 0, or null"),
        ({"webhook": "thrice"}, "webhook: it must be one of once, twice, late, out_of_order, never"),
        ({"api_key": ""}, "api_key: it must be a string that is not empty, or null"),
        ({"subscription": 1}, "subscription: it must be true or false"),
        ({"get_faults": {"reset_after": 1}}, "get_faults: it must be an object of name: probability"),
        ({"post_faults": {"reset_after": 0.6, "reset_before": 0.6}}, "post_faults: it must be an object of name"),
    ],
)
def test_a_bad_dial_names_itself_and_nothing_is_set(simulator: Simulator, dials: dict[str, Any], text: str) -> None:
    """The text says what is allowed; valid dials of the same call are not set."""
    before = simulator.dials()
    with pytest.raises(ControlError) as refused:
        simulator.set_dials(**{"jitter": 1, **dials})
    assert str(refused.value).startswith(text)
    assert simulator.dials() == before


def test_the_ledger_shows_charges_calls_and_answers(simulator: Simulator, api: requests.Session) -> None:
    """Calls are counted by kind, responses by status; each charge names its subject."""
    task_id = api.post(VOICE, json=RECORDING).json()["task_id"]
    api.get(TASK + task_id)
    api.get(TASK + "unknown")
    api.get(CREDITS)

    ledger = simulator.ledger()

    assert ledger["calls"] == {"create_voice": 1, "create_music": 0, "task": 2, "credits": 1}
    assert ledger["statuses"] == {"200": 3, "400": 1}
    assert (ledger["credits_spent"], ledger["credits_left"], ledger["charged"]) == (4, 9996, 1)
    charge = ledger["charges"][0]
    assert charge.pop("ready_at") == charge["at"] + 2
    assert abs(charge.pop("at") - time.time()) < 60
    assert len(charge.pop("fingerprint")) == 16
    assert charge == {
        "task_id": task_id,
        "kind": "voice",
        "subject": RECORDING["audio_url"],
        "credits": 4,
        "polls": 1,
        "answered": True,
    }


def test_the_ledger_can_leave_out_its_charges(simulator: Simulator, api: requests.Session) -> None:
    """This is for runs with a hundred thousand charges."""
    api.post(VOICE, json=RECORDING)
    ledger = simulator.ledger(charges=False)
    assert (ledger["charges"], ledger["charged"]) == ([], 1)


def test_a_reset_forgets_everything_but_the_dials(simulator: Simulator, api: requests.Session) -> None:
    """Tasks, charges and counts are removed, and the credits are those of the dial."""
    simulator.set_dials(credits=100)
    fresh = simulator.ledger()
    task_id = api.post(VOICE, json=RECORDING).json()["task_id"]

    simulator.reset()

    assert simulator.ledger() == fresh
    assert simulator.dials()["credits"] == 100
    assert api.get(TASK + task_id).json()["error"] == "task not found."


def test_a_task_can_be_settled_by_hand_once(simulator: Simulator, api: requests.Session) -> None:
    """It is ready or failed from then on; a settled or unknown task cannot be settled."""
    simulator.set_dials(voice_s=1000)
    finished, failed = (api.post(VOICE, json=RECORDING).json()["task_id"] for _ in range(2))
    simulator.complete_task(finished)
    simulator.fail_task(failed)
    assert "persona_id" in api.get(TASK + finished).json()["data"]
    assert api.get(TASK + failed).json()["data"]["state"] == "failed"
    with pytest.raises(ControlError, match="is settled already"):
        simulator.fail_task(finished)
    with pytest.raises(ControlError, match="there is no task unknown"):
        simulator.complete_task("unknown")


def test_a_port_refuses_connections_until_the_time_is_over(
    simulator: Simulator, api: requests.Session, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    """Idle connections are closed too, but not the control port. A new call replaces the former one."""
    assert answers(api)

    simulator.refuse_connections(3600)

    with pytest.raises(requests.ConnectionError, match="Connection refused"):
        api.get(CREDITS)
    assert simulator.control("GET", "/healthz") == {"status": "ok"}
    simulator.refuse_connections(0.05)
    eventually(lambda: answers(api))


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/refuse", {"for_s": 0}, "for_s: it must be a number, from 0.01 to 3600"),
        ("/refuse", {}, "for_s: it must be a number"),
        ("/credits", {"add": "many"}, "add: it must be a whole number, at least 0"),
        ("/credits", [], "the body must be a JSON object"),
    ],
)
def test_a_bad_control_call_says_what_is_allowed(simulator: Simulator, path: str, body: object, text: str) -> None:
    """HTTP 400, and it names the field."""
    with pytest.raises(ControlError) as refused:
        simulator.control("POST", path, body)
    assert str(refused.value).startswith(text)


def test_no_fault_touches_the_control_port(simulator: Simulator) -> None:
    """It responds at once with any dials."""
    simulator.set_dials(get_faults={"hang": 1}, post_faults={"hang_before": 1}, latency_s=1000)
    simulator.add_credits(1)
    assert simulator.ledger()["credits_left"] == 10_001
