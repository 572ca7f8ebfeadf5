"""The client for event loops: same results, and the loop is never blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.store.life import NOW, apply_transition, get_job, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import (
    AsyncVoiceQueue,
    BulkAction,
    EnqueueItemResult,
    Filter,
    JobNotFoundError,
    KeyConflictError,
    State,
    StoreUnavailableError,
    WaitTimeoutError,
)
from voicequeue.domain.spec import VoiceJob
from voicequeue.storage.job_store import JobStore
from workers.local.ports import free_port


def run(url: str, prefix: str, use: Callable[[AsyncVoiceQueue], Coroutine[Any, Any, None]]) -> None:
    """Use a client on an event loop."""

    async def main() -> None:
        async with AsyncVoiceQueue(url, prefix=prefix) as queue:
            await use(queue)

    asyncio.run(main())


def test_jobs_are_enqueued_and_read(valkey_url: str, prefix: str) -> None:
    """One by one, many at once, and from either kind of iterable."""

    async def more() -> AsyncIterator[VoiceJob]:
        for number in range(1_200):
            yield voice(batch="c", key=f"c{number}")

    async def use(queue: AsyncVoiceQueue) -> None:
        job = await queue.enqueue(voice(key="k"))
        assert await queue.get(job.id) == job
        assert (await queue.enqueue_many(numbered_voices(600, batch="b"))).new == 600
        assert (await queue.enqueue_many(more())).new == 1_200
        assert [job.spec.batch async for job in queue.jobs(batch="c")] == ["c"] * 1_200
        assert [batch.name for batch in await queue.batches()] == ["c", "b"]
        assert (await queue.status()).states[State.QUEUED] == 1_801
        assert (await queue.cancel(job.id)).state is State.CANCELLED
        assert (await queue.archive_counts()).pending == await queue.backfill_archive() == 0
        assert [entry async for entry in queue.archive_entries()] == []
        assert await queue.retry_archive([job.id]) == 0
        assert len(await queue.timeline(job.id)) == 2
        with pytest.raises(JobNotFoundError):
            await queue.get("nobody")

    run(valkey_url, prefix, use)


def test_jobs_are_searched_and_changed_by_plan(valkey_url: str, prefix: str) -> None:
    """The methods that a gateway needs."""

    async def use(queue: AsyncVoiceQueue) -> None:
        assert await queue.position(await queue.enqueue(voice(batch="b", key="k"))) == 1
        entries: list[EnqueueItemResult] = []
        jobs = [voice(batch="b", key="k"), voice(batch="b", key="l")]
        await queue.enqueue_many(jobs, on_result=entries.append)
        assert [entry.new_count for entry in entries] == [False, True]
        page = await queue.search(Filter(batch="b"), limit=1)
        assert [job.spec.key for job in page.items] == ["k"]
        assert [job.spec.key for job in (await queue.search(Filter(batch="b"), cursor=page.cursor)).items] == ["l"]
        assert [batch.name for batch in (await queue.list_batches()).items] == ["b"]
        plan = await queue.plan_bulk(BulkAction.CANCEL, Filter(batch="b"))
        assert (await queue.execute_plan(BulkAction.CANCEL, plan.token)).changed == plan.count == 2
        assert await queue.first_event_id() <= await queue.last_event_id()

    run(valkey_url, prefix, use)


def test_a_rejection_has_its_index_in_the_whole_input(valkey_url: str, prefix: str) -> None:
    """Also beyond the first chunk; `on_result` is called on the loop's thread."""
    items: list[Any] = [*numbered_voices(700), {"audio_url": "no"}, voice(key="last"), {"song": {}}]
    results: list[EnqueueItemResult] = []

    async def use(queue: AsyncVoiceQueue) -> None:
        summary = await queue.enqueue_many(items, on_result=results.append)
        assert [result.index for result in results] == list(range(703))
        assert (summary.rejected, summary.rejections) == (2, [])
        assert len((await queue.enqueue_many(items)).rejections) == 2
        with pytest.raises(KeyConflictError):
            await queue.enqueue(voice(key="last", name="another"))

    run(valkey_url, prefix, use)

    assert [result.index for result in results if result.error] == [700, 702]


def test_many_wait_at_once_and_all_return(valkey_url: str, prefix: str, store: JobStore) -> None:
    """More waits than threads, without blocking the loop."""
    jobs = [job_in_state(store, State.PENDING, voice(key=f"k{number}")) for number in range(40)]

    async def use(queue: AsyncVoiceQueue) -> None:
        waiting = [asyncio.create_task(queue.wait(job.id, timeout=20)) for job in jobs]
        await asyncio.sleep(0)
        for job in jobs:
            await asyncio.to_thread(apply_transition, store, get_job(store, job.id), State.SUCCEEDED, NOW)
        began = time.monotonic()
        assert [(await task).state for task in waiting] == [State.SUCCEEDED] * 40
        assert time.monotonic() - began < 4  # less than a look that no event has brought

    run(valkey_url, prefix, use)


def test_wait_times_out(valkey_url: str, prefix: str, store: JobStore) -> None:
    """The error names the job."""
    job = job_in_state(store, State.PENDING)

    async def use(queue: AsyncVoiceQueue) -> None:
        with pytest.raises(WaitTimeoutError, match=job.id):
            await queue.wait(job.id, timeout=0.05)

    run(valkey_url, prefix, use)


def test_every_transition_can_be_watched(valkey_url: str, prefix: str, store: JobStore) -> None:
    """Of one batch, after a given event."""

    async def use(queue: AsyncVoiceQueue) -> None:
        after = await queue.last_event_id()
        await queue.enqueue(voice(batch="a", key="a"))
        job = await queue.enqueue(voice(batch="b", key="b"))
        await queue.cancel(job.id)
        events = queue.watch(batch="b", after=after)
        received = [await anext(events), await anext(events)]
        assert [(event.job_id, event.state) for event in received] == [("", State.QUEUED), (job.id, State.CANCELLED)]

    run(valkey_url, prefix, use)


def test_callbacks_are_listed_and_redelivered(valkey_url: str, prefix: str, store: JobStore) -> None:
    """Pending callbacks, and those that were given up."""
    job = job_in_state(store, State.FAILED, voice(callback_url="https://hooks.example/"))

    async def use(queue: AsyncVoiceQueue) -> None:
        [pending] = [callback async for callback in queue.callbacks()]
        assert pending == await queue.callback(pending.id)
        store.callbacks.mark_undelivered(pending.id, NOW, "HTTP 410", is_attempted=True)
        assert [callback.id async for callback in queue.callbacks(undelivered=True)] == [job.callback_id]
        assert (await queue.callback_counts()).undelivered == 1
        assert await queue.redeliver_callbacks([pending.id, "gone"]) == 1
        await queue.set_batch_callback("b", "https://hooks.example/")
        with pytest.raises(ValueError, match="must be"):
            await queue.set_batch_callback("b", "hooks")

    run(valkey_url, prefix, use)


def test_an_unreachable_redis_raises_without_blocking_the_loop() -> None:
    """The loop keeps running during the call."""

    async def main() -> None:
        async with AsyncVoiceQueue(f"redis://127.0.0.1:{free_port()}/0") as queue:
            asking = asyncio.create_task(queue.status())
            turns = 0
            while not asking.done():
                await asyncio.sleep(0.01)
                turns += 1
            assert turns > 5
            with pytest.raises(StoreUnavailableError):
                await asking

    asyncio.run(main())
