"""Responses outside the contract, from the request to the record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.conftest import DEADLINE_S, SONG, Bench, Build
from tests.support.scripted import Request, ScriptedServer, answer
from voicequeue import FailureCode, Stage, State, VoiceJob, VoiceQueue
from voicequeue.domain.timeouts import late_poll_delay

LINK = "https://cdn.example/{}.mp3"
SUNG = VoiceJob(persona_id="p1", song=SONG)


class Upstream:
    """Upstream that answers orders with `order` and polls with `task`."""

    def __init__(self) -> None:
        self.order: object = {"task_id": "t1"}
        self.task: object = {"type": "not_ready"}

    def __call__(self, request: Request) -> Iterator[bytes]:
        """Return the response to a request."""
        response = self.order if request.method == "POST" else self.task
        yield response if isinstance(response, bytes) else answer(response)


@pytest.fixture
def upstream() -> Upstream:
    """Return the upstream of the test."""
    return Upstream()


@pytest.fixture
def bench(build: Build, upstream: Upstream) -> Iterator[Bench]:
    """Return a worker with that upstream."""
    with ScriptedServer(upstream) as scripted:
        yield build(scripted.url)


def clip(name: str, state: str = "succeeded", *, link: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one clip with its link, or with an empty one."""
    return {"clip_id": name, "state": state, "audio_url": LINK.format(name) if link is None else link, **more}


def poll_past_the_deadline(bench: Bench, job_id: str) -> None:
    """Poll a job until its deadline has passed."""
    bench.poll_for([job_id], DEADLINE_S + 1)


def poll_late(bench: Bench, job_id: str) -> None:
    """Poll a job for its late result when it is due, as maintenance does."""
    bench.clock.now += late_poll_delay(DEADLINE_S + 1) + 1
    assert [job.job_id for job in bench.store.lease_overdue(bench.clock.now, overdue_s=0)] == [job_id]
    bench.poll([job_id])


@pytest.mark.parametrize("link", ["", None])
def test_a_song_is_ready_when_every_clip_that_succeeded_has_its_link(
    bench: Bench, upstream: Upstream, link: str | None
) -> None:
    """A clip with an empty or missing link is polled again."""
    [job_id] = bench.submitted(SUNG)
    bare = {**clip("b"), "audio_url": link}
    for named in ([{**clip("a"), "audio_url": link}, bare], [clip("a"), bare]):
        upstream.task = {"code": 200, "data": named}
        assert bench.poll_when_due([job_id]).rounds != []
        assert bench.job(job_id).state is State.PENDING

    upstream.task = {"code": 200, "data": [clip("a"), clip("b")]}
    bench.poll_when_due([job_id])

    job = bench.job(job_id)
    assert (job.state, job.is_incomplete) == (State.SUCCEEDED, False)
    assert [song.audio_url for song in job.clips] == [LINK.format("a"), LINK.format("b")]


@pytest.mark.parametrize("twin", ["running", "streaming", "succeeded"])
def test_at_the_deadline_a_song_that_is_there_is_the_result_and_its_twin_is_kept_when_it_comes(
    bench: Bench, upstream: Upstream, queue: VoiceQueue, twin: str
) -> None:
    """The job has succeeded, is marked as incomplete, and is polled until the other song arrives, free."""
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"data": [clip("a"), clip("b", twin, link="")]}
    poll_past_the_deadline(bench, job_id)
    job = queue.get(job_id)
    assert (job.state, job.credits, job.as_dict()["incomplete"]) == (State.SUCCEEDED, 15, True)
    assert [song.audio_url for song in job.clips] == [LINK.format("a"), None]

    poll_late(bench, job_id)  # still nothing new
    assert bench.job(job_id) == job

    upstream.task = {"data": [clip("a"), clip("b")]}
    assert queue.retry(job_id).state is State.SUCCEEDED
    bench.clock.now = bench.job(job_id).updated_at + 1
    bench.poll([job_id])

    whole = bench.job(job_id)
    assert (whole.state, whole.is_incomplete, whole.credits) == (State.SUCCEEDED, False, 15)
    assert bench.store.lease_overdue(bench.clock.now + 1e6, overdue_s=0) == []
    assert bench.store.count_succeeded(0) == 1


@pytest.mark.parametrize("twin", ["cancelled", "moderated", "a word of next year"])
def test_a_twin_that_ended_in_any_words_keeps_no_song_back(bench: Bench, upstream: Upstream, twin: str) -> None:
    """The job has succeeded at once."""
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"data": [clip("a"), clip("b", twin, link="")]}

    bench.poll_when_due([job_id])

    assert bench.job(job_id).state is State.SUCCEEDED


LATER_RESPONSES: dict[str, object] = {
    "not ready": {"type": "not_ready"},
    "not found": answer({"error": "task not found."}, status="400 Bad Request"),
    "an error": answer("<html>", status="502 Bad Gateway"),
    "no clips": {"code": 200, "data": []},
    "a timeout": {"code": 200, "data": {"state": "timeout"}},
    "failed": {"code": 200, "data": {"state": "failed", "error": "no"}},
    "the twin failed": {"code": 200, "data": [clip("b", "failed", link="")]},
    "its link is gone": {"code": 200, "data": [clip("a", link=""), clip("b", "running", link="")]},
}


@pytest.mark.parametrize("response", LATER_RESPONSES)
def test_a_song_that_was_delivered_once_is_the_result_whatever_follows(
    bench: Bench, upstream: Upstream, response: str
) -> None:
    """Its link is kept when it arrives, so that the job succeeds with it and nothing is submitted again."""
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"code": 200, "data": [clip("a"), clip("b", "running", link="")]}
    bench.poll_when_due([job_id])
    assert bench.job(job_id).state is State.PENDING

    upstream.task = LATER_RESPONSES[response]
    poll_past_the_deadline(bench, job_id)

    job = bench.job(job_id)
    assert (job.state, job.credits) == (State.SUCCEEDED, 15)
    assert [song.audio_url for song in job.clips if song.is_finished] == [LINK.format("a")]


def test_links_that_come_one_after_the_other_make_a_whole_song(bench: Bench, upstream: Upstream) -> None:
    """No single response needs to contain both links."""
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"code": 200, "data": [clip("a"), clip("b", link="")]}
    bench.poll_when_due([job_id])
    upstream.task = {"code": 200, "data": [clip("a", link=""), clip("b")]}
    bench.poll_when_due([job_id])

    job = bench.job(job_id)
    assert (job.state, job.is_incomplete) == (State.SUCCEEDED, False)
    assert [song.audio_url for song in job.clips] == [LINK.format("a"), LINK.format("b")]


def test_songs_without_any_link_fail_at_the_deadline_and_are_taken_when_they_come(
    bench: Bench, upstream: Upstream, queue: VoiceQueue
) -> None:
    """The named songs and the late result are kept, and a retry pays nothing."""
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"data": [clip("a", link=""), clip("b", link="")]}
    poll_past_the_deadline(bench, job_id)
    failed = bench.job(job_id)
    assert failed.failure is not None
    assert (failed.failure.code, len(failed.clips), failed.has_result) == (FailureCode.DEADLINE, 2, False)

    upstream.task = {"data": [clip("a"), clip("b")]}
    poll_late(bench, job_id)

    assert queue.retry(job_id).state is State.SUCCEEDED
    assert bench.job(job_id).credits == 15


@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_persona_of_a_voice_that_is_not_made_is_not_sung_with(bench: Bench, upstream: Upstream, state: str) -> None:
    """The state decides, not the persona id beside it: no song is submitted."""
    [job_id] = bench.submitted(VoiceJob(audio_url="https://recordings.example/anna.mp3", song=SONG))
    upstream.task = {"code": 200, "data": {"persona_id": "p1", "state": state, "error": "no clear speaker"}}

    assert bench.poll_when_due([job_id]).to_music == []

    assert bench.job(job_id).persona_id is None


def test_every_field_of_a_song_is_kept(bench: Bench, upstream: Upstream) -> None:
    """Every field of the response is stored."""
    more = {"title": "T", "tags": "calm", "lyrics": "la", "video_url": "https://cdn.example/a.mp4", "mv": "sonic-v5"}
    more |= {"image_url": "https://cdn.example/a.png", "created_at": "2026-03-01", "gpt_description_prompt": "sad"}
    [job_id] = bench.submitted(SUNG)
    upstream.task = {"data": [clip("a", duration=61.5, **more)]}

    bench.poll_when_due([job_id])

    [song] = bench.job(job_id).as_dict()["clips"]
    assert {name: value for name, value in song.items() if name in more} == more


# ── orders ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("response", "state"),
    [
        ({"code": 400, "message": "The prompt is empty."}, State.FAILED),
        ({"code": "403", "message": "The lyrics contain copyrighted content: x"}, State.FAILED),
        ({"success": False, "error": {"message": "The prompt is empty."}}, State.FAILED),
        ({"code": 429, "message": "Too many requests"}, State.QUEUED),
        ({"code": 402, "message": "Pay first"}, State.QUEUED),
        (answer({"message": "API QPS limit exceeded"}, status="403 Forbidden"), State.QUEUED),
        (answer({"message": "The remaining credits are not enough."}, status="400 Bad Request"), State.QUEUED),
    ],
)
def test_a_refused_order_is_never_unsure(bench: Bench, upstream: Upstream, response: object, state: State) -> None:
    """It is refused by its HTTP status or in the body of a success, and nothing was charged."""
    upstream.order = response
    job_ids = bench.admitted(SUNG)

    bench.submit(Stage.MUSIC, job_ids)

    assert (bench.states(job_ids), bench.store.credits_spent()) == ([state], 0)
    holds = {hold.reason for hold in bench.store.flow_control.gate(bench.clock.now).holds}
    assert not holds & {"unauthorized", "upstream_down"}


@pytest.mark.parametrize("response", [{"taskId": 4711}, {"data": ["4711"]}, {"code": 400, "task_ids": ["4711"]}])
def test_an_order_with_a_task_was_charged_in_any_shape(bench: Bench, upstream: Upstream, response: object) -> None:
    """Its task is polled."""
    upstream.order = response

    [job_id] = bench.submitted(SUNG)

    assert (bench.job(job_id).task_ids, bench.job(job_id).credits) == ({Stage.MUSIC: "4711"}, 15)


def test_an_answer_that_cannot_be_read_is_kept_for_the_review(
    bench: Bench, upstream: Upstream, queue: VoiceQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """It is kept on the job until it is settled, and never logged: upstream's text may quote anything."""
    caplog.set_level(logging.DEBUG)
    upstream.order = {"code": 200, "message": "success", "order": "number seven", "for": "key-of-the-account"}
    [job_id] = bench.admitted(SUNG)
    bench.submit(Stage.MUSIC, [job_id])

    answered = '{"code": 200, "message": "success", "order": "number seven", "for": "(key)"}'
    assert bench.job(job_id).state is State.UNSURE
    assert queue.charge_review(job_id).as_dict()["upstream_response"] == answered
    assert "number seven" not in caplog.text + "".join(str(record.__dict__) for record in caplog.records)

    queue.resubmit(job_id)
    upstream.order = answer("", status="502 Bad Gateway")
    bench.clock.now = bench.job(job_id).updated_at + 1
    bench.submit(Stage.MUSIC, [job_id])

    assert (bench.job(job_id).state, bench.job(job_id).unreadable_response) == (State.UNSURE, None)
