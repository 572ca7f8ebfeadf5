"""The simulator produces the responses that clients of the real API report: refusals, shapes, late links, prices."""

from typing import Any

import pytest
import requests

from simulator.contract.refusals import LIMITS, REFUSALS
from simulator.process import Simulator
from tests.simulator.test_simulator_contract import CREDITS, MUSIC, RECORDING, SONG, TASK, VOICE, ordered


@pytest.mark.parametrize("name", REFUSALS)
def test_a_post_that_matches_is_refused_in_the_words_of_its_dial(
    simulator: Simulator, api: requests.Session, name: str
) -> None:
    """Every refusal is sent as listed, is not charged, and does not affect other requests."""
    simulator.set_dials(refuse_match="Dawn", refuse_with=name)
    refusals = [api.post(MUSIC, json=SONG) for _ in range(2)]
    expected = REFUSALS[name]
    assert [refusal.status_code for refusal in refusals] == [expected.status] * 2
    assert refusals[0].content == expected.payload()
    assert simulator.ledger()["credits_spent"] == 0
    ordered(api, VOICE, RECORDING)


def test_polls_of_a_task_that_matches_are_always_refused(simulator: Simulator, api: requests.Session) -> None:
    """The other tasks are answered as usual; the task itself was charged."""
    simulator.set_dials(voice_s=0, music_s=0, refuse_polls_match="Dawn", refuse_polls_with="key_401")
    song, voice = ordered(api, MUSIC, SONG), ordered(api, VOICE, RECORDING)
    assert [api.get(TASK + song).status_code for _ in range(2)] == [401, 401]
    assert "persona_id" in api.get(TASK + voice).json()["data"]


def test_get_credits_may_be_broken_for_good(simulator: Simulator, api: requests.Session) -> None:
    """`credits_with` names the response."""
    simulator.set_dials(credits_with="error_500")
    assert api.get(CREDITS).status_code == 500


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_put_into_the_words_of_its_dial(simulator: Simulator, api: requests.Session, name: str) -> None:
    """A rate limit may come as 429, 403, 400 or in the body of a 200; it never charges."""
    simulator.set_dials(concurrency=0, limit_with=name)
    answer = api.post(VOICE, json=RECORDING)
    status = 429 if name == "429" else REFUSALS[name].status
    assert answer.status_code == status
    assert simulator.ledger()["credits_spent"] == 0


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("camel", ["taskId"]),
        ("data_id", ["data", "id"]),
        ("data_text", ["data"]),
        ("data_list", ["data", 0, "task_id"]),
        ("list", ["task_ids", 0]),
    ],
)
def test_a_task_id_may_stand_in_other_places(
    simulator: Simulator, api: requests.Session, place: str, path: list[str | int]
) -> None:
    """In each place it is the id that was charged."""
    simulator.set_dials(task_id_place=place)
    value: Any = api.post(VOICE, json=RECORDING).json()
    for step in path:
        value = value[step]
    assert value == simulator.ledger()["charges"][0]["task_id"]


def test_a_task_id_may_be_a_number(simulator: Simulator, api: requests.Session) -> None:
    """The number can be polled."""
    simulator.set_dials(task_id_number=True, voice_s=0)
    task_id = api.post(VOICE, json=RECORDING).json()["task_id"]
    assert isinstance(task_id, int)
    assert api.get(f"{TASK}{task_id}").json()["data"]["persona_id"]


def test_a_voice_is_shown_in_each_of_its_shapes(simulator: Simulator, api: requests.Session) -> None:
    """The persona_id is the same under data, at the top, in a list, and beside a status."""
    simulator.set_dials(voice_s=0)
    task_id = ordered(api, VOICE, RECORDING)
    bodies = {}
    for shape in ("data", "top", "list", "state"):
        simulator.set_dials(voice_shape=shape)
        bodies[shape] = api.get(TASK + task_id).json()
    voice = bodies["data"]["data"]
    assert bodies["top"]["persona_id"] == voice["persona_id"]
    assert bodies["list"]["data"] == [voice]
    assert bodies["state"] == {"status": "SUCCESS", "data": voice}


@pytest.mark.parametrize(("fails", "state"), [(0, "running"), (1, "failed")])
def test_a_voice_may_show_its_persona_before_it_is_ready(
    simulator: Simulator, api: requests.Session, fails: float, state: str
) -> None:
    """The state beside it says that it is not usable."""
    simulator.set_dials(voice_s=1000 * (1 - fails), voice_failure=fails, early_persona=True)
    voice = api.get(TASK + ordered(api, VOICE, RECORDING)).json()["data"]
    assert voice["persona_id"]
    assert voice["state"] == state


def test_a_song_is_shown_in_each_of_its_shapes(simulator: Simulator, api: requests.Session) -> None:
    """Clips are in data, at the top, in songs or in result, with clip_id or id."""
    simulator.set_dials(music_s=0)
    task_id = ordered(api, MUSIC, SONG)
    bodies = {}
    for shape in ("list", "top", "songs", "result", "id"):
        simulator.set_dials(clips_shape=shape)
        bodies[shape] = api.get(TASK + task_id).json()
    clips = bodies["list"]["data"]
    assert bodies["top"]["clips"] == clips
    assert bodies["songs"]["data"]["songs"] == clips
    assert bodies["result"]["result"] == clips
    assert [clip["id"] for clip in bodies["id"]["data"]] == [clip["clip_id"] for clip in clips]


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("success_false", {"success": False}),
        ("code_500", {"code": 500}),
        ("cancelled", {"data": {"state": "cancelled"}}),
        ("timeout", {"data": {"state": "timeout"}}),
    ],
)
def test_a_failure_may_come_without_the_word_failed(
    simulator: Simulator, api: requests.Session, shape: str, body: dict[str, Any]
) -> None:
    """With HTTP 200, and with a message."""
    simulator.set_dials(voice_s=0, voice_failure=1, failure_shape=shape)
    answer = api.get(TASK + ordered(api, VOICE, RECORDING))
    assert answer.status_code == 200
    actual = answer.json()
    for name, value in body.items():
        assert actual[name] == value if not isinstance(value, dict) else value.items() <= actual[name].items()


def test_links_may_come_after_the_success(simulator: Simulator, api: requests.Session) -> None:
    """Both clips have succeeded, and their links are empty until the delay is over."""
    simulator.set_dials(music_s=0, link_late=1, link_delay_s=1000)
    clips = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]
    assert [(clip["state"], clip["audio_url"]) for clip in clips] == [("succeeded", "")] * 2
    simulator.set_dials(link_delay_s=0)
    clips = api.get(TASK + ordered(api, MUSIC, SONG | {"title": "Noon"})).json()["data"]
    assert all(clip["audio_url"] for clip in clips)


def test_one_clip_may_never_settle_or_end_in_another_word(simulator: Simulator, api: requests.Session) -> None:
    """`clip_stall` keeps it running, `clip_word` sets its final state."""
    simulator.set_dials(music_s=0, clip_stall=1)
    stalled = api.get(TASK + ordered(api, MUSIC, SONG)).json()["data"]
    simulator.set_dials(clip_stall=0, clip_failure=1, clip_word="moderated")
    moderated = api.get(TASK + ordered(api, MUSIC, SONG | {"title": "Noon"})).json()["data"]
    assert [clip["state"] for clip in stalled] == ["succeeded", "running"]
    assert [clip["state"] for clip in moderated] == ["succeeded", "moderated"]


def test_prices_are_dials(simulator: Simulator, api: requests.Session) -> None:
    """The ledger shows the price of each charge."""
    simulator.set_dials(voice_credits=5)
    ordered(api, VOICE, RECORDING)
    ledger = simulator.ledger()
    assert (ledger["credits_spent"], ledger["charges"][0]["credits"]) == (5, 5)
