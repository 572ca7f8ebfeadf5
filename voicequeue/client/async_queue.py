"""`AsyncVoiceQueue`: the same queue for programs that run on an event loop.

Every call is made by one of a few threads, so that a Redis that is slow or away never blocks the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from voicequeue.client.bulk_operations import Action, Done, Plan
from voicequeue.client.queue import DEFAULT_URL, Enqueueable, VoiceQueue
from voicequeue.client.results import Entry, Placed, Receipt, Rejection
from voicequeue.client.search import Filter, Page
from voicequeue.domain.balance import Balance
from voicequeue.domain.charge_review import Unsure
from voicequeue.domain.gate import Limits
from voicequeue.domain.job import Event, Job, State, Step
from voicequeue.domain.portions import CHUNK, Portion, portions, weight
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, Status
from voicequeue.errors import StoreUnreachable
from voicequeue.storage.archive import ToArchive
from voicequeue.storage.audit.findings import Finding
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.monitoring.throughput import Stretch
from voicequeue.storage.personas import Persona
from voicequeue.storage.preview import Foreseen
from voicequeue.storage.rejected_messages import KEPT, RejectedMessage

T = TypeVar("T")

#: How long one look for events waits (seconds), and after how long a job is looked at anyway.
_LISTEN_S, _LOOK_AGAIN_S = 1.0, 5.0


class AsyncVoiceQueue:
    """`VoiceQueue`, method by method, to be awaited; what each does and raises stands there.

    `threads` is how many calls are made at once; waiting for jobs takes one thread for all of them.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        prefix: str = DEFAULT_PREFIX,
        wait_for_redis_s: float = 0.0,
        reuse: bool = False,
        app: str = "",
        threads: int = 8,
    ) -> None:
        self._queue = VoiceQueue(url, prefix=prefix, wait_for_redis_s=wait_for_redis_s, reuse=reuse, app=app)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="voicequeue")
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncVoiceQueue:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._listener is not None:
            self._listener.cancel()
        await self._call(self._queue.close)
        self._threads.shutdown(wait=False)

    async def _call(self, method: Callable[..., T], *given: Any, **named: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(method, *given, **named))

    # ── putting in ─────────────────────────────────────────────────────────────────────────────

    async def enqueue(self, job: Enqueueable) -> Job:
        """Put one job into the backlog, or find the one that its key already stands for."""
        return await self._call(self._queue.enqueue, job)

    async def place(self, job: Enqueueable) -> Placed:
        """The same, and tell whether it is new and where it stands."""
        return await self._call(self._queue.place, job)

    async def enqueue_at_once(self, jobs: Sequence[Enqueueable]) -> list[Entry]:
        """Put some jobs into the backlog with one call to Redis; gives what became of each, in their order."""
        return await self._call(self._queue.enqueue_at_once, jobs)

    async def enqueue_many(
        self,
        jobs: Iterable[Enqueueable] | AsyncIterable[Enqueueable],
        *,
        on_reject: Callable[[Rejection], None] | None = None,
    ) -> Receipt:
        """Put any number of jobs into the backlog, from an iterable of either kind.

        `on_reject` is called on the event loop.
        """
        receipt, begun = Receipt(), 0
        reject = on_reject or receipt.rejections.append
        async for chunk in _chunks(jobs):
            part = await self._call(self._queue.enqueue_many, chunk)
            for rejection in part.rejections:
                reject(Rejection(begun + rejection.index, rejection.error))
            begun += len(chunk)
            receipt.new += part.new
            receipt.known += part.known
            receipt.rejected += part.rejected
            receipt.credits += part.credits
        return receipt

    async def preview(self, jobs: Iterable[Enqueueable]) -> AsyncIterator[Foreseen]:
        """What `enqueue_many` would do with each of these jobs, in their order, without doing it."""
        found = self._queue.preview(jobs)
        while page := await self._call(_page, found):
            for foreseen in page:
                yield foreseen

    # ── asking ─────────────────────────────────────────────────────────────────────────────────

    async def get(self, job_id: str) -> Job:
        """The job as it stands now."""
        return await self._call(self._queue.get, job_id)

    async def timeline(self, job_id: str) -> list[Step]:
        """Every move of the job, oldest first."""
        return await self._call(self._queue.timeline, job_id)

    async def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait until the job is final or `unsure`, and give it. Any number of jobs can be waited for at once."""
        moved = asyncio.Event()
        self._waiting.setdefault(job_id, []).append(moved)
        try:
            async with asyncio.timeout(timeout):
                await self._listen()
                return await self._settled(job_id, moved)
        except TimeoutError:
            raise TimeoutError(f"job {job_id} has not settled yet") from None
        finally:
            self._waiting[job_id].remove(moved)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    async def _settled(self, job_id: str, moved: asyncio.Event) -> Job:
        while True:
            moved.clear()
            job = await self.get(job_id)
            if job.is_final or job.state is State.UNSURE:
                return job
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):  # lest an event be missed
                    await moved.wait()
            except TimeoutError:
                continue

    async def _listen(self) -> None:
        """Have one task follow the events for all who wait."""
        if self._listener is None or self._listener.done():
            after = await self.last_event()
            if self._listener is None or self._listener.done():
                self._listener = asyncio.create_task(self._follow(after))

    async def _follow(self, after: str) -> None:
        while self._waiting:
            try:
                heard = await self.events(after, wait_s=_LISTEN_S)
            except StoreUnreachable:  # those who wait learn of it by looking themselves
                await asyncio.sleep(_LISTEN_S)
                continue
            for event in heard:
                after = event.id
                for moved in self._waiting.get(event.job_id, ()):
                    moved.set()

    async def first_event(self) -> str:
        """The id of the oldest event that can still be heard."""
        return await self._call(self._queue.first_event)

    async def last_event(self) -> str:
        """The id of the newest event, to hear on from."""
        return await self._call(self._queue.last_event)

    async def events(self, after: str, *, wait_s: float = 0.0) -> list[Event]:
        """Moves of all jobs after that event, waiting up to `wait_s` seconds for the first."""
        return await self._call(self._queue.events, after, wait_s=wait_s)

    async def watch(self, *, batch: str | None = None, after: str | None = None) -> AsyncIterator[Event]:
        """Every move from now on, or from that event on, for ever; of one batch or of all jobs."""
        heard = await self.last_event() if after is None else after
        while True:
            for event in await self.events(heard, wait_s=_LISTEN_S):
                heard = event.id
                if batch in (None, event.batch):
                    yield event

    async def jobs(self, *, state: State | str | None = None, batch: str | None = None) -> AsyncIterator[Job]:
        """Jobs of a batch in the order they came, or of a state, the latest to enter it first."""
        found = await self._call(self._queue.jobs, state=state, batch=batch)
        while page := await self._call(_page, found):
            for job in page:
                yield job

    async def find(self, wanted: Filter, *, limit: int = 100, cursor: str | None = None) -> Page[Job]:
        """A page of the jobs that match, from where `cursor` of the page before says."""
        return await self._call(self._queue.find, wanted, limit=limit, cursor=cursor)

    async def find_batches(self, *, limit: int = 100, cursor: str | None = None) -> Page[Batch]:
        """A page of the batches, the newest first."""
        return await self._call(self._queue.find_batches, limit=limit, cursor=cursor)

    async def balances(self) -> list[Balance]:
        """What upstream said was left on the account in the last days, oldest first."""
        return await self._call(self._queue.balances)

    async def unsure(self) -> AsyncIterator[Unsure]:
        """The jobs of which nobody knows whether they were charged, each with what is known of it."""
        found = self._queue.unsure()
        while page := await self._call(_page, found):
            for each in page:
                yield each

    async def review(self, job_id: str) -> Unsure:
        """What is known of an unsure job."""
        return await self._call(self._queue.review, job_id)

    async def trend(self, *, span_s: float = 3600.0, stretches: int = 60) -> list[Stretch]:
        """How many jobs were finished in the last `span_s` seconds, and how long they took; the oldest first."""
        return await self._call(self._queue.trend, span_s=span_s, stretches=stretches)

    async def rejects(self, limit: int = KEPT) -> list[RejectedMessage]:
        """Messages from other Celery clients that became no job, the newest first."""
        return await self._call(self._queue.rejects, limit)

    async def clear_rejects(self) -> list[RejectedMessage]:
        """Keep the rejected messages no longer; gives them for the last time."""
        return await self._call(self._queue.clear_rejects)

    async def personas(self) -> AsyncIterator[Persona]:
        """The voices that were made, the latest first."""
        found = self._queue.personas()
        while page := await self._call(_page, found):
            for persona in page:
                yield persona

    async def forget_persona(self, persona_id: str) -> bool:
        """Take this voice for no further job."""
        return await self._call(self._queue.forget_persona, persona_id)

    async def waits_for(self, job: Job) -> str | None:
        """The id of the job that makes the voice which a waiting one is to have."""
        return await self._call(self._queue.waits_for, job)

    async def batch(self, name: str) -> Batch:
        """A batch as it stands now."""
        return await self._call(self._queue.batch, name)

    async def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        return await self._call(self._queue.batches)

    async def status(self, batch: str | None = None) -> Status:
        """The whole queue at a glance, or one batch of it."""
        return await self._call(self._queue.status, batch)

    # ── steering ───────────────────────────────────────────────────────────────────────────────

    async def pause(self, *, stage: Stage | str | None = None, batch: str | None = None, by: str = "") -> bool:
        """Charge nothing more: of anything, of one stage, or of one batch."""
        return await self._call(self._queue.pause, stage=stage, batch=batch, by=by)

    async def resume(self, *, stage: Stage | str | None = None, batch: str | None = None) -> bool:
        """Go on, and try what is held back for other reasons."""
        return await self._call(self._queue.resume, stage=stage, batch=batch)

    async def limits(self) -> Limits:
        """As somebody set them while it runs, or else as the workers' settings say."""
        return await self._call(self._queue.limits)

    async def set_limits(self, **limits: float | None) -> Limits:
        """Set `in_flight`, `submit_rate` (POSTs a minute) or `credit_floor` for all workers, now."""
        return await self._call(self._queue.set_limits, **limits)

    async def limit_batch(
        self,
        name: str,
        *,
        paused: bool | None = None,
        max_credits: float | None = None,
        max_in_flight: float | None = None,
    ) -> bool:
        """Set what one batch may do; None leaves it as it is, `math.inf` sets no limit."""
        return await self._call(
            self._queue.limit_batch, name, paused=paused, max_credits=max_credits, max_in_flight=max_in_flight
        )

    async def call_back_batch(self, name: str, url: str | None) -> None:
        """Where it is told, from now on, each time that all jobs of this batch have come to rest; None: nowhere."""
        await self._call(self._queue.call_back_batch, name, url)

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    async def callbacks(self, *, undelivered: bool = False) -> AsyncIterator[Callback]:
        """Callbacks that are pending, whose time comes first, first; or those that were given up."""
        found = await self._call(self._queue.callbacks, undelivered=undelivered)
        while page := await self._call(_page, found):
            for callback in page:
                yield callback

    async def callback(self, callback_id: str) -> Callback | None:
        """One callback; None once it is delivered."""
        return await self._call(self._queue.callback, callback_id)

    async def callback_counts(self) -> CallbackCounts:
        """How many callbacks there are."""
        return await self._call(self._queue.callback_counts)

    async def redeliver(self, callback_ids: Iterable[str]) -> int:
        """Deliver callbacks that were given up, or are pending, now; gives how many there were of them."""
        return await self._call(self._queue.redeliver, callback_ids)

    # ── archive ────────────────────────────────────────────────────────────────────────────────

    async def archive(self, *, failed: bool = False) -> AsyncIterator[ToArchive]:
        """Jobs whose songs are to be archived, whose time comes first, first; or those that were given up."""
        found = await self._call(self._queue.archive, failed=failed)
        while page := await self._call(_page, found):
            for each in page:
                yield each

    async def archive_counts(self) -> ArchiveCounts:
        """Of how many jobs the songs are to be archived, were given up, and were archived."""
        return await self._call(self._queue.archive_counts)

    async def archive_again(self, job_ids: Iterable[str]) -> int:
        """Archive the songs of these jobs from now on; gives how many are to be archived now."""
        return await self._call(self._queue.archive_again, job_ids)

    async def archive_missing(self, batch: str | None = None) -> int:
        """Archive all songs that were never meant to be; gives how many jobs that are."""
        return await self._call(self._queue.archive_missing, batch)

    # ── changing ───────────────────────────────────────────────────────────────────────────────

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job."""
        return await self._call(self._queue.cancel, job_id)

    async def cancel_as_read(self, jobs: Iterable[Job]) -> list[Job]:
        """Cancel many jobs, or mark them; gives them as they are then."""
        return await self._call(self._queue.cancel_as_read, jobs)

    async def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Let a failed job go on at the first stage that has no result."""
        return await self._call(self._queue.retry, job_id, resubmit=resubmit)

    async def retry_as_read(self, jobs: Iterable[Job], *, resubmit: bool = False) -> list[bool]:
        """Retry many failed jobs as they were when they were read."""
        return await self._call(self._queue.retry_as_read, jobs, resubmit=resubmit)

    async def plan(self, action: Action | str, wanted: Filter, *, resubmit: bool = False) -> Plan:
        """Freeze the list of jobs that `cancel` or `retry` would be done to, and say what that costs."""
        return await self._call(self._queue.plan, action, wanted, resubmit=resubmit)

    async def carry_out(self, action: Action | str, token: str) -> Done:
        """Do what was planned to each job of that list that has not changed since."""
        return await self._call(self._queue.carry_out, action, token)

    async def take_up(self, job_id: str, task_id: str) -> Job:
        """Give an unsure job the task id of its order."""
        return await self._call(self._queue.take_up, job_id, task_id)

    async def order_again(self, job_id: str) -> Job:
        """Send the request of an unsure job again, which may cost its stage a second time."""
        return await self._call(self._queue.order_again, job_id)

    async def abandon(self, job_id: str) -> Job:
        """Give up on an unsure job."""
        return await self._call(self._queue.abandon, job_id)

    # ── the books ──────────────────────────────────────────────────────────────────────────────

    async def audit(self) -> list[Finding]:
        """Every index and counter that disagrees with the records."""
        return await self._call(self._queue.audit)

    async def repair(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mend what an audit found; gives what was mended."""
        return await self._call(self._queue.repair, findings)


async def _chunks(jobs: Iterable[Enqueueable] | AsyncIterable[Enqueueable]) -> AsyncIterator[list[Enqueueable]]:
    if not isinstance(jobs, AsyncIterable):
        for chunk in portions(jobs, weight):
            yield chunk
        return
    portion = Portion[Enqueueable]()
    async for job in jobs:
        more = weight(job)
        if not portion.has_room(more):
            yield portion.take()
        portion.add(job, more)
        if portion.is_full:
            yield portion.take()
    if rest := portion.take():
        yield rest


def _page(found: Iterator[T]) -> list[T]:
    return list(islice(found, CHUNK))
