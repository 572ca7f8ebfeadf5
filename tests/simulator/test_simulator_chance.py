"""The same seed and the same calls give the same results, in any order."""

from statistics import median
from typing import Any

import requests

from simulator.contract.chance import Chance
from simulator.process import Simulator

VOICE = "/api/v1/sonic/create-voice"
NAMES = [f"https://example.com/{number}.mp3" for number in range(40)]


def outcome(api: requests.Session, audio_url: str) -> Any:
    """Order a voice, and return the failure, or the response and the first poll."""
    try:
        answer = api.post(VOICE, json={"audio_url": audio_url})
    except requests.ConnectionError:
        return "lost"
    if answer.status_code != 200:
        return answer.status_code
    return answer.json(), api.get(f"/api/v1/sonic/task/{answer.json()['task_id']}").json()


def test_a_run_repeats_itself_in_any_order(simulator: Simulator, api: requests.Session) -> None:
    """After a reset with the same seed each order meets the same fault, has the same id and the same result."""
    faults = {"reset_after": 0.2, "error_before": 0.2}
    simulator.set_dials(seed=7, voice_s=0, voice_failure=0.3, code_shape="mixed", post_faults=faults)
    simulator.reset()
    first = {name: outcome(api, name) for name in NAMES}

    simulator.reset()
    second = {name: outcome(api, name) for name in reversed(NAMES)}

    assert first == second
    assert {result if isinstance(result, str | int) else "answered" for result in first.values()} == {
        "lost",
        502,
        "answered",
    }


def test_another_seed_is_another_run(simulator: Simulator, api: requests.Session) -> None:
    """The ids differ, and without a seed every run does."""
    ids = set()
    for seed in (1, 2, None, None):
        simulator.set_dials(seed=seed)
        simulator.reset()
        ids.add(api.post(VOICE, json={"audio_url": NAMES[0]}).json()["task_id"])
    assert len(ids) == 4


def test_the_same_order_twice_is_two_tasks(api: requests.Session) -> None:
    """Each has its own id, because the API has no idempotency keys."""
    ids = {api.post(VOICE, json={"audio_url": NAMES[0]}).json()["task_id"] for _ in range(2)}
    assert len(ids) == 2


def test_durations_spread_around_their_median() -> None:
    """They are log-normal and positive; without jitter all equal the median."""
    chance = Chance(1)
    seconds = [chance.spread(10, 0.5, number) for number in range(2000)]
    assert 9.5 < median(seconds) < 10.5
    assert min(seconds) > 0
    assert {chance.spread(10, 0, number) for number in range(10)} == {10}
