"""Every shape in which upstream's answers come, and any other JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.musicapi import MusicReady, NotReady, TaskFailed, TaskResult, VoiceReady
from tasks.musicapi.responses import accepted_task_id, account_credits, task_id, task_result
from voicequeue.domain import serialization
from voicequeue.domain.clip import Clip, Phase, merged, phase_of
from voicequeue.domain.stage import Stage

#: What Python's parser of JSON can give, beyond JSON itself: NaN, Infinity, numbers without end, half characters.
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters())
)
WORDS = st.sampled_from(["failed", "error", "pending", "running", "succeeded", "complete", "not_ready", "\ud800"])
NAMES = (
    st.sampled_from(["code", "type", "data", "state", "status", "message", "error", "success", "id", "taskId"])
    | st.sampled_from(["task_id", "clips", "clip_id", "persona_id", "name", "duration", "credits", "extra_credits"])
    | st.sampled_from(["result", "songs", "audio_url", "audioUrl", "tags", "created_at", "task_ids"])
)
ANY_JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6),
    max_leaves=12,
)


LINK = "https://cdn.example/1.mp3"


def clip(state: str | None, clip_id: str | None = "c1", **fields: object) -> dict[str, object]:
    """One clip as upstream gives it."""
    given_fields = {"clip_id": clip_id, "state": state, **fields}
    return {name: value for name, value in given_fields.items() if value is not None}


def sung(state: str | None = "succeeded", clip_id: str | None = "c1", **fields: object) -> dict[str, object]:
    """One clip with its link."""
    return clip(state, clip_id, audio_url=LINK, **fields)


def states(found: TaskResult | None) -> list[tuple[str, str]]:
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
        {"taskId": "t1"},
        {"TaskID": "t1"},
        {"task_ids": ["t1", "t2"]},
        {"task_id": ["t1"]},
        {"data": {"taskId": "t1"}},
        {"data": {"id": "t1"}},
        {"data": "t1"},
        {"data": ["t1"]},
        {"data": [{"task_id": "t1"}]},
        {"data": {"task": {"id": "t1", "state": "queued"}}},
        {"result": {"data": {"task_id": "t1"}}},
        {"id": "t1", "status": "queued"},
        {"task_ids": [{"task_id": "t1"}]},
        {"task_ids": [{"id": "t1"}, {"id": "t2"}]},
        {"task_id": {"id": "t1"}},
        {"jobId": "t1"},
        {"data": {"job_id": "t1", "id": "request-1"}},
        {"tasks": [{"id": "t1"}]},
        ["t1"],
        {"code": 200, "data": {"task": "t1"}},
        {"code": 200, "data": {"result": "t1"}},
        {"data": {"task": {"id": "t1"}, "clips": [{"id": "c1"}]}},
        {"code": 429, "message": "Too many requests", "task_id": "t1"},
        {"code": 403, "message": "The remaining credits are not enough.", "data": {"id": "t1"}},
        {"success": False, "error": {"message": "no"}, "data": {"taskId": "t1"}},
        {"code": 500, "message": "Internal error", "task_id": "t1"},
    ],
)
def test_a_task_id_is_found_wherever_it_stands(body: object) -> None:
    """At the top or inside, whatever it is called and whatever else is said: an order with a task was charged."""
    assert accepted_task_id(body) == "t1"


@pytest.mark.parametrize(
    "body", [{"task_id": 4711}, {"data": 4711}, {"data": {"id": 4711}}, {"taskIds": [4711]}, {"task_id": 4711.0}]
)
def test_a_task_id_may_be_a_number(body: object) -> None:
    """As text it is asked about."""
    assert accepted_task_id(body) == "4711"


def test_a_webhook_names_a_task_only_where_it_is_called_so() -> None:
    """The id of a clip, or of the event, is none of an order's."""
    songs = {"id": "event-1", "data": [{"id": "c1", "audio_url": LINK}]}

    assert task_id(songs) is None
    assert task_id({**songs, "taskId": "t1"}) == "t1"


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
        {"task_id": []},
        {"task_id": True},
        {"task_id": 0},
        {"task_id": -1},
        {"task_id": 10**400},
        {"task_id": "null"},
        {"data": []},
        {"data": {}},
        {"data": "accepted"},
        {"data": "your order 7 was taken"},
        {"code": 403, "message": "The remaining credits are not enough."},
        {"code": 429, "message": "Too many requests", "id": "request-1"},
        {"code": 400, "message": "no", "data": "E1001"},
        {"error": {"id": "e1", "message": "no"}},
        {"data": {"clips": [{"id": "c1"}]}},
        {"code": 200, "data": {"clips": [{"id": "c1", "state": "pending"}, {"id": "c2"}]}},
        {"data": {"song": {"id": "c1"}}},
        {"data": {"persona": {"id": "p1"}}},
        {"task_id": 4711.5},
        {"task_id": 1e300},
        {"task_id": float("inf")},
        ["accepted"],
        {"code": 400, "data": {"result": "E1001"}},
    ],
)
def test_an_answer_without_a_task_id_cannot_be_read(body: object) -> None:
    """None, so that nobody takes the order for accepted, or for refused."""
    assert accepted_task_id(body) is None


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
        {"data": [clip("succeeded"), clip("succeeded", "c2")]},
        {"data": [sung(), clip("succeeded", "c2")]},
        {"data": [sung(), clip("succeeded", "c2", audio_url="")]},
        {"data": [clip("succeeded", audio_url="soon"), clip("failed", "c2")]},
        {"data": [sung(), clip(None, "c2")]},
        {"data": [sung(), clip("remixing", "c2")]},
        {"data": [None, sung()]},
        {"data": [clip("succeeded", None)]},
        {"data": {"persona_id": "p1", "state": "running"}},
        {"persona_id": "p1", "data": {"status": "pending"}},
        {"status": "processing", "data": {"persona_id": "p1"}},
        {"data": [{"persona_id": "p1", "state": "queued"}]},
        {"status": "running", "data": {"persona_id": "p1", "state": "done"}},
        {"status": "SUCCESS", "data": {"persona": {"id": "p1", "state": "running"}}},
        {"data": {"persona_id": "p1", "job_status": "running"}},
        {"data": {"persona_id": "p1", "is_ready": False}},
        {"data": {"persona_id": "p1", "state": "succeeded", "status": "review"}},
        {"status": "review", "data": {"persona_id": "p1", "state": "succeeded"}},
        {"data": {"persona_id": "p1"}, "message": "The voice is still being made."},
        {"status": "error", "message": "Server busy, try again later", "data": {"persona_id": "p1"}},
        {"data": [sung(), clip("wait", "c2")]},
        {"data": [sung(), clip("queue", "c2")]},
        {"data": [sung(), clip("init", "c2")]},
        {"status": "SUCCESS", "data": [clip("running")]},
        {"success": False, "error": {"message": "The task is not ready yet."}},
        {"code": 200, "message": "The task is still in progress."},
        {"state": "IN PROGRESS"},
        {"status": "error", "message": "Server busy, try again later"},
        {"status": "error", "code": 200, "error": {"message": "Please try again in a minute."}},
    ],
)
def test_what_is_still_worked_on_is_not_ready(body: object) -> None:
    """A word that says so, or clips of which not every one has settled with its link; the state before the persona."""
    assert isinstance(task_result(body), NotReady)


def test_songs_that_are_not_ready_are_named_all_the_same() -> None:
    """At the deadline those that have a link are taken."""
    found = task_result({"data": [sung(), clip("running", "c2")]})

    assert isinstance(found, NotReady)
    assert [(each.clip_id, each.is_finished) for each in found.clips] == [("c1", True), ("c2", False)]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"code": 200, "data": {"persona_id": "p1", "name": "Anna"}, "message": "success"}, "Anna"),
        ({"data": {"persona_id": "p1"}}, None),
        ({"data": {"persona_id": " p1 ", "name": "  "}}, None),
        ({"data": {"persona_id": "p1", "name": 7, "state": "succeeded"}}, None),
        ({"code": 200, "persona_id": "p1", "name": "Anna"}, "Anna"),
        ({"data": {"personaId": "p1", "personaName": "Anna"}}, "Anna"),
        ({"data": [{"persona_id": "p1", "name": "Anna"}]}, "Anna"),
        ({"result": {"persona": {"persona_id": "p1", "name": "Anna"}}}, "Anna"),
        ({"status": "SUCCESS", "data": {"persona_id": "p1"}}, None),
        ({"data": {"persona_id": 1, "persona": {"persona_id": "p1"}}}, None),
        ({"data": {"persona": {"id": "p1", "name": "Anna", "state": "succeeded"}}}, "Anna"),
        ({"data": {"persona_id": "p1", "status": 200}}, None),
        ({"data": {"persona_id": "p1", "status": "200", "error": ""}}, None),
        ({"data": {"persona_id": "p1", "error": "none"}}, None),
        ({"data": {"persona_id": "p1", "status": "active"}}, None),
    ],
)
def test_a_persona_id_is_a_ready_voice(body: object, name: str | None) -> None:
    """With its name, where there is one."""
    assert task_result(body, Stage.VOICE) == task_result(body) == VoiceReady("p1", name)


def test_a_persona_id_may_be_a_number() -> None:
    """As text it is sung with."""
    assert task_result({"data": {"persona_id": 12345}}, Stage.VOICE) == VoiceReady("12345", None)


@pytest.mark.parametrize(
    "word",
    ["wait", "in_queue", "queue", "not_started", "incomplete", "new", "created", "init", "initial", "paused", "review"],
)
@pytest.mark.parametrize("outer", [{}, {"status": "SUCCESS"}, {"success": True, "code": 200, "message": "success"}])
def test_a_voice_in_a_state_that_no_table_has_is_not_ready(word: str, outer: dict[str, Any]) -> None:
    """A song that is ordered too early is paid for."""
    for body in ({**outer, "data": {"persona_id": "p1", "state": word}}, {**outer, "persona_id": "p1", "state": word}):
        assert task_result(body, Stage.VOICE) == NotReady()


@pytest.mark.parametrize(
    "body",
    [
        {"code": 500, "data": {"persona_id": "p1"}},
        {"code": 500, "message": "Internal server error", "persona_id": "p1"},
        {"success": False, "persona_id": "p1"},
        {"success": False, "persona_id": "p1", "state": "succeeded"},
        {"success": False, "message": "Internal error", "data": {"persona_id": "p1", "audio_url": LINK}},
        {"code": 429, "message": "Too many requests", "persona_id": "p1"},
        {"code": 10001, "message": "no", "persona_id": "p1"},
        {"code": 200, "data": {"code": 503, "message": "Service unavailable", "persona_id": "p1"}},
        {"persona_id": "p1", "error": "voice creation failed"},
        {"error": {"message": "Bad gateway."}, "data": {"persona_id": "p1"}},
    ],
)
def test_no_voice_is_taken_from_an_answer_that_is_an_error(body: object) -> None:
    """Where the error tells nothing of the order, the voice is asked about again."""
    assert task_result(body, Stage.VOICE) is None


def test_what_an_order_is_for_decides_what_its_answer_is_read_as() -> None:
    """A song may name the voice that sings it, and a voice the recording that it was made from."""
    song = {"data": [sung(persona_id="p1")]}
    voice = {"data": {"persona_id": "p1", "audio_url": "https://recordings.example/anna.mp3"}}

    assert states(task_result(song, Stage.MUSIC)) == [("c1", "succeeded")]
    assert task_result(voice, Stage.VOICE) == VoiceReady("p1", None)


def test_a_ready_clip_keeps_its_links_and_its_length() -> None:
    """All that upstream tells of a song is taken over; absent and empty things are None."""
    media: dict[str, Any] = {
        "audio_url": "https://cdn/1.mp3",
        "image_url": "https://cdn/1.png",
        "video_url": "https://cdn/1.mp4",
    }
    texts: dict[str, Any] = {
        "title": "Song",
        "tags": "calm, pop",
        "lyrics": "la",
        "mv": "sonic-v5",
        "gpt_description_prompt": "sad",
    }
    full = clip("SUCCEEDED", **media, **texts, duration=120.5, created_at="2026-03-01T09:30:00Z")
    bare = clip("succeeded", "c2", title="", audio_url=LINK, image_url=7, duration="long", tags=[], created_at=None)

    assert task_result({"code": 200, "data": [full, bare], "message": "success"}) == MusicReady(
        (
            Clip("c1", "succeeded", **media, **texts, duration=120.5, created_at="2026-03-01T09:30:00Z"),
            Clip("c2", "succeeded", audio_url=LINK),
        )
    )


def test_fields_are_read_in_other_spellings_too() -> None:
    """Names in camel case, a style as a list, numbers as text, times as numbers."""
    other = {
        "id": 7,
        "audioUrl": LINK,
        "imageUrl": "https://cdn/1.png",
        "videoUrl": "https://cdn/1.mp4",
        "tags": ["a", "b"],
    }

    assert task_result(
        {"songs": [{**other, "duration": "120.5", "createdAt": 1_800_000_000, "modelName": "v5"}]}
    ) == MusicReady(
        (
            Clip(
                "7",
                "succeeded",
                audio_url=LINK,
                image_url="https://cdn/1.png",
                video_url="https://cdn/1.mp4",
                duration=120.5,
                tags="a, b",
                created_at="1800000000",
                mv="v5",
            ),
        )
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [sung(), sung("succeeded", "c2")]}, [("c1", "succeeded"), ("c2", "succeeded")]),
        ({"data": [sung(), clip("failed", "c2")]}, [("c1", "succeeded"), ("c2", "failed")]),
        ({"data": [clip("failed"), sung("complete", "c2")]}, [("c1", "failed"), ("c2", "complete")]),
        ({"data": [sung(), clip("failed", None)]}, [("c1", "succeeded")]),
        ({"data": {"state": "succeeded", "clips": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"state": "succeeded", "clips": [sung(None)]}}, [("c1", "succeeded")]),
        ({"data": {"clips": [sung(None, status="succeeded")]}}, [("c1", "succeeded")]),
        ({"data": [sung(), clip("cancelled", "c2")]}, [("c1", "succeeded"), ("c2", "cancelled")]),
        ({"data": [sung(), clip("moderated", "c2")]}, [("c1", "succeeded"), ("c2", "moderated")]),
        ({"data": [sung(), clip("a word of next year", "c2")]}, [("c1", "succeeded"), ("c2", "a word of next year")]),
        ({"status": "SUCCESS", "data": [sung(None)]}, [("c1", "success")]),
        ({"data": sung()}, [("c1", "succeeded")]),
        ({"data": {"clip": sung()}}, [("c1", "succeeded")]),
        (sung(), [("c1", "succeeded")]),
        ([sung()], [("c1", "succeeded")]),
        ([[sung()]], [("c1", "succeeded")]),
        ({"data": [[sung()]]}, [("c1", "succeeded")]),
        ({"data": {"list": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"records": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"outputs": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"items": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"status": "SUCCESS", "list": [sung(None)]}}, [("c1", "success")]),
        ({"clips": [sung()]}, [("c1", "succeeded")]),
        ({"result": {"songs": [sung()]}}, [("c1", "succeeded")]),
        ({"data": {"result": [sung()]}}, [("c1", "succeeded")]),
        ({"data": [{"task_id": "t1", "status": "SUCCESS", "result": {"clips": [sung(None)]}}]}, [("c1", "success")]),
        ({"data": [sung("succeeded", None)]}, [("clip-1", "succeeded")]),
        ({"state": "failed", "data": [sung(), clip("failed", "c2")]}, [("c1", "succeeded"), ("c2", "failed")]),
    ],
)
def test_settled_clips_of_which_one_succeeded_are_a_ready_song(body: object, expected: list[tuple[str, str]]) -> None:
    """As a list or in an object; a clip without a state of its own is in the object's."""
    assert states(task_result(body)) == expected


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
        ({"status": "cancelled"}, "upstream says: cancelled"),
        ({"data": {"state": "timeout"}}, "upstream says: timeout"),
        ({"data": {"status": "EXPIRED", "message": "too old"}}, "too old"),
        ({"state": "rejected"}, "upstream says: rejected"),
        ({"data": {"status": "GENERATE_AUDIO_FAILED", "errorMessage": "too loud"}}, "too loud"),
        ({"data": [clip("moderated"), clip("canceled")]}, "upstream says: moderated"),
        ({"success": False, "error": {"message": "Voice is too noisy"}}, "Voice is too noisy"),
        ({"success": "false", "message": "no clear speaker"}, "no clear speaker"),
        ({"code": 500, "message": "Song generation failed"}, "Song generation failed"),
        ({"code": "500", "msg": "The voice could not be extracted"}, "The voice could not be extracted"),
        ({"code": 400, "message": "Generation failed: copyrighted content"}, "Generation failed: copyrighted content"),
        ({"data": {"persona_id": "p1", "state": "failed", "error": "no"}}, "no"),
        ({"status": "failed", "persona_id": "p1", "message": "no"}, "no"),
        ({"status": "failed", "data": {"persona_id": "p1", "state": "succeeded"}}, "upstream gives no reason"),
        (
            {"success": False, "error": {"message": "no clear speaker"}, "data": {"persona_id": "p1"}},
            "no clear speaker",
        ),
        ({"code": 500, "message": "voice creation failed", "persona_id": "p1"}, "voice creation failed"),
        ({"code": "500", "message": "failed", "data": {"persona_id": "p1"}}, "failed"),
        ({"code": 400, "message": "bad audio", "data": {"persona_id": "p1"}}, "bad audio"),
        ({"code": 200, "data": {"code": 500, "message": "creation failed", "persona_id": "p1"}}, "creation failed"),
        ({"message": "success", "data": {"success": False, "error": "too noisy", "persona_id": "p1"}}, "too noisy"),
        ({"code": 500, "message": "No vocals detected"}, "No vocals detected"),
        ({"code": 500, "message": "Audio duration must be longer than 10s"}, "Audio duration must be longer than 10s"),
        ({"code": 400, "message": "Voice not clear enough"}, "Voice not clear enough"),
        ({"success": False, "error": {"message": "Audio file not found at URL"}}, "Audio file not found at URL"),
        ({"success": False, "error": "Cannot fetch audio"}, "Cannot fetch audio"),
        ({"data": {"state": "nsfw"}}, "upstream says: nsfw"),
    ],
)
def test_a_failed_task_is_told_with_upstreams_reason(body: object, message: str) -> None:
    """For voices and songs, as clips, as an object, or as the answer itself; the state before the persona."""
    assert task_result(body) == TaskFailed(message)


@pytest.mark.parametrize(
    "body",
    [
        {"code": 429, "message": "Too many requests"},
        {"code": 500, "message": "Internal server error"},
        {"code": 503, "message": "Service unavailable"},
        {"code": 500},
        {"success": False},
        {"success": False, "error": {"message": "Too many requests, slow down"}},
        {"success": False, "message": "task not found."},
        {"success": False, "message": "Invalid API key"},
        {"code": 400, "message": "task not found."},
        {"code": 403, "message": "The remaining credits are not enough."},
        {"status": "error", "code": 429, "message": "Server busy, try again later"},
        {"status": "error", "message": "The database is unavailable"},
        {"code": 500, "message": "Failed to query the task"},
        {"code": 500, "message": "Failed to retrieve the audio task"},
        {"code": 500, "message": "Something went wrong"},
        {"code": 500, "message": "An error occurred, please try again later"},
        {"code": 500, "message": "System busy"},
        {"code": 500, "message": "Rate limit exceeded"},
        {"code": 500, "message": "Request timeout"},
        {"code": 400, "message": "missing task id."},
        {"code": 400, "message": "Invalid key"},
        {"code": 401, "message": "Who are you?"},
        {"code": 404, "message": "Nothing is here"},
        {"code": 503, "message": "Back soon"},
        {"success": False, "state": "succeeded"},
    ],
)
def test_trouble_of_upstreams_own_is_no_failure_of_a_task(body: object) -> None:
    """Only a plain word on the task ends it; anything else is asked again."""
    assert task_result(body) is None


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
        {"data": [{"title": "Song"}]},
        {"data": {"persona_id": ""}},
        {"data": {"persona_id": 0}},
        {"data": {"clips": "soon"}},
        {"state": ["failed"]},
        {"error": "Bad gateway."},
    ],
)
def test_what_is_none_of_these_cannot_be_read(body: object) -> None:
    """None, so that it is asked again: nothing is made up."""
    assert task_result(body) is None


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
    assert account_credits(body) == expected


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_task_id(body: object) -> None:
    """`accepted` never raises, and gives nothing that is empty or cannot be stored."""
    found = accepted_task_id(body)
    assert found is None or found.encode().strip()


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_reading(body: object) -> None:
    """`reading` never raises, and what it finds can be written to a record and read again."""
    match task_result(body):
        case MusicReady(clips):
            assert any(each.is_finished for each in clips)
            assert serialization.clips(serialization.clips_text(clips)) == clips
            json.dumps([each.duration for each in clips], allow_nan=False)
            serialization.clips_text(clips).encode()
        case VoiceReady(persona_id, name):
            assert persona_id.encode()
            assert name is None or name.encode()
        case NotReady(clips):
            assert serialization.clips(serialization.clips_text(clips)) == clips
            serialization.clips_text(clips).encode()
        case TaskFailed(message):
            assert message.encode()


@given(ANY_JSON)
def test_no_json_is_too_strange_for_a_balance(body: object) -> None:
    """`credits_left` never raises."""
    assert isinstance(account_credits(body), int | None)


# ── every shape ────────────────────────────────────────────────────────────────────────────────────

#: The words that say so, in the spellings that are seen.
DONE = st.sampled_from(["succeeded", "SUCCESS", "complete", "Completed", "done", "finished", "ok", "Active", "ready"])
FAILED = st.sampled_from(["failed", "error", "CANCELLED", "canceled", "timeout", "expired", "rejected", "aborted"])
ENDED = FAILED | st.sampled_from(["moderated", "blocked", "a word of next year"])
WORKING = st.sampled_from(["pending", "RUNNING", "in progress", "queued", "processing", "not_ready", "rendering"])


def camel(name: str) -> str:
    """`audio_url` as `audioUrl`."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


@st.composite
def spelled(draw: st.DrawFn, found: dict[str, Any]) -> dict[str, Any]:
    """An object in another spelling, in another order."""
    spellings: list[Callable[[str], str]] = [str, camel, str.upper]
    spell = draw(st.sampled_from(spellings))
    names = draw(st.permutations(list(found)))
    return {spell(name): found[name] for name in names}


@st.composite
def enveloped(draw: st.DrawFn, inner: Any) -> Any:
    """What an answer is about, in one of the envelopes, with a code or without."""
    said: list[dict[str, Any]] = [{}, {"code": 200}, {"code": "200", "message": "success"}, {"success": True}]
    status = draw(st.sampled_from(said))
    places: list[Any] = [{"data": inner}, {"result": inner}, {"data": {"result": inner}}, {"data": {"data": inner}}]
    if isinstance(inner, dict):
        places.append(inner)
    body = {**status, **draw(st.sampled_from(places))}
    return draw(st.sampled_from([body, {"task_id": "t1", **body}, {"status": "SUCCESS", **body}]))


@st.composite
def songs(draw: st.DrawFn, states: list[str | None]) -> Any:
    """Songs in these states, as a list, in an object, or one alone; those that are done have a link."""
    id_name = draw(st.sampled_from(["clip_id", "id"]))
    state_name = draw(st.sampled_from(["state", "status"]))
    clips: list[Any] = []
    for number, state in enumerate(states):
        fields = {id_name: f"c{number}", "title": "Song", **({} if state is None else {state_name: state})}
        links = {"audio_url": LINK} if state is None or state.lower() in _DONE else {}
        clips.append(draw(spelled({**fields, **links})))
    shapes: list[Any] = [clips, {"clips": clips}, {"songs": clips}]
    if len(clips) == 1:
        shapes += [*clips, {"clip": clips[0]}]
    return draw(st.sampled_from(shapes))


_DONE = {"succeeded", "success", "complete", "completed", "done", "finished", "ok", "active", "ready"}


@given(
    st.data(), st.lists(DONE, min_size=1, max_size=2), st.lists(ENDED, max_size=1), st.sampled_from([None, Stage.MUSIC])
)
def test_every_song_that_is_there_is_read(
    data: st.DataObject, done: list[str], over: list[str], stage: Stage | None
) -> None:
    """In whatever shape: each link is found, and a twin that ended otherwise keeps none back."""
    body = data.draw(enveloped(data.draw(songs([*done, *over]))))

    found = task_result(body, stage)

    assert isinstance(found, MusicReady)
    assert [each.audio_url for each in found.clips if each.is_finished] == [LINK] * len(done)
    assert len(found.clips) == len(done) + len(over)


@given(st.data(), DONE, WORKING)
def test_no_song_is_ready_before_its_twin(data: st.DataObject, done: str, working: str) -> None:
    """But the link that is there is known."""
    found = task_result(data.draw(enveloped(data.draw(songs([done, working])))), Stage.MUSIC)

    assert isinstance(found, NotReady)
    assert [each.audio_url for each in found.clips] == [LINK, None]


@given(st.data(), st.none() | DONE, st.sampled_from([None, Stage.VOICE]))
def test_every_persona_that_is_there_is_read(data: st.DataObject, state: str | None, stage: Stage | None) -> None:
    """In whatever shape, as an object or in a list."""
    voice = data.draw(spelled({"persona_id": "p1", "name": "Anna", **({} if state is None else {"state": state})}))
    body = data.draw(enveloped(data.draw(st.sampled_from([voice, [voice]]))))

    assert task_result(body, stage) == VoiceReady("p1", "Anna")


@given(st.data(), FAILED | WORKING, st.booleans())
def test_a_state_comes_before_the_persona(data: st.DataObject, state: str, inside: bool) -> None:
    """A voice that failed or is worked on is not sung with."""
    voice = {"persona_id": "p1", **({"state": state} if inside else {})}
    body = data.draw(enveloped(data.draw(spelled(voice))))
    body = body if inside else {**body, "status": state}

    assert isinstance(task_result(body, Stage.VOICE), NotReady | TaskFailed)


#: What a layer may say of itself that no voice is to be believed beside.
DENIALS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(dict, status=FAILED | WORKING | st.sampled_from(["new", "created", "paused", "a word of next year"])),
    st.builds(dict, code=st.sampled_from([400, 403, 429, 500, "500", 503, 10001]), message=st.text(max_size=9)),
    st.builds(dict, success=st.sampled_from([False, "false"]), error=st.sampled_from(["no", "internal", {"code": 1}])),
)


@given(st.data(), DENIALS, st.none() | DONE, st.sampled_from(["outer", "middle", "inner"]))
def test_no_voice_is_believed_where_any_layer_denies_it(
    data: st.DataObject, denial: dict[str, Any], done: str | None, place: str
) -> None:
    """Whatever the other layers say: a song is never ordered from such an answer."""
    voice: dict[str, Any] = {"persona_id": "p1", **({} if done is None else {"state": done})}
    inner = {**voice, **denial} if place == "inner" else voice
    middle = {"data": data.draw(spelled(inner)), **(denial if place == "middle" else {"status": "SUCCESS"})}
    body = {"result": middle, **(denial if place == "outer" else {"code": 200, "message": "success"})}

    assert isinstance(task_result(body, Stage.VOICE), NotReady | TaskFailed | None)


@given(st.text("abcdefghijklmnopqrstuvwxyz_ ", min_size=1))
def test_only_a_word_for_done_makes_a_voice_ready(word: str) -> None:
    """Any other word is waited for, or is a failure."""
    is_done = phase_of(word) is Phase.DONE or not word.strip()

    assert isinstance(task_result({"persona_id": "p1", "state": word}, Stage.VOICE), VoiceReady) is is_done


@given(ANY_JSON)
def test_no_song_gives_its_id_to_a_task(song: object) -> None:
    """Whatever else it has: what is in a list of songs is called a task only where it says so."""
    if isinstance(song, dict):
        song = {name: value for name, value in song.items() if name in ("title", "tags", "state", "status")}
        assert accepted_task_id({"code": 200, "data": {"clips": [{"id": "c1", **song}]}}) is None


@given(st.data(), FAILED, st.sampled_from(list(Stage)))
def test_every_failure_is_read_with_its_reason(data: st.DataObject, word: str, stage: Stage) -> None:
    """For voices and songs alike."""
    name = data.draw(st.sampled_from(["error", "message", "error_message", "reason"]))
    task = {data.draw(st.sampled_from(["state", "status"])): word, name: "no clear speaker"}

    assert task_result(data.draw(enveloped(data.draw(spelled(task)))), stage) == TaskFailed("no clear speaker")


CLIPS = st.lists(
    st.builds(Clip, st.sampled_from("ab"), DONE | ENDED | WORKING, audio_url=st.none() | st.just(LINK)), max_size=3
)


@given(CLIPS, CLIPS)
def test_no_link_is_lost_between_two_answers(earlier: list[Clip], later: list[Clip]) -> None:
    """Whatever the later one says."""
    both = merged(merged((), earlier), later)

    finished = {each.clip_id for each in merged((), earlier) if each.is_finished}
    assert finished <= {each.clip_id for each in both if each.is_finished}
    assert merged(both, both) == both
