"""Checks of recordings with other jobs: a host that hangs, a full batch, a voice that is shared."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest
from redis import Redis

from tests.integration.conftest import Build, voice
from tests.integration.steps.recording_steps import (
    GOOD,
    checking,
    hanging,
    ordered,
    recording,
    turn,
    wait_until,
)
from tests.store.life import assert_consistent
from tests.support.recordings import serving
from tests.support.scripted import ScriptedServer
from voicequeue import Limits, Stage, State
from voicequeue.domain import transitions
from voicequeue.storage.job_store import JobStore


def test_a_host_that_hangs_does_not_delay_others_of_its_chunk(build: Build, upstream: ScriptedServer) -> None:
    """The orders of the other host are sent while the first one is waited for."""
    with hanging() as dead, serving({f"/{number}.wav": GOOD for number in range(8)}) as healthy:
        bench = checking(build(upstream.url), hold_s=2)
        specs = [recording(dead, f"{number}.wav") for number in range(20)]
        specs += [recording(healthy, f"{number}.wav") for number in range(8)]
        job_ids = bench.admitted(*specs)
        started = time.monotonic()
        thread = threading.Thread(target=bench.submit, args=(Stage.VOICE, job_ids))
        thread.start()
        wait_until(lambda: len(upstream.requests) == 8)
        assert time.monotonic() - started < 1.5
        thread.join(5)
        assert not thread.is_alive()
    assert set(bench.states(job_ids[:20])) == {State.QUEUED}
    assert ordered(upstream) == [f"{number}.wav" for number in range(8)]


def test_a_batch_of_a_dead_host_leaves_the_slots_to_others(
    redis: Redis, prefix: str, build: Build, upstream: ScriptedServer
) -> None:
    """Four slots, and a thousand jobs of a host that hangs: the jobs of another batch are ordered in a few turns."""
    with hanging() as dead, serving({f"/{number}.wav": GOOD for number in range(10)}) as healthy:
        bench = checking(build(upstream.url), hold_s=0.1)
        bench = replace(
            bench,
            services=replace(
                bench.services, store=JobStore(redis, prefix, limits=Limits(in_flight=4, initial_in_flight=4))
            ),
        )
        first = [recording(dead, f"{number}.wav", batch="dead") for number in range(1000)]
        others = [recording(healthy, f"{number}.wav", batch="healthy") for number in range(10)]
        bench.store.enqueue([(spec.job_id(), spec) for spec in (*first, *others)], bench.clock.now)
        for _ in range(8):  # five without the dead host, which has half of the turns
            bench.clock.now += 1
            for job_ids in bench.admit().values():
                bench.submit(Stage.VOICE, job_ids)
            pending = [spec.job_id() for spec in others if bench.job(spec.job_id()).state is State.PENDING]
            # Their voices are ready at once.
            bench.store.apply_transitions(
                [transitions.cancel(bench.job(job_id), bench.clock.now) for job_id in pending], bench.clock.now
            )
        assert len(upstream.requests) == 10
    assert bench.store.count_in_flight() == 0
    assert_consistent(redis, prefix)


@pytest.mark.parametrize("jobs", [10, 71, 200])
def test_after_its_first_late_check_a_host_holds_no_slot(
    redis: Redis, prefix: str, build: Build, upstream: ScriptedServer, jobs: int
) -> None:
    """With ten slots, the first check of another host begins soon, however many jobs of a host that hangs precede."""
    with hanging() as dead, serving({"/a.wav": GOOD}) as healthy:
        bench = checking(build(upstream.url), hold_s=1)
        limits = Limits(in_flight=10, initial_in_flight=10)
        bench = replace(bench, services=replace(bench.services, store=JobStore(redis, prefix, limits=limits)))
        specs = [*(recording(dead, f"{number}.wav") for number in range(jobs)), recording(healthy, "a.wav")]
        for at, spec in enumerate(specs):
            bench.store.enqueue([(spec.job_id(), spec)], bench.clock.now + at * 1e-3)
        durations: list[float] = []
        while not healthy.requests:
            started = time.monotonic()
            assert turn(bench, 0.01)
            durations.append(time.monotonic() - started)
            assert len(durations) <= jobs / 10 + 1
        assert len([seconds for seconds in durations if seconds > 0.9]) == 1  # a slot is held for one second
    assert_consistent(redis, prefix)


def test_the_same_recording_at_another_url_is_tried_by_the_job_that_has_it(
    build: Build, upstream: ScriptedServer, redis: Redis, prefix: str
) -> None:
    """A dead link of one job is not the failure of others that share its voice by content."""
    with serving({"/there.wav": GOOD}) as server:
        bench = checking(build(upstream.url))
        sharing = {"reuse": True, "audio_sha256": "0" * 64}
        absent, there = (recording(server, name, **sharing) for name in ("gone.wav", "there.wav"))
        bench.submit(Stage.VOICE, bench.admitted(absent, there)[:1])
        assert bench.states([absent.job_id(), there.job_id()]) == [State.FAILED, State.QUEUED]
        for job_ids in bench.admit().values():
            bench.submit(Stage.VOICE, job_ids)
    assert bench.states([there.job_id()]) == [State.PENDING]
    assert_consistent(redis, prefix)


def test_checks_are_off_unless_configured(build: Build, upstream: ScriptedServer) -> None:
    """Workers may have no access to the recordings."""
    bench, spec = build(upstream.url), voice()
    assert bench.submit(Stage.VOICE, bench.admitted(spec)).pending == [spec.job_id()]
