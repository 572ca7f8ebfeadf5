"""Lost replies of Redis: changes are made once, and reported as made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.store.life import enqueue_jobs, fail_job, get_job, job_in_state, job_with_song
from tests.support.jobs import numbered_voices, voice, voice_with_song
from tests.support.losing import LossyProxy, lossy_proxy
from voicequeue import FailureCode, Filter, State, VoiceJob, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def way(valkey_url: str, queue: VoiceQueue) -> Iterator[LossyProxy]:
    """Return a proxy to the Redis of `queue` that can lose replies; the scripts are loaded."""
    job = queue.enqueue(voice(key="scripts"))
    queue.cancel(job.id)
    with lossy_proxy(valkey_url) as proxy:
        yield proxy


@pytest.fixture
def unlucky(way: LossyProxy, prefix: str) -> Iterator[VoiceQueue]:
    """Return a client of the same queue through that proxy."""
    with VoiceQueue(way.url, prefix=prefix, namespace="*") as client:
        yield client


def test_the_summary_is_correct_after_a_lost_reply(queue: VoiceQueue, unlucky: VoiceQueue, way: LossyProxy) -> None:
    """New is what this call wrote; known is what existed before or occurs twice."""
    queue.enqueue_many(numbered_voices(3))
    items: list[VoiceJob] = [
        *numbered_voices(6),
        voice(),
        voice(),
        numbered_voices(6)[5],
        voice(key="key-1", name="other"),
    ]
    way.drop_reply_to("EVALSHA")

    summary = unlucky.enqueue_many(items)

    assert way.dropped == 1
    assert (summary.new, summary.existing, summary.rejected, summary.credits) == (5, 4, 1, 5 * 4)
    assert queue.status().states[State.QUEUED] == 3 + 5


def test_one_job_is_written_once_after_a_lost_reply(queue: VoiceQueue, unlucky: VoiceQueue, way: LossyProxy) -> None:
    """Its id is chosen before the call, so a retry finds it."""
    way.drop_reply_to("EVALSHA")

    job = unlucky.enqueue(voice())

    assert way.dropped == 1
    assert [queued.id for queued in queue.jobs(state=State.QUEUED)] == [job.id]


def test_a_change_is_reported_as_made_after_a_lost_reply(
    queue: VoiceQueue, unlucky: VoiceQueue, way: LossyProxy
) -> None:
    """And not as refused by the new state of the job."""
    job = queue.enqueue(voice())
    way.drop_reply_to("EVALSHA")

    assert unlucky.cancel(job.id).state is State.CANCELLED
    assert way.dropped == 1
    assert [step.state for step in queue.timeline(job.id)] == [State.QUEUED, State.CANCELLED]


def test_jobs_retried_by_plan_are_counted_after_a_lost_reply(
    queue: VoiceQueue, unlucky: VoiceQueue, store: JobStore, way: LossyProxy
) -> None:
    """Jobs that changed since the plan was made are not counted."""
    failed = [store.get([job_in_state(store, State.FAILED, voice()).id])[0] for _ in range(3)]
    jobs = [job for job in failed if job is not None]
    plan = queue.plan_bulk("retry", Filter())
    queue.retry(jobs[1].id)
    way.drop_reply_to("EVALSHA")

    assert unlucky.execute_plan("retry", plan.token).changed == 2
    assert way.dropped == 1


def test_a_retry_that_gets_a_voice_at_once_is_reported_after_a_lost_reply(
    queue: VoiceQueue, unlucky: VoiceQueue, store: JobStore, way: LossyProxy
) -> None:
    """One script lets the job wait for the voice, and finds the voice."""
    [job_id] = enqueue_jobs(store, voice_with_song(key="retried", reuse=True))
    fail_job(store, get_job(store, job_id), FailureCode.REFUSED)
    job_with_song(store)
    way.drop_reply_to("EVALSHA")

    retried = unlucky.retry(job_id)

    assert way.dropped == 1
    assert (retried.state, retried.persona_id) == (State.QUEUED, "p-1")


def test_another_transition_is_not_taken_for_the_change_after_a_lost_reply(
    queue: VoiceQueue, way: LossyProxy, prefix: str
) -> None:
    """A job changed by the same script, but to another state."""
    first, second = (queue.enqueue(voice(key=key, reuse=True)) for key in ("first", "second"))
    stale = replace(queue.get(second.id), version=queue.get(second.id).version - 1)
    now = time.time()
    with closing(connect(way.url)) as redis:
        moves = [transitions.cancel(job, now) for job in (queue.get(first.id), stale)]
        way.drop_reply_to("EVALSHA")

        assert JobStore(redis, prefix).apply_transitions(moves, now) == [True, False]

    assert queue.get(second.id).state is State.QUEUED
