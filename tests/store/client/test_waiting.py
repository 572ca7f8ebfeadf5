"""Waiting for a batch, with both clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.store.life import accept_order, apply_transition, claim_admitted, fail_job, get_job, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import AsyncVoiceQueue, Batch, BatchNotFoundError, FailureCode, State, VoiceQueue, WaitTimeoutError
from voicequeue.storage.job_store import JobStore

#: Waits for a batch in the namespace of the operator, with either client.
Wait = Callable[..., Batch]


@pytest.fixture(params=["VoiceQueue", "AsyncVoiceQueue"])
def wait(request: pytest.FixtureRequest, valkey_url: str, prefix: str, queue: VoiceQueue) -> Wait:
    """Return the method of the client, called in this thread."""
    if request.param == "VoiceQueue":
        return queue.wait_batch

    async def waiting(*arguments: Any, **options: Any) -> Batch:
        async with AsyncVoiceQueue(valkey_url, prefix=prefix, namespace="*") as client:
            return await client.wait_batch(*arguments, **options)

    return lambda *arguments, **options: asyncio.run(waiting(*arguments, **options))


def settle(store: JobStore, job_id: str, state: State) -> None:
    """Bring an admitted job to this state."""
    claim_admitted(store, job_id)
    if state is State.SUCCEEDED:
        accept_order(store, job_id)
    apply_transition(store, get_job(store, job_id), state)


def test_a_batch_is_returned_when_each_job_is_settled_or_unsure(wait: Wait, queue: VoiceQueue, store: JobStore) -> None:
    """With its counters; jobs of other batches do not matter."""
    queue.enqueue_many(numbered_voices(3, batch="spring"))
    queue.enqueue(voice(batch="summer"))
    store.admit(time.time())
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(wait, "spring", timeout=30)
        for job, state in zip(queue.jobs(batch="spring"), (State.SUCCEEDED, State.UNSURE, State.FAILED), strict=True):
            assert not waiting.done()
            settle(store, job.id, state)
        batch = waiting.result(10)

    assert (batch.name, batch.total, batch.is_settled) == ("spring", 3, True)
    assert batch.states[State.UNSURE] == batch.states[State.FAILED] == 1


def test_a_batch_that_has_stopped_itself_is_returned(wait: Wait, queue: VoiceQueue, store: JobStore) -> None:
    """Only a person can let it go on; its queued jobs are not awaited."""
    queue.set_batch_limits("spring", stop_after=0.5, stop_min=1)
    queue.enqueue_many(numbered_voices(2, batch="spring"))
    store.admit(time.time(), at_most=1)
    job = next(queue.jobs(state=State.ADMITTED))
    claim_admitted(store, job.id)
    fail_job(store, get_job(store, job.id), FailureCode.REFUSED)

    batch = wait("spring", timeout=30)

    assert batch.stop is not None
    assert batch.states[State.QUEUED] == 1


def test_a_batch_that_does_not_settle_in_time_is_a_timeout(wait: Wait, queue: VoiceQueue, store: JobStore) -> None:
    """The error says how many jobs are left."""
    job_in_state(store, State.SUCCEEDED, voice(batch="spring"))
    queue.enqueue(voice(batch="spring"))

    with pytest.raises(WaitTimeoutError, match="batch 'spring' has not settled yet: 1 of 2 jobs still to settle"):
        wait("spring", timeout=0.05)


def test_a_batch_without_jobs_is_not_found(wait: Wait) -> None:
    """At once."""
    with pytest.raises(BatchNotFoundError):
        wait("winter", timeout=30)


def test_a_job_that_does_not_settle_in_time_is_named_with_its_state(queue: VoiceQueue) -> None:
    """So that the log says what it waits for."""
    job = queue.enqueue(voice())

    with pytest.raises(WaitTimeoutError, match=f"job {job.id} has not settled yet: it is queued"):
        queue.wait(job.id, timeout=0)
