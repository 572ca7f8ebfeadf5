"""Recordings are checked before their order is sent: nothing is paid for a recording that cannot be used."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from redis import Redis

from tasks.recording_gate import RecordingGate
from tests.integration.conftest import Build, voice
from tests.integration.steps.recording_steps import (
    GOOD,
    HOST,
    checking,
    hanging,
    ordered,
    recording,
    turn,
    wait_until,
)
from tests.store.life import assert_consistent
from tests.support.recordings import mp3, response, serving, wav
from tests.support.scripted import Request, Script, ScriptedServer, answer
from voicequeue import FailureCode, Song, Stage, State, VoiceJob
from voicequeue.client.correcting import correct_recording
from voicequeue.domain import transitions
from voicequeue.domain.job import Transition

FILES: dict[str, tuple[bytes, FailureCode | None, str]] = {
    "good.wav": (GOOD, None, ""),
    "good.mp3": (response(mp3(15)), None, ""),
    "gone.wav": (response(b"", status="410 Gone"), FailureCode.RECORDING_UNREACHABLE, "HTTP 410: gone"),
    "expired.wav": (response(b"", status="403 Forbidden"), FailureCode.RECORDING_UNREACHABLE, "HTTP 403: not public"),
    "short.wav": (response(wav(4)), FailureCode.RECORDING_UNFIT, "4.0 s long; more than 10 s are required"),
    "login.mp3": (
        response(b"<!doctype html><p>Sign in" + bytes(9000)),
        FailureCode.RECORDING_UNFIT,
        "not MP3 or WAV: it is an HTML page",
    ),
}


def test_only_fit_recordings_are_ordered(build: Build, upstream: ScriptedServer, redis: Redis, prefix: str) -> None:
    """The others fail with the code that says why, in words without the URL, and cost nothing."""
    with serving({f"/{name}?signature=secret": reply for name, (reply, *_) in FILES.items()}) as server:
        bench = checking(build(upstream.url))
        job_ids = bench.admitted(*(recording(server, f"{name}?signature=secret") for name in FILES))
        bench.submit(Stage.VOICE, job_ids)

    assert [name.partition("?")[0] for name in ordered(upstream)] == ["good.mp3", "good.wav"]
    for job_id, (_, code, reason) in zip(job_ids, FILES.values(), strict=True):
        job = bench.job(job_id)
        if code is None:
            assert job.state is State.PENDING
        else:
            assert (job.state, job.failure and job.failure.code, job.credits) == (State.FAILED, code, 0)
            assert job.failure is not None
            assert job.failure.message == f"its recording cannot be used: {reason}; nothing was ordered"
            assert State.CHARGING not in bench.state_history(job_id)
    assert bench.store.credits_spent() == 8
    assert_consistent(redis, prefix)


def test_jobs_without_a_recording_are_not_checked(build: Build) -> None:
    """A song with an existing voice has nothing to check."""
    spec = VoiceJob(persona_id="p1", song=Song(prompt="[Verse]\nla la"), key="k")
    with ScriptedServer(lambda _: [answer({"task_id": "t"})]) as upstream:
        bench = checking(build(upstream.url))
        assert bench.submit(Stage.MUSIC, bench.admitted(spec)).pending == [spec.job_id()]


def test_a_job_is_admitted_until_its_recording_was_checked(build: Build, upstream: ScriptedServer) -> None:
    """A worker that is killed during a check has neither claimed nor paid for anything."""
    states: list[State] = []
    files: dict[str, Script] = {}
    with serving(files) as server:
        bench, spec = checking(build(upstream.url)), recording(server, "a.wav")

        def script(_: Request) -> Iterable[bytes]:
            states.append(bench.job(spec.job_id()).state)
            yield GOOD

        files["/a.wav"] = script
        bench.submit(Stage.VOICE, bench.admitted(spec))
        assert bench.job(spec.job_id()).state is State.PENDING
    assert states == [State.ADMITTED]


def test_a_job_that_is_not_admitted_when_its_chunk_is_read_does_not_pass(
    build: Build, upstream: ScriptedServer
) -> None:
    """After a late message it could be admitted a moment later, and be claimed without a check."""
    bench, spec = checking(build(upstream.url)), voice()
    bench.store.enqueue([(spec.job_id(), spec)], bench.clock.now)
    gate = RecordingGate(bench.services, Stage.VOICE)
    assert (gate.enter([spec.job_id()]), gate.is_open) == ([], False)


def test_a_job_that_was_corrected_after_its_check_is_checked_again(build: Build, upstream: ScriptedServer) -> None:
    """It is claimed for the recording that was checked, or it is not claimed."""
    files: dict[str, Script] = {}
    with serving(files) as server:
        bench, spec = checking(build(upstream.url)), recording(server, "a.wav")

        def script(_: Request) -> Iterable[bytes]:
            job = bench.job(spec.job_id())
            queued = Transition(job.id, job.version, job.state, job.stage, State.QUEUED)
            bench.store.apply_transitions([queued], bench.clock.now)
            bench.admit()
            yield GOOD

        files["/a.wav"] = script
        bench.submit(Stage.VOICE, bench.admitted(spec))
    assert ordered(upstream) == []
    assert bench.states([spec.job_id()]) == [State.QUEUED]
    assert "has changed since its recording was checked" in bench.store.timeline(spec.job_id())[-1].reason


def test_the_same_recording_is_checked_once(build: Build, upstream: ScriptedServer) -> None:
    """By all workers, for two minutes."""
    with serving({"/a.wav": GOOD}) as server:
        bench = checking(build(upstream.url))
        specs = [recording(server, "a.wav", key=f"k{number}") for number in range(6)]
        job_ids = bench.admitted(*specs)
        bench.submit(Stage.VOICE, job_ids[:3])
        checking(bench).submit(Stage.VOICE, job_ids[3:])
        assert len(server.requests) == 1
    assert bench.states(job_ids) == [State.PENDING] * 6


# ── temporary failures ─────────────────────────────────────────────────────────────────────────


def test_a_temporary_failure_is_checked_again_without_a_slot(
    build: Build, upstream: ScriptedServer, redis: Redis, prefix: str
) -> None:
    """The job rests in the backlog, and is ordered when its recording is there."""
    files = {"/a.wav": response(b"", status="503 Service Unavailable")}
    with serving(files) as server:
        bench, spec = checking(build(upstream.url)), recording(server, "a.wav")
        bench.submit(Stage.VOICE, bench.admitted(spec))
        assert bench.states([spec.job_id()]) == [State.QUEUED]
        assert bench.store.count_in_flight() == 0
        assert bench.store.timeline(spec.job_id())[-1].reason == (
            "check 1 of its recording failed: HTTP 503; checked again in 10 s"
        )
        assert bench.admit() == {}
        assert_consistent(redis, prefix)

        files["/a.wav"] = GOOD
        bench.clock.now += 11
        assert bench.admit() == {Stage.VOICE: [spec.job_id()]}
        bench.submit(Stage.VOICE, [spec.job_id()])
    assert bench.states([spec.job_id()]) == [State.PENDING]
    assert_consistent(redis, prefix)


def test_a_recording_that_stays_away_fails_its_job(
    build: Build, upstream: ScriptedServer, redis: Redis, prefix: str
) -> None:
    """The checks are bounded in number and time; nothing was ordered."""
    with serving({"/a.wav": response(b"", status="503 Service Unavailable")}) as server:
        bench, spec = checking(build(upstream.url)), recording(server, "a.wav")
        bench.submit(Stage.VOICE, bench.admitted(spec))
        for _ in range(50):
            bench.clock.now += 5
            for job_ids in bench.admit().values():
                bench.submit(Stage.VOICE, job_ids)
        assert 3 <= len(server.requests) <= 6
    job = bench.job(spec.job_id())
    assert job.failure is not None
    assert job.failure.code is FailureCode.RECORDING_UNREACHABLE
    assert job.failure.message == "its recording cannot be used: HTTP 503; nothing was ordered"
    assert ordered(upstream) == []
    assert_consistent(redis, prefix)


def test_a_slow_host_is_waited_for_by_the_check_and_not_by_the_slot(build: Build, upstream: ScriptedServer) -> None:
    """A check that outlasts its slot leaves its outcome to the worker that gets the job next."""
    go_on = threading.Event()

    def script(_: Request) -> Iterable[bytes]:
        go_on.wait(10)
        yield GOOD

    with serving({"/a.wav": script}) as server:
        bench, spec = checking(build(upstream.url), hold_s=0.3), recording(server, "a.wav")
        bench.submit(Stage.VOICE, bench.admitted(spec))
        assert bench.states([spec.job_id()]) == [State.QUEUED]
        assert bench.store.timeline(spec.job_id())[-1].reason == "its recording is being checked"
        go_on.set()
        wait_until(lambda: bool(bench.store.recordings.outcomes([spec.audio_url or ""])))
        bench.clock.now += 4
        bench.admit()
        checking(bench).submit(Stage.VOICE, [spec.job_id()])
        assert len(server.requests) == 1
    assert bench.states([spec.job_id()]) == [State.PENDING]


def test_a_stopping_worker_leaves_the_jobs_that_it_checks(build: Build, upstream: ScriptedServer) -> None:
    """They are queued again at once, for another worker."""
    with hanging() as server:
        bench, spec = checking(build(upstream.url), hold_s=20), recording(server, "a.wav")
        services = replace(bench.services, is_stopping=lambda: bool(server.requests))
        job_ids = bench.admitted(spec)
        started = time.monotonic()
        replace(bench, services=services).submit(Stage.VOICE, job_ids)
        assert time.monotonic() - started < 3
    assert bench.states(job_ids) == [State.QUEUED]


@pytest.mark.parametrize("is_corrected", [False, True])
def test_a_retry_looks_at_the_recording_again(build: Build, upstream: ScriptedServer, is_corrected: bool) -> None:
    """The file was repaired at its URL a moment ago; the failure that all workers share is older than the retry."""
    files = {"/a.wav": response(b"", status="404 Not Found")}
    with serving(files) as server:
        bench = checking(build(upstream.url))
        spec, other = recording(server, "a.wav"), recording(server, "b.wav", key="other")
        bench.submit(Stage.VOICE, bench.admitted(spec, other))
        files["/a.wav"] = GOOD
        bench.clock.now += 1
        job = bench.job((other if is_corrected else spec).job_id())
        if is_corrected:
            correct_recording(
                bench.store, job, spec.audio_url or "", bench.clock.now, source="test", allowed_hosts=HOST
            )
            job = bench.job(job.id)
        bench.store.apply_transitions([transitions.retry(job, bench.clock.now)], bench.clock.now)
        turn(bench, 1)
    assert bench.states([job.id]) == [State.PENDING]


def test_a_job_that_was_enqueued_after_a_failure_does_not_share_it(build: Build, upstream: ScriptedServer) -> None:
    """Its recording may have been repaired before."""
    files = {"/a.wav": response(b"", status="404 Not Found")}
    with serving(files) as server:
        bench = checking(build(upstream.url))
        bench.submit(Stage.VOICE, bench.admitted(recording(server, "a.wav")))
        files["/a.wav"] = GOOD
        bench.clock.now += 1
        later = recording(server, "a.wav", key="later")
        bench.submit(Stage.VOICE, bench.admitted(later))
    assert bench.states([later.job_id()]) == [State.PENDING]


def test_a_pause_of_a_host_counts_no_check(build: Build, upstream: ScriptedServer, redis: Redis, prefix: str) -> None:
    """The timelines name only responses that were received; each job that fails was requested."""
    with serving({f"/{number}.wav": response(b"", status="503 Busy") for number in range(12)}) as server:
        bench = checking(build(upstream.url))
        job_ids = bench.admitted(*(recording(server, f"{number}.wav") for number in range(12)))
        bench.clock.now += 1
        bench.submit(Stage.VOICE, job_ids)
        for _ in range(100):
            turn(bench, 5)
        counts = Counter(request.path for request in server.requests)
    assert set(bench.states(job_ids)) == {State.FAILED}
    for number, job_id in enumerate(job_ids):
        reasons = [step.reason for step in bench.store.timeline(job_id)]
        failed = sum("HTTP 503" in reason for reason in reasons) + 1  # the last one is in the failure
        assert 1 <= failed == counts[f"/{number}.wav"], reasons
    assert ordered(upstream) == []
    assert_consistent(redis, prefix)


def test_failures_at_a_host_end_with_a_success(build: Build, upstream: ScriptedServer) -> None:
    """One failure after others that are over costs its own job one delay, and other jobs nothing."""
    busy = response(b"", status="503 Busy")
    with serving({"/a.wav": busy, "/b.wav": busy, "/good.wav": GOOD, "/c.wav": busy, "/d.wav": GOOD}) as server:
        bench = checking(build(upstream.url))
        for name in ("a.wav", "b.wav", "good.wav", "c.wav", "d.wav"):
            bench.submit(Stage.VOICE, bench.admitted(recording(server, name)))
    assert ordered(upstream) == ["d.wav", "good.wav"]


@pytest.mark.parametrize(("header", "delay"), [("Retry-After: 40", 40), ("Retry-After: 86400", 90), ("X: y", 10)])
def test_a_server_that_names_a_delay_is_given_it(
    build: Build, upstream: ScriptedServer, header: str, delay: int
) -> None:
    """Up to the time for checks; not less than our own delay."""
    with serving({"/a.wav": response(b"", header, status="429 Too Many Requests")}) as server:
        bench, spec = checking(build(upstream.url), backoff_max_s=90), recording(server, "a.wav")
        bench.submit(Stage.VOICE, bench.admitted(spec))
    assert bench.store.timeline(spec.job_id())[-1].reason.endswith(f"HTTP 429; checked again in {delay} s")
