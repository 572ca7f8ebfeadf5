"""Every shape in which upstream's answers come, and any other JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.musicapi import MusicReady, NotReady, Reading, TaskFailed, VoiceReady
from tasks.musicapi.readings import accepted, credits_left, reading
from voicequeue import records
from voicequeue.job import Clip

#: What Python's parser of JSON can give, beyond JSON itself: NaN, Infinity, numbers without end, half characters.
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters())
)
WORDS = st.sampled_from(["failed", "error", "pending", "running", "succeeded", "complete", "not_ready", "\ud800"])
NAMES = st.sampled_from(["code", "type", "data", "state", "status", "message", "error"]) | st.sampled_from(
    ["task_id", "clips", "clip_id", "persona_id", "name", "duration", "credits", "extra_credits"]
)
ANY_JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6),
    max_leaves=12,
)


def clip(state: str | None, clip_id: str | None = "c1", **fields: object) -> dict[str, object]:
    """One clip as upstream gives it."""
    given_fields = {"clip_id": clip_id, "state": state, **fields}
    return {name: value for name, value in given_fields.items() if value is not None}


def states(found: Reading | None) -> list[tuple[str, str]]:
    """The ids and states of the clips that are ready."""
    assert isinstance(found, MusicReady)
    return [(each.clip_id, each.state) for each in found.clips]


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "message": "success", "task_id": "t1"},
        {"code": "200", "message": "success", "task_id": "t1"},
        {"message": "success", "task_id": "t1"},
        {"task_id": " t1\n"},
        {"code": 200, "data": {"task_id": "t1"}},
        {"code": 200, "task_id": "", "data": {"task_id": "t1"}},
        {"task_id": "t1", "data": None},
        {"task_id": "t1", "data": {"task_id": "another"}},
        {"task_id": "t1", "error": "not really"},
    ],
)
def test_a_task_id_is_found_wherever_it_stands(body: object) -> None:
    """At the top or under `data`, whatever `code` is."""
    assert accepted(body) == "t1"


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "t1",
        7,
        {},
        {"ok": True},
        {"code": 200, "message": "success"},
        {"task_id": None},
        {"task_id": "  "},
        {"task_id": ["t1"]},
        {"task_id": True},
        {"data": []},
        {"data": "t1"},
        {"data": {}},
        {"data": [{"task_id": "t1"}]},
        {"code": 403, "message": "The remaining credits are not enough."},
    ],
)
def test_an_answer_without_a_task_id_cannot_be_read(body: object) -> None:
    """None, so that nobody takes the order for accepted, or for refused."""
    assert accepted(body) is None


@pytest.mark.parametrize(
    "body",
    [
        {"type": "not_ready", "error": "The task is still in progress."},
        {"code": 202, "type": "not_ready"},
        {"data": {"type": "not_ready"}},
        {"data": {"state": "pending"}},
        {"data": {"status": "RUNNING"}},
        {"data": None, "status": "processing"},
        {"data": {}, "status": "queued"},
        {"data": [], "type": "not_ready"},
        {"data": [clip("pending"), clip("pending")]},
        {"data": [clip("running")]},
        {"data": [clip("streaming", audio_url="https://cdn.example/1.mp3")]},
        {"data": [clip("succeeded"), clip("streaming")]},
        {"data": [clip("failed"), clip("running")]},
        {"data": [clip("pending", None), clip("pending", None)]},
        {"data": [clip(None)]},
        {"data": [clip("a word of next year")]},
        {"data": {"state": "running", "clips": []}},
        {"data": {"state": "running", "clips": [clip(None)]}},
        {"data": {"state": "succeeded", "clips": [clip("streaming")]}},
    ],
)
def test_what_is_still_worked_on_is_not_ready(body: object) -> None:
    """A word that says so, or clips of which not every one has settled."""
    assert reading(body) == NotReady()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"code": 200, "data": {"persona_id": "p1", "name": "Anna"}, "message": "success"}, "Anna"),
        ({"data": {"persona_id": "p1"}}, None),
        ({"data": {"persona_id": " p1 ", "name": "  "}}, None),
        ({"data": {"persona_id": "p1", "name": 7, "state": "succeeded"}}, None),
    ],
)
def test_a_persona_id_is_a_ready_voice(body: object, name: str | None) -> None:
    """With its name, where there is one."""
    assert reading(body) == VoiceReady("p1", name)


def test_a_ready_clip_keeps_its_links_and_its_length() -> None:
    """What adopters need of a song is taken over; absent and empty things are None."""
    full = clip("SUCCEEDED", title="Song", audio_url="https://cdn/1.mp3", image_url="https://cdn/1.png", duration=120.5)
    bare = clip("succeeded", "c2", title="", audio_url=None, image_url=7, duration="long")

    assert reading({"code": 200, "data": [full, bare], "message": "success"}) == MusicReady(
        (
            Clip("c1", "succeeded", "Song", "https://cdn/1.mp3", "https://cdn/1.png", 120.5),
            Clip("c2", "succeeded"),
        )
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [clip("succeeded"), clip("succeeded", "c2")]}, [("c1", "succeeded"), ("c2", "succeeded")]),
        ({"data": [clip("succeeded"), clip("failed", "c2")]}, [("c1", "succeeded"), ("c2", "failed")]),
        ({"data": [clip("failed"), clip("complete", "c2")]}, [("c1", "failed"), ("c2", "complete")]),
        ({"data": [clip("succeeded"), clip("failed", None)]}, [("c1", "succeeded")]),
        ({"data": {"state": "succeeded", "clips": [clip("succeeded")]}}, [("c1", "succeeded")]),
        ({"data": {"state": "succeeded", "clips": [clip(None)]}}, [("c1", "succeeded")]),
        ({"data": {"clips": [clip(None, status="succeeded")]}}, [("c1", "succeeded")]),
    ],
)
def test_settled_clips_of_which_one_succeeded_are_a_ready_song(body: object, expected: list[tuple[str, str]]) -> None:
    """As a list or in an object; a clip without a state of its own is in the object's."""
    assert states(reading(body)) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": [clip("failed", error="out of tune"), clip("failed")]}, "out of tune"),
        ({"data": [clip("failed"), clip("error", reason="too quiet")]}, "too quiet"),
        ({"data": [clip("failed", None, error_message="too loud")]}, "too loud"),
        ({"data": {"state": "failed", "error": "no clear speaker"}}, "no clear speaker"),
        ({"data": {"status": "error", "message": "no clear speaker"}}, "no clear speaker"),
        ({"data": {"state": "failed", "error": {"message": "no clear speaker"}}}, "no clear speaker"),
        ({"data": {"state": "failed", "clips": []}}, "upstream gives no reason"),
        ({"status": "error", "message": "no clear speaker"}, "no clear speaker"),
        ({"state": "FAILED", "detail": "no clear speaker"}, "no clear speaker"),
        ({"status": "failed", "data": []}, "upstream gives no reason"),
        ({"status": "failed", "data": {}, "error": "gone"}, "gone"),
    ],
)
def test_a_failed_task_is_told_with_upstreams_reason(body: object, message: str) -> None:
    """For voices and songs, as clips, as an object, or as the answer itself."""
    assert reading(body) == TaskFailed(message)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "OK",
        7,
        {},
        {"ok": True},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": "ready"},
        {"data": [7]},
        {"data": [None, clip("succeeded")]},
        {"data": [{"title": "Song"}]},
        {"data": [clip("succeeded", None)]},
        {"data": {"persona_id": ""}},
        {"data": {"persona_id": 7}},
        {"data": {"clips": "soon"}},
        {"state": ["failed"]},
        {"error": "Bad gateway."},
    ],
)
def test_what_is_none_of_these_cannot_be_read(body: object) -> None:
    """None, so that it is asked again: nothing is made up."""
    assert reading(body) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"credits": 50, "extra_credits": 0}, 50),
        ({"credits": 50, "extra_credits": 7}, 57),
        ({"credits": 0, "extra_credits": 7}, 7),
        ({"credits": 50}, 50),
        ({"credits": 50, "extra_credits": None}, 50),
        ({"credits": 50.5, "extra_credits": 1}, 51),
        ({"extra_credits": 7}, None),
        ({"credits": "50"}, None),
        ({"credits": True}, None),
        ({"credits": None}, None),
        ({"credits": float("nan")}, None),
        ({"credits": float("inf")}, None),
        ({"credits": 10**400}, None),
        ({}, None),
        ([50], None),
        (None, None),
    ],
)
def test_both_kinds_of_credits_count(body: object, expected: int | None) -> None:
    """Their sum; None where there is no number of credits."""
    assert credits_left(body) == expected


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_task_id(body: object) -> None:
    """`accepted` never raises, and gives nothing that is empty or cannot be stored."""
    found = accepted(body)
    assert found is None or found.encode().strip()


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_reading(body: object) -> None:
    """`reading` never raises, and what it finds can be written to a record and read again."""
    match reading(body):
        case MusicReady(clips):
            assert any(each.state in ("succeeded", "complete") for each in clips)
            assert records.clips(records.clips_text(clips)) == clips
            json.dumps([each.duration for each in clips], allow_nan=False)
            records.clips_text(clips).encode()
        case VoiceReady(persona_id, name):
            assert persona_id.encode()
            assert name is None or name.encode()
        case TaskFailed(message):
            assert message.encode()


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_balance(body: object) -> None:
    """`credits_left` never raises."""
    assert isinstance(credits_left(body), int | None)
