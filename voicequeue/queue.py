"""The producer's face of the queue: put jobs in, ask what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

from voicequeue import changes
from voicequeue.archive import ToArchive
from voicequeue.audit import Finding, audit
from voicequeue.balance import Balance
from voicequeue.callbacks import Callback
from voicequeue.claims import Outcome
from voicequeue.errors import (
    InvalidJob,
    KeyConflict,
    StoreUnreachable,
    UnknownBatch,
    UnknownJob,
    VoiceQueueError,
)
from voicequeue.gate import Limits
from voicequeue.job import FINAL, Event, Job, Move, State, Step
from voicequeue.keyspace import DEFAULT_PREFIX
from voicequeue.overview import ArchiveCounts, Batch, CallbackCounts, Status
from voicequeue.reconnect import REFUSED, UNREACHABLE, no_later_than
from voicequeue.rejects import KEPT, RejectedMessage
from voicequeue.repair import repair
from voicequeue.spec import VoiceJob, parse
from voicequeue.stage import Stage
from voicequeue.store import Store, connect

#: Jobs written by one call to Redis.
CHUNK = 500

#: What `enqueue` takes: a job, or its fields as a mapping (JSON, a row).
Enqueueable = VoiceJob | Mapping[str, Any]

#: The pace is measured over so many seconds.
PACE_S = 300.0

#: One look for events takes so long (seconds) at most.
_LISTEN_S = 5.0

#: What is still to be done by itself.
UNSETTLED = frozenset(State) - FINAL - {State.UNSURE}

DEFAULT_URL = "redis://localhost:6379/0"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One of many jobs that could not be enqueued; `index` is its place among those given, from 0."""

    index: int
    error: VoiceQueueError


@dataclass(slots=True)
class Receipt:
    """What became of many jobs: how many were new, were there already, and could not be taken.

    `credits` is what the new ones will cost. `rejections` stays empty where `on_reject` took them.
    """

    new: int = 0
    known: int = 0
    rejected: int = 0
    credits: int = 0
    rejections: list[Rejection] = field(default_factory=list)


class VoiceQueue:
    """The queue behind one Redis.

    It needs Redis alone. Every method raises `StoreUnreachable` if Redis does not answer, or refuses.
    With `wait_for_redis_s` each call to a Redis that is away, restarting or reading its file is tried
    again for that many seconds first (without: for half a second); `math.inf` tries for ever. A job is
    written once however often its call is tried, and counted as new by the call that wrote it.

    Raises ValueError for a `url`, a `prefix` or a time that cannot be one.
    """

    def __init__(self, url: str = DEFAULT_URL, *, prefix: str = DEFAULT_PREFIX, wait_for_redis_s: float = 0.0) -> None:
        if not wait_for_redis_s >= 0:
            raise ValueError("the seconds to wait for Redis must be a number, 0 or more")
        self._redis = connect(url, wait_s=wait_for_redis_s)
        self._store = Store(self._redis, prefix)
        self._prefix = prefix

    def __enter__(self) -> VoiceQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    # ── putting in ─────────────────────────────────────────────────────────────────────────────

    def enqueue(self, job: Enqueueable) -> Job:
        """Put one job into the backlog, or find the one that its key already stands for.

        Raises InvalidJob, KeyConflict.
        """
        spec = parse(job)
        job_id = spec.id()
        with _reachable():
            [outcome] = self._store.enqueue([(job_id, spec)], time.time())
        if outcome is Outcome.CONFLICT:
            raise KeyConflict(spec.key or "", job_id)
        return self.get(job_id)

    def enqueue_many(
        self, jobs: Iterable[Enqueueable], *, on_reject: Callable[[Rejection], None] | None = None
    ) -> Receipt:
        """Put any number of jobs into the backlog; memory stays flat however many there are.

        A job that cannot be taken is given to `on_reject` (without it: kept in the receipt), and
        the others go on. Calling again after a fault is safe for jobs that have a key.
        """
        receipt = Receipt()
        reject = on_reject or receipt.rejections.append
        numbered = enumerate(jobs)
        while chunk := list(islice(numbered, CHUNK)):
            self._enqueue_chunk(chunk, receipt, reject)
        return receipt

    def _enqueue_chunk(
        self, chunk: list[tuple[int, Enqueueable]], receipt: Receipt, reject: Callable[[Rejection], None]
    ) -> None:
        taken: list[tuple[int, str, VoiceJob]] = []
        for index, given in chunk:
            try:
                spec = parse(given)
            except InvalidJob as error:
                receipt.rejected += 1
                reject(Rejection(index, error))
            else:
                taken.append((index, spec.id(), spec))
        with _reachable():
            outcomes = self._store.enqueue([(job_id, spec) for _, job_id, spec in taken], time.time())
        for (index, job_id, spec), outcome in zip(taken, outcomes, strict=True):
            if outcome is Outcome.NEW:
                receipt.new += 1
                receipt.credits += spec.credits
            elif outcome is Outcome.KNOWN:
                receipt.known += 1
            else:
                receipt.rejected += 1
                reject(Rejection(index, KeyConflict(spec.key or "", job_id)))

    # ── asking ─────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str) -> Job:
        """The job as it stands now. Raises UnknownJob."""
        with _reachable():
            [job] = self._store.get([job_id])
        if job is None:
            raise UnknownJob(job_id)
        return job

    def timeline(self, job_id: str) -> list[Step]:
        """Every move of the job, oldest first. Raises UnknownJob."""
        with _reachable():
            steps = self._store.timeline(job_id)
        if not steps:
            raise UnknownJob(job_id)
        return steps

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Wait until the job is final or `unsure`, and give it. Raises UnknownJob, TimeoutError.

        `timeout` in seconds; None waits for ever. A Redis that is away is not waited for any longer.
        """
        give_up = None if timeout is None else time.monotonic() + timeout
        with no_later_than(give_up):
            return self._wait(job_id, give_up)

    def _wait(self, job_id: str, give_up: float | None) -> Job:
        with _reachable():
            after = self._store.last_event()
        while True:
            job = self.get(job_id)
            if job.is_final or job.state is State.UNSURE:
                return job
            after = self._next_event_of(job_id, after, give_up)

    def _next_event_of(self, job_id: str, after: str, give_up: float | None) -> str:
        """Wait for an event of this job; every few seconds return anyway, lest a trimmed one be missed."""
        look_again = time.monotonic() + 5
        while (now := time.monotonic()) < look_again:
            if give_up is not None and now >= give_up:
                raise TimeoutError(f"job {job_id} has not settled yet")
            until = look_again if give_up is None else min(look_again, give_up)
            with _reachable():
                events = self._store.events(after, wait_s=until - now)
            for event in events:
                after = event.id
                if event.job_id == job_id:
                    return after
        return after

    def last_event(self) -> str:
        """The id of the newest event, to hear on from."""
        with _reachable():
            return self._store.last_event()

    def events(self, after: str, *, wait_s: float = 0.0) -> list[Event]:
        """Moves of all jobs after that event, waiting up to `wait_s` seconds for the first; [] if none came.

        The last 20,000 or so can be heard.
        """
        with _reachable():
            return self._store.events(after, wait_s=wait_s)

    def watch(self, *, batch: str | None = None, after: str | None = None) -> Iterator[Event]:
        """Every move from now on, or from that event on, for ever; of one batch or of all jobs."""
        heard = self.last_event() if after is None else after
        while True:
            for event in self.events(heard, wait_s=_LISTEN_S):
                heard = event.id
                if batch in (None, event.batch):
                    yield event

    def jobs(self, *, state: State | str | None = None, batch: str | None = None) -> Iterator[Job]:
        """Jobs of a batch in the order they came, or of a state, the latest to enter it first.

        Read a page at a time. Raises UnknownBatch, at once.
        """
        wanted = None if state is None else State(state)
        if batch is not None:
            self.batch(batch)
        return self._read(wanted, batch)

    def _read(self, wanted: State | None, batch: str | None) -> Iterator[Job]:
        ids = self._store.ids(state=wanted, batch=batch)
        while page := self._page(ids):
            yield from (job for job in page if job is not None)

    def _page(self, ids: Iterator[str]) -> list[Job | None]:
        with _reachable():
            return self._store.get(list(islice(ids, CHUNK)))

    def balances(self) -> list[Balance]:
        """What upstream said was left on the account in the last days, oldest first."""
        with _reachable():
            return self._store.controls.balances()

    def rejects(self, limit: int = KEPT) -> list[RejectedMessage]:
        """Messages from other Celery clients that became no job, the newest first; the last 1,000 are kept."""
        with _reachable():
            return self._store.rejects.latest(limit)

    def clear_rejects(self) -> list[RejectedMessage]:
        """Keep the rejected messages no longer; gives them for the last time."""
        with _reachable():
            return self._store.rejects.take()

    def batch(self, name: str) -> Batch:
        """A batch as it stands now. Raises UnknownBatch."""
        with _reachable():
            found = self._store.batch(name)
        if found is None:
            raise UnknownBatch(name)
        return found

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        with _reachable():
            names = self._store.batches()
        return [self.batch(name) for name in names]

    def status(self, batch: str | None = None) -> Status:
        """The whole queue at a glance, or one batch of it. Raises UnknownBatch."""
        if batch is not None:
            self.batch(batch)
        now, store = time.time(), self._store
        with _reachable():
            states = store.counts(batch)
            pace = store.finished(now - PACE_S) * 60 / PACE_S
            unsettled = sum(states[state] for state in UNSETTLED)
            return Status(
                states=states,
                gate=store.controls.gate(now),
                in_flight=store.in_flight(),
                limit=store.controls.flow().limit,
                credits=store.credits(batch),
                workers=len(store.controls.workers(since=now - 15)),
                account=store.controls.account(now),
                backlog=tuple(line for line in store.lines() if batch in (None, line.batch)),
                failures=store.failures() if batch is None else {},
                rejects=store.rejects.count() if batch is None else 0,
                callbacks=store.callbacks.counted(now - 15) if batch is None else CallbackCounts(),
                archive=store.archive.counted(now - 15) if batch is None else ArchiveCounts(),
                pace=pace,
                seconds_left=unsettled * 60 / pace if pace else None,
            )

    # ── steering ───────────────────────────────────────────────────────────────────────────────

    def pause(self, *, stage: Stage | str | None = None, batch: str | None = None, by: str = "") -> bool:
        """Charge nothing more: of anything, of one stage, or of one batch. False if it was so already.

        What is in flight is polled as ever. `by` is told to whoever asks why. Raises UnknownBatch.
        """
        if batch is not None:
            return self.limit_batch(self.batch(batch).name, paused=True)
        with _reachable():
            return self._store.controls.pause(time.time(), stage=None if stage is None else Stage(stage), by=by)

    def resume(self, *, stage: Stage | str | None = None, batch: str | None = None) -> bool:
        """Go on, and try what is held back for other reasons. False if nothing was. Raises UnknownBatch."""
        if batch is not None:
            return self.limit_batch(self.batch(batch).name, paused=False)
        with _reachable():
            return self._store.controls.resume(time.time(), stage=None if stage is None else Stage(stage))

    def limits(self) -> Limits:
        """As somebody set them while it runs, or else as the workers' settings say."""
        with _reachable():
            return self._store.controls.limits()

    def set_limits(self, **limits: float | None) -> Limits:
        """Set `in_flight`, `submit_rate` (POSTs a minute) or `credit_floor` for all workers, now; None goes
        back to their settings. Raises ValueError."""
        with _reachable():
            self._store.controls.set_limits(**limits)
            return self._store.controls.limits()

    def limit_batch(
        self,
        name: str,
        *,
        paused: bool | None = None,
        max_credits: int | None = None,
        max_in_flight: int | None = None,
    ) -> bool:
        """Set what one batch may do, beginning with jobs that are admitted from now on; None leaves it as it is.

        It may be set before the batch has jobs. False if all was so already. Raises ValueError.
        """
        with _reachable():
            return self._store.limit_batch(name, paused=paused, max_credits=max_credits, max_in_flight=max_in_flight)

    def call_back_batch(self, name: str, url: str | None) -> None:
        """Where it is told, from now on, each time that all jobs of this batch have come to rest; None: nowhere.

        It may be set before the batch has jobs. Raises ValueError.
        """
        with _reachable():
            self._store.callbacks.set_batch_url(name, url)

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    def callbacks(self, *, undelivered: bool = False) -> Iterator[Callback]:
        """Callbacks that are pending, whose time comes first, first; or those that were given up."""
        found = self._store.callbacks.undelivered() if undelivered else self._store.callbacks.pending()
        while page := self._callback_page(found):
            yield from page

    @staticmethod
    def _callback_page(found: Iterator[Callback]) -> list[Callback]:
        with _reachable():
            return list(islice(found, CHUNK))

    def callback(self, callback_id: str) -> Callback | None:
        """One callback; None once it is delivered."""
        with _reachable():
            return next(iter(self._store.callbacks.get([callback_id])), None)

    def callback_counts(self) -> CallbackCounts:
        """How many callbacks there are."""
        with _reachable():
            return self._store.callbacks.counted(time.time() - 15)

    def redeliver(self, callback_ids: Iterable[str]) -> int:
        """Deliver callbacks that were given up, or are pending, now; gives how many there were of them."""
        rest, found = iter(callback_ids), 0
        while page := list(islice(rest, CHUNK)):
            with _reachable():
                found += sum(self._store.callbacks.redeliver(page, time.time()))
        return found

    # ── archive ────────────────────────────────────────────────────────────────────────────────

    def archive(self, *, failed: bool = False) -> Iterator[ToArchive]:
        """Jobs whose songs are to be archived, whose time comes first, first; or those that were given up."""
        found = self._store.archive.failed() if failed else self._store.archive.pending()
        while page := self._archive_page(found):
            yield from page

    @staticmethod
    def _archive_page(found: Iterator[ToArchive]) -> list[ToArchive]:
        with _reachable():
            return list(islice(found, CHUNK))

    def archive_counts(self) -> ArchiveCounts:
        """Of how many jobs the songs are to be archived, were given up, and were archived."""
        with _reachable():
            return self._store.archive.counted(time.time() - 15)

    def archive_again(self, job_ids: Iterable[str]) -> int:
        """Archive the songs of these jobs from now on, be it that they were given up or never meant to be; gives
        how many are to be archived now: not those without songs, nor those that are archived."""
        rest, found = iter(job_ids), 0
        while page := list(islice(rest, CHUNK)):
            with _reachable():
                found += sum(self._store.archive.again(page, time.time()))
        return found

    def archive_missing(self, batch: str | None = None) -> int:
        """Archive all songs that were never meant to be: those that came before there was an archive.

        Gives how many jobs that are, of one batch or of all. Raises UnknownBatch.
        """
        having_songs = (each for state in FINAL for each in self.jobs(state=state, batch=batch) if each.clips)
        return self.archive_again(each.id for each in having_songs if each.archive is None)

    # ── changing ───────────────────────────────────────────────────────────────────────────────

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises NotAllowed.

        What upstream already works on was paid and goes on there; if the result comes, the job keeps it.
        """
        return self._change(job_id, changes.cancel)

    def cancel_as_read(self, jobs: Iterable[Job]) -> list[bool]:
        """Cancel many jobs as they were when they were read; False for one that has moved since."""
        now = time.time()
        moves = [changes.cancel(job, now) for job in jobs]
        with _reachable():
            return [written for page in _pages(moves) for written in self._store.apply(page, now)]

    def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Let a failed job go on at the first stage that has no result. Raises NotAllowed.

        What was paid and may still come is asked for again, free, unless `resubmit` says to order it
        anew; nothing that has a result is bought again.
        """
        return self._change(job_id, partial(changes.retry, resubmit=resubmit))

    def retry_as_read(self, jobs: Iterable[Job], *, resubmit: bool = False) -> list[bool]:
        """Retry many failed jobs as they were when they were read; False for one that has changed since."""
        now = time.time()
        moves = [changes.retry(job, now, resubmit=resubmit) for job in jobs]
        with _reachable():
            return [written for page in _pages(moves) for written in self._store.apply(page, now)]

    def take_up(self, job_id: str, task_id: str) -> Job:
        """Give an unsure job the task id of its order: it was charged, and is asked about. Raises NotAllowed."""
        return self._change(job_id, partial(changes.take_up, task_id=task_id))

    def order_again(self, job_id: str) -> Job:
        """Send the request of an unsure job again, which may cost its stage a second time. Raises NotAllowed."""
        return self._change(job_id, changes.order_again)

    def abandon(self, job_id: str) -> Job:
        """Give up on an unsure job: it fails with the code `abandoned`. Raises NotAllowed."""
        return self._change(job_id, changes.abandon)

    # ── mending ────────────────────────────────────────────────────────────────────────────────

    def audit(self) -> list[Finding]:
        """Every index and counter that does not agree with the job records; none is what one hopes for."""
        with _reachable():
            return audit(self._redis, self._prefix)

    def repair(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mend what `audit` found, and give what was mended; jobs that have moved on since are left alone."""
        with _reachable():
            return repair(self._redis, self._prefix, findings, time.time())

    def _change(self, job_id: str, decide: Callable[[Job, float], Move]) -> Job:
        while True:
            now = time.time()
            move = decide(self.get(job_id), now)
            with _reachable():
                [written] = self._store.apply([move], now)
            if written:
                return self.get(job_id)


def _pages(moves: list[Move]) -> Iterator[list[Move]]:
    return (moves[start : start + CHUNK] for start in range(0, len(moves), CHUNK))


@contextmanager
def _reachable() -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    except REFUSED as error:
        raise StoreUnreachable(f"Redis refuses: {type(error).__name__}") from error
    except UNREACHABLE as error:
        tried = f"tried for {time.monotonic() - began:.0f} s"
        raise StoreUnreachable(f"Redis does not answer: {type(error).__name__}, {tried}") from error
    except ResponseError as error:  # out of memory, read only, no such database …
        words, _, _ = str(error).partition(", with args")
        raise StoreUnreachable(f"Redis refuses: {words}") from error
