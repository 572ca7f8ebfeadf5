"""`AsyncVoiceQueue`: the API of `VoiceQueue` for programs that run on an event loop.

Calls run in a few threads, so that a slow or unreachable Redis never blocks the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial, wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from voicequeue.client.enqueueing import JobInput, several
from voicequeue.client.events import event_id
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.results import EnqueueItemResult, EnqueueSummary
from voicequeue.client.waiting import Awaited, AwaitedBatch, AwaitedJob, keys_of
from voicequeue.domain.job import Event, Job
from voicequeue.domain.portions import PORTION_JOBS_MAX, Portion, split_into_portions, weight
from voicequeue.domain.status import Batch
from voicequeue.errors import StoreUnavailableError, WaitTimeoutError

P = ParamSpec("P")
T = TypeVar("T")

#: How long one call blocks for events, and how often a job is read even without an event (seconds).
_BLOCK_S, _REREAD_S = 1.0, 5.0


def offload(
    method: Callable[Concatenate[VoiceQueue, P], T],
) -> Callable[Concatenate[AsyncVoiceQueue, P], Coroutine[Any, Any, T]]:
    """Return the awaitable twin of a method: same parameters and docstring, executed in a thread."""

    @wraps(method)
    async def call(self: AsyncVoiceQueue, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(partial(method, self._queue, *args, **kwargs))

    call.__qualname__ = f"AsyncVoiceQueue.{method.__name__}"
    return call


def offload_iterator(
    method: Callable[Concatenate[VoiceQueue, P], Iterator[T]],
) -> Callable[Concatenate[AsyncVoiceQueue, P], AsyncIterator[T]]:
    """Return the twin of a method that returns an iterator: an async iterator whose pages are read in a thread."""

    @wraps(method)
    async def iterate(self: AsyncVoiceQueue, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        items = await self._run(partial(method, self._queue, *args, **kwargs))
        while page := await self._run(partial(_page, items)):
            for item in page:
                yield item

    signature = inspect.signature(method)
    iterate.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=f"Async{signature.return_annotation}"
    )
    iterate.__qualname__ = f"AsyncVoiceQueue.{method.__name__}"
    return iterate


class AsyncVoiceQueue:
    """`VoiceQueue` with the same methods and parameters, to be awaited or iterated with `async for`.

    Use it as an async context manager, or await `close`. Errors are those of `VoiceQueue`; a method that returns an
    async iterator raises them when it is iterated.

    Args:
        url: Redis URL, as in `VoiceQueue`; None takes REDIS_URL.
        prefix: Prefix of all keys, as in `VoiceQueue`.
        wait_for_redis_s: Seconds for which each call retries while Redis is unavailable, as in `VoiceQueue`.
        reuse: Whether jobs that leave `reuse` unset share a voice, as in `VoiceQueue`.
        app: Name of the calling program, as in `VoiceQueue`.
        namespace: Namespace of its jobs, as in `VoiceQueue`.
        replicas_ack: Number of replicas that must have recorded what a call has written, as in `VoiceQueue`.
        threads: Maximum number of calls that run at the same time; 1 or more. All calls of `wait` together take one.

    Raises:
        ValueError: `url`, `prefix`, `app` or `namespace` is invalid, `wait_for_redis_s` or `replicas_ack` is
            negative, or `threads` is below 1.
        SecretFileError: The file that REDIS_URL_FILE names cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str | None = None,
        wait_for_redis_s: float = 0.0,
        reuse: bool = False,
        app: str = "",
        namespace: str | None = None,
        replicas_ack: int = 0,
        threads: int = 8,
    ) -> None:
        self._queue = VoiceQueue(
            url,
            prefix=prefix,
            wait_for_redis_s=wait_for_redis_s,
            reuse=reuse,
            app=app,
            namespace=namespace,
            replicas_ack=replicas_ack,
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="voicequeue")
        self._waiters: dict[str, list[asyncio.Event]] = {}
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def namespace(self) -> str:
        """The namespace of this client; `*` for all."""
        return self._queue.namespace

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._listener is not None:
            self._listener.cancel()
        await self._run(self._queue.close)
        self._threads.shutdown(wait=False)

    def on_behalf_of(self, actor: str, *, address: str = "", reason: str = "") -> AsyncVoiceQueue:
        """Return a queue on the same connection whose changes are recorded as those of an actor, as `VoiceQueue` does.

        Args:
            actor: Name of the person or program, as in `VoiceQueue.on_behalf_of`.
            address: Network address from which the change was requested.
            reason: Reason of the changes.
        """
        acting = copy(self)
        acting._queue = self._queue.on_behalf_of(actor, address=address, reason=reason)
        acting._waiters, acting._listener = {}, None
        return acting

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    # ── enqueueing ─────────────────────────────────────────────────────────────────────────────

    enqueue = offload(VoiceQueue.enqueue)
    preview = offload_iterator(VoiceQueue.preview)

    async def enqueue_many(
        self,
        jobs: Iterable[JobInput] | AsyncIterable[JobInput],
        *,
        on_result: Callable[[EnqueueItemResult], object] | None = None,
    ) -> EnqueueSummary:
        """Enqueue any number of jobs, as `VoiceQueue.enqueue_many` does.

        Args:
            jobs: An iterable or an async iterable of jobs, or of mappings of their fields. Read lazily.
            on_result: Called with the result of each item, in order, on the event loop. None collects those of rejected
                items in `EnqueueSummary.rejections`.

        Raises:
            InvalidJobError: `jobs` is one job.
        """
        summary, first_index = EnqueueSummary(), 0
        async for chunk in _chunks(jobs):
            results: list[EnqueueItemResult] = []
            await self._run(partial(self._queue.enqueue_many, chunk, on_result=results.append))
            for result in results:
                summary.take(replace(result, index=first_index + result.index), on_result)
            first_index += len(chunk)
        return summary

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    namespaces = offload(VoiceQueue.namespaces)
    get = offload(VoiceQueue.get)
    timeline = offload(VoiceQueue.timeline)
    jobs = offload_iterator(VoiceQueue.jobs)
    search = offload(VoiceQueue.search)
    voice_creator = offload(VoiceQueue.voice_creator)
    position = offload(VoiceQueue.position)
    job_holds = offload(VoiceQueue.job_holds)
    batch = offload(VoiceQueue.batch)
    batches = offload(VoiceQueue.batches)
    list_batches = offload(VoiceQueue.list_batches)
    count_batches = offload(VoiceQueue.count_batches)
    batch_names = offload(VoiceQueue.batch_names)
    status = offload(VoiceQueue.status)
    throughput = offload(VoiceQueue.throughput)
    balance_history = offload(VoiceQueue.balance_history)
    audit_log = offload(VoiceQueue.audit_log)
    personas = offload_iterator(VoiceQueue.personas)
    list_personas = offload(VoiceQueue.list_personas)
    forget_persona = offload(VoiceQueue.forget_persona)

    # ── events ─────────────────────────────────────────────────────────────────────────────────

    events = offload(VoiceQueue.events)
    first_event_id = offload(VoiceQueue.first_event_id)
    last_event_id = offload(VoiceQueue.last_event_id)

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait until the job is settled or `unsure`, and return it.

        Any number of waits take one thread.

        Args:
            job_id: Id of the job.
            timeout: Maximum time to wait, in seconds. None has no limit.

        Raises:
            JobNotFoundError: No job has this id.
            WaitTimeoutError: The job did not settle in time.
        """
        return await self._await(AwaitedJob(job_id), timeout)

    async def wait_batch(self, batch: str, *, timeout: float | None = None) -> Batch:
        """Wait until each job of the batch is settled or `unsure`, as `VoiceQueue.wait_batch` does.

        Any number of waits take one thread.

        Args:
            batch: Name of the batch.
            timeout: Maximum time to wait, in seconds. None has no limit.

        Raises:
            BatchNotFoundError: No job is in this batch.
            WaitTimeoutError: The batch did not settle in time.
        """
        return await self._await(AwaitedBatch(batch, self._queue._store.scope), timeout)

    async def _await(self, awaited: Awaited[T], timeout: float | None) -> T:
        has_changed = asyncio.Event()
        self._waiters.setdefault(awaited.key, []).append(has_changed)
        try:
            async with asyncio.timeout(timeout):
                await self._ensure_listener()
                return await self._settled(awaited, has_changed)
        except WaitTimeoutError:
            raise
        except TimeoutError:
            raise awaited.timed_out() from None
        finally:
            self._waiters[awaited.key].remove(has_changed)
            if not self._waiters[awaited.key]:
                del self._waiters[awaited.key]

    async def _settled(self, awaited: Awaited[T], has_changed: asyncio.Event) -> T:
        while True:
            has_changed.clear()
            value, is_over = await self._run(partial(awaited.read, self._queue))
            if is_over:
                return value
            await self._await_event(awaited, has_changed)

    async def _await_event(self, _: Awaited[object], has_changed: asyncio.Event, /) -> None:
        """Wait until an event has concerned it, or for the next reread: the event may have been trimmed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REREAD_S):
                await has_changed.wait()

    async def _ensure_listener(self) -> None:
        """Start the task that reads events for all waiters, unless it runs."""
        if self._listener is None or self._listener.done():
            after = await self.last_event_id()
            if self._listener is None or self._listener.done():
                self._listener = asyncio.create_task(self._listen(after))

    async def _listen(self, after: str) -> None:
        while self._waiters:
            try:
                events, after = await self._read_events(after)
            except StoreUnavailableError:  # the waiters get the same error when they read their jobs
                await asyncio.sleep(_BLOCK_S)
                continue
            for key in {key for event in events for key in keys_of(event)}:
                for has_changed in self._waiters.get(key, ()):
                    has_changed.set()

    async def watch(self, *, batch: str | None = None, after: str | None = None) -> AsyncIterator[Event]:
        """Yield events without end, as they happen.

        Args:
            batch: Yield only events of this batch. None yields the events of all jobs.
            after: Id of the event to continue after; `0-0` starts with the oldest event that is kept. None starts with
                the next event.

        Raises:
            ValueError: `after` is not an event id.
        """
        last_id = await self.last_event_id() if after is None else event_id(after)
        while True:
            events, last_id = await self._read_events(last_id)
            for event in events:
                if self._queue._is_event_of(event, batch):
                    yield event

    async def _read_events(self, after: str) -> tuple[list[Event], str]:
        return await self._run(partial(self._queue._read_events, after, wait_s=_BLOCK_S))

    # ── control ────────────────────────────────────────────────────────────────────────────────

    pause = offload(VoiceQueue.pause)
    resume = offload(VoiceQueue.resume)
    limits = offload(VoiceQueue.limits)
    set_limits = offload(VoiceQueue.set_limits)
    set_budget = offload(VoiceQueue.set_budget)
    set_budget_callback = offload(VoiceQueue.set_budget_callback)
    budgets = offload(VoiceQueue.budgets)
    spending = offload(VoiceQueue.spending)
    set_batch_limits = offload(VoiceQueue.set_batch_limits)
    set_batch_callback = offload(VoiceQueue.set_batch_callback)
    set_callback_secret = offload(VoiceQueue.set_callback_secret)
    remove_callback_secret = offload(VoiceQueue.remove_callback_secret)

    # ── callbacks, archive, rejected messages ──────────────────────────────────────────────────

    callbacks = offload_iterator(VoiceQueue.callbacks)
    list_callbacks = offload(VoiceQueue.list_callbacks)
    callback = offload(VoiceQueue.callback)
    callback_counts = offload(VoiceQueue.callback_counts)
    redeliver_callbacks = offload(VoiceQueue.redeliver_callbacks)
    archive_entries = offload_iterator(VoiceQueue.archive_entries)
    archive_counts = offload(VoiceQueue.archive_counts)
    retry_archive = offload(VoiceQueue.retry_archive)
    backfill_archive = offload(VoiceQueue.backfill_archive)
    rejected_messages = offload(VoiceQueue.rejected_messages)
    list_rejected_messages = offload(VoiceQueue.list_rejected_messages)
    clear_rejected_messages = offload(VoiceQueue.clear_rejected_messages)

    # ── changing jobs ──────────────────────────────────────────────────────────────────────────

    cancel = offload(VoiceQueue.cancel)
    retry = offload(VoiceQueue.retry)
    plan_bulk = offload(VoiceQueue.plan_bulk)
    plan_jobs = offload(VoiceQueue.plan_jobs)
    execute_plan = offload(VoiceQueue.execute_plan)
    charge_reviews = offload_iterator(VoiceQueue.charge_reviews)
    list_charge_reviews = offload(VoiceQueue.list_charge_reviews)
    charge_review = offload(VoiceQueue.charge_review)
    confirm_charged = offload(VoiceQueue.confirm_charged)
    resubmit = offload(VoiceQueue.resubmit)
    abandon = offload(VoiceQueue.abandon)

    # ── API keys ───────────────────────────────────────────────────────────────────────────────

    api_keys = offload(VoiceQueue.api_keys)
    create_api_key = offload(VoiceQueue.create_api_key)
    edit_api_key = offload(VoiceQueue.edit_api_key)
    rotate_api_key = offload(VoiceQueue.rotate_api_key)
    revoke_api_key = offload(VoiceQueue.revoke_api_key)

    # ── erasing persons ────────────────────────────────────────────────────────────────────────

    plan_erasure = offload(VoiceQueue.plan_erasure)
    erase = offload(VoiceQueue.erase)
    allow_erased = offload(VoiceQueue.allow_erased)

    # ── integrity ──────────────────────────────────────────────────────────────────────────────

    audit = offload(VoiceQueue.audit)
    repair = offload(VoiceQueue.repair)
    upgrade = offload(VoiceQueue.upgrade)


async def _chunks(jobs: Iterable[JobInput] | AsyncIterable[JobInput]) -> AsyncIterator[list[JobInput]]:
    if not isinstance(jobs, AsyncIterable):
        for chunk in split_into_portions(several(jobs), weight):
            yield chunk
        return
    portion = Portion[JobInput]()
    async for job in jobs:
        job_weight = weight(job)
        if not portion.has_room(job_weight):
            yield portion.take()
        portion.add(job, job_weight)
        if portion.is_full:
            yield portion.take()
    if last_chunk := portion.take():
        yield last_chunk


def _page(items: Iterator[T]) -> list[T]:
    return list(islice(items, PORTION_JOBS_MAX))
