"""Task results in example response bodies."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.musicapi import MusicReady, NotReady, TaskFailed, VoiceReady
from tasks.musicapi.responses import task_result
from tests.unit.tasks.response_bodies import LINK, clip, states, sung
from voicequeue.domain.clip import Clip
from voicequeue.domain.stage import Stage


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
def test_a_task_in_progress_is_not_ready(body: object) -> None:
    """A state word says so, or not every clip has ended with its link; the state takes precedence over the persona."""
    assert isinstance(task_result(body), NotReady)


def test_songs_that_are_not_ready_are_named_all_the_same() -> None:
    """At the deadline those with a link are the result."""
    result = task_result({"data": [sung(), clip("running", "c2")]})

    assert isinstance(result, NotReady)
    assert [(song.clip_id, song.is_finished) for song in result.clips] == [("c1", True), ("c2", False)]


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
    """Its name is included if there is one."""
    assert task_result(body, Stage.VOICE) == task_result(body) == VoiceReady("p1", name)


def test_a_persona_id_may_be_a_number() -> None:
    """It is used as text."""
    assert task_result({"data": {"persona_id": 12345}}, Stage.VOICE) == VoiceReady("12345", None)


@pytest.mark.parametrize(
    "word",
    ["wait", "in_queue", "queue", "not_started", "incomplete", "new", "created", "init", "initial", "paused", "review"],
)
@pytest.mark.parametrize("outer", [{}, {"status": "SUCCESS"}, {"success": True, "code": 200, "message": "success"}])
def test_a_voice_in_a_state_that_no_table_has_is_not_ready(word: str, outer: dict[str, Any]) -> None:
    """A song that is ordered too early would be paid for."""
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
    """If the error says nothing about the order, it is polled again."""
    assert task_result(body, Stage.VOICE) is None


def test_what_an_order_is_for_decides_what_its_answer_is_read_as() -> None:
    """A song may name its voice, and a voice its recording."""
    song = {"data": [sung(persona_id="p1")]}
    voice = {"data": {"persona_id": "p1", "audio_url": "https://recordings.example/anna.mp3"}}

    assert states(task_result(song, Stage.MUSIC)) == [("c1", "succeeded")]
    assert task_result(voice, Stage.VOICE) == VoiceReady("p1", None)


def test_a_ready_clip_keeps_its_links_and_its_length() -> None:
    """Every field of a song is kept; absent and empty ones are None."""
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
    """Names in camel case, style tags as a list, numbers as text, and times as numbers are read."""
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
    """A failed clip does not prevent the result."""
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
def test_a_failed_task_has_upstreams_reason(body: object, message: str) -> None:
    """The failure may be in clips, in an object or the body itself; the state takes precedence over the persona."""
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
def test_an_error_of_upstream_is_not_a_failure_of_the_task(body: object) -> None:
    """Only a clear statement about the task ends it; anything else is polled again."""
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
def test_any_other_body_cannot_be_read(body: object) -> None:
    """The result is None, and the task is polled again."""
    assert task_result(body) is None
