"""The producer's face of the queue: put jobs in, ask what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import islice
from typing import Any

from voicequeue.client import bulk_operations, cancelling, search
from voicequeue.client.bulk_operations import Action, Done, Plan
from voicequeue.client.orders import name_order
from voicequeue.client.results import Entry, Placed, Receipt, Rejection, entered
from voicequeue.client.search import Filter, Page
from voicequeue.domain import transitions
from voicequeue.domain.balance import Balance
from voicequeue.domain.charge_review import Unsure, known
from voicequeue.domain.gate import Limits
from voicequeue.domain.job import ACTIVE, FINAL, Event, Job, Move, State, Step
from voicequeue.domain.origin import Origin
from voicequeue.domain.portions import CHUNK, portions, weight
from voicequeue.domain.spec import VoiceJob, parse
from voicequeue.domain.stage import Stage
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, Status
from voicequeue.errors import (
    InvalidJob,
    NotAllowed,
    UnknownBatch,
    UnknownJob,
    checked,
    detached,
)
from voicequeue.storage.archive import ToArchive
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.findings import Finding
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.connection.retry import no_later_than
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.job_store import Store
from voicequeue.storage.monitoring.throughput import Stretch
from voicequeue.storage.personas import Persona
from voicequeue.storage.preview import Foreseen
from voicequeue.storage.rejected_messages import KEPT, RejectedMessage
from voicequeue.texts import whole

#: The jobs that were asked for, with their ids; or what is wrong with what was asked for.
Order = list[tuple[str, VoiceJob]] | InvalidJob

#: What `enqueue` takes: a job, or its fields as a mapping (JSON, a row).
Enqueueable = VoiceJob | Mapping[str, Any]

#: The pace is measured over so many seconds.
PACE_S = 300.0

#: One look for events takes so long (seconds) at most.
_LISTEN_S = 5.0

DEFAULT_URL = "redis://localhost:6379/0"


class VoiceQueue:
    """The queue behind one Redis.

    It needs Redis alone. Every method raises `StoreUnreachable` if Redis does not answer, or refuses.
    With `wait_for_redis_s` each call to a Redis that is away, restarting, reading its file or refusing for now (a
    failover, no memory left) is tried again for that many seconds first (without: for half a second); `math.inf` tries
    for ever. A job is written once however often its call is tried, and counted as new by the call that wrote it.

    With `reuse` jobs that do not say share their voice with others on the same recording. `app` is the name of the
    program that enqueues; its jobs have the origin `library:app`.

    Raises ValueError for a `url`, a `prefix` or a time that cannot be one.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        prefix: str = DEFAULT_PREFIX,
        wait_for_redis_s: float = 0.0,
        reuse: bool = False,
        app: str = "",
    ) -> None:
        self._origin = Origin.LIBRARY.of(app)
        if not wait_for_redis_s >= 0:
            raise ValueError("the seconds to wait for Redis must be a number, 0 or more")
        self._redis = connect(url, wait_s=wait_for_redis_s)
        self._store = Store(self._redis, prefix, reuse=reuse)
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

        With several songs it is several jobs, of which the one that makes the voice is given. Raises InvalidJob,
        KeyConflict.
        """
        return self.get(self._enqueued(job).job_id)

    def place(self, job: Enqueueable) -> Placed:
        """The same, and tell whether it is new, where it stands and what it costs. Raises InvalidJob, KeyConflict."""
        entry = self._enqueued(job)
        found = self.get(entry.job_id)
        with reachable():
            ahead = self._store.lookup.ahead(found.id, found.spec.priority, found.spec.batch or "")
        if ahead is None and found.state is State.QUEUED:  # it was admitted in between
            found = self.get(found.id)
        cost = entry.credits if entry.new else parse(job).credits
        return Placed(found, entry.new > 0, None if ahead is None else ahead + 1, cost, entry.job_ids[1:])

    def _enqueued(self, job: Enqueueable) -> Entry:
        [entry] = self.enqueue_at_once([job])
        if entry.error is not None:
            raise entry.error
        return entry

    def enqueue_at_once(self, jobs: Sequence[Enqueueable]) -> list[Entry]:
        """Put some jobs into the backlog, with one call to Redis for each 500 or 1,048,576 characters; gives what
        became of each, in their order."""
        return [
            entry
            for chunk in portions(map(_parsed, jobs), weight)
            for entry in _Chunk(self._store, chunk, self._origin).entries()
        ]

    def enqueue_many(
        self, jobs: Iterable[Enqueueable], *, on_reject: Callable[[Rejection], None] | None = None
    ) -> Receipt:
        """Put any number of jobs into the backlog; memory stays flat however many there are.

        A job that cannot be taken is given to `on_reject` (without it: kept in the receipt), and
        the others go on. Calling again after a fault is safe for jobs that have a key.
        """
        receipt, begun = Receipt(), 0
        reject = on_reject or receipt.rejections.append
        for entries in self._enqueued_chunks(iter(jobs)):
            for index, entry in enumerate(entries, start=begun):
                receipt.add(entry)
                if entry.error is not None:
                    reject(Rejection(index, entry.error))
            begun += len(entries)
        return receipt

    def _enqueued_chunks(self, jobs: Iterator[Enqueueable]) -> Iterator[list[Entry]]:
        """What became of each of the jobs; while Redis takes some, the next are made ready."""
        sent: _Chunk | None = None
        try:
            for chunk in portions(map(_parsed, jobs), weight):
                ready = _Chunk(self._store, chunk, self._origin)
                before, sent = sent, None
                if before is not None:
                    yield before.entries()
                ready.begin()
                sent = ready
        finally:
            last = sent.entries() if sent is not None else []
        yield last

    def preview(self, jobs: Iterable[Enqueueable]) -> Iterator[Foreseen]:
        """What `enqueue_many` would do with each of these jobs, in their order, without doing it.

        One round trip for 500 jobs or 1,048,576 characters. What shares a voice that is there, or made by an earlier
        job, costs its song alone.
        """
        preview = self._store.preview()
        for given in portions(map(_parsed, jobs), weight):
            with reachable():
                found = iter(preview.foresee([spec for spec in given if isinstance(spec, VoiceJob)]))
            yield from (next(found) if isinstance(spec, VoiceJob) else Foreseen(error=spec) for spec in given)

    # ── asking ─────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str) -> Job:
        """The job as it stands now. Raises UnknownJob."""
        with reachable():
            [job] = self._store.get([job_id])
        if job is None:
            raise UnknownJob(job_id)
        return job

    def timeline(self, job_id: str) -> list[Step]:
        """Every move of the job, oldest first. Raises UnknownJob."""
        with reachable():
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
        with reachable():
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
            with reachable():
                events = self._store.events(after, wait_s=until - now)
            for event in events:
                after = event.id
                if event.job_id == job_id:
                    return after
        return after

    def first_event(self) -> str:
        """The id of the oldest event that can still be heard; `0-0` where there is none."""
        with reachable():
            return self._store.lookup.first_event()

    def last_event(self) -> str:
        """The id of the newest event, to hear on from; `0-0` where there is none."""
        with reachable():
            return self._store.last_event()

    def events(self, after: str, *, wait_s: float = 0.0) -> list[Event]:
        """Moves of all jobs after that event, waiting up to `wait_s` seconds for the first; [] if none came.

        The last 20,000 or so can be heard.
        """
        with reachable():
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
        with reachable():
            return self._store.get(list(islice(ids, CHUNK)))

    def find(self, wanted: Filter, *, limit: int = 100, cursor: str | None = None) -> Page[Job]:
        """A page of the jobs that match, from where `cursor` of the page before says.

        It may hold fewer than `limit`, even none, and yet not be the last: that one has no cursor.
        Raises UnknownBatch, BadCursor.
        """
        if wanted.batch is not None:
            self.batch(wanted.batch)
        with reachable():
            return search.page(self._store, wanted, limit=limit, cursor=cursor)

    def find_batches(self, *, limit: int = 100, cursor: str | None = None) -> Page[Batch]:
        """A page of the batches, the newest first. Raises BadCursor."""
        with reachable():
            return search.batches(self._store, limit=limit, cursor=cursor)

    def balances(self) -> list[Balance]:
        """What upstream said was left on the account in the last days, oldest first."""
        with reachable():
            return self._store.controls.balances()

    def unsure(self) -> Iterator[Unsure]:
        """The jobs of which nobody knows whether they were charged, each with what is known of it."""
        balances = self.balances()
        for job in self.jobs(state=State.UNSURE):
            if (found := known(job, self.timeline(job.id), balances)) is not None:
                yield found

    def review(self, job_id: str) -> Unsure:
        """What is known of an unsure job. Raises UnknownJob, NotAllowed."""
        job = self.get(job_id)
        found = known(job, self.timeline(job_id), self.balances())
        if job.state is not State.UNSURE or found is None:
            raise NotAllowed(f"only an unsure job can be reviewed; job {job.id} is {job.state}")
        return found

    def trend(self, *, span_s: float = 3600.0, stretches: int = 60) -> list[Stretch]:
        """How many jobs were finished in the last `span_s` seconds, and how long they took; the oldest first."""
        with reachable():
            return self._store.trend(self._now(), span_s=span_s, stretches=stretches)

    def rejects(self, limit: int = KEPT) -> list[RejectedMessage]:
        """Messages from other Celery clients that became no job, the newest first; the last 1,000 are kept."""
        with reachable():
            return self._store.rejects.latest(limit)

    def clear_rejects(self) -> list[RejectedMessage]:
        """Keep the rejected messages no longer; gives them for the last time."""
        with reachable():
            return self._store.rejects.take()

    def personas(self) -> Iterator[Persona]:
        """The voices that were made, the latest first. Read a page at a time."""
        found = self._store.voices.made()
        while page := self._personas(found):
            yield from page

    @staticmethod
    def _personas(found: Iterator[Persona]) -> list[Persona]:
        with reachable():
            return list(islice(found, CHUNK))

    def forget_persona(self, persona_id: str) -> bool:
        """Take this voice for no further job, for upstream does not know it any more. False if none has it."""
        with reachable():
            return self._store.voices.forget(persona_id) > 0

    def waits_for(self, job: Job) -> str | None:
        """The id of the job that makes the voice which a waiting one is to have; None where none does."""
        if job.state is not State.WAITING or job.shares is None:
            return None
        with reachable():
            return self._store.voices.maker(job.shares)

    def batch(self, name: str) -> Batch:
        """A batch as it stands now. Raises UnknownBatch."""
        with reachable():
            found = self._store.batch(name)
        if found is None:
            raise UnknownBatch(name)
        return found

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        with reachable():
            # One may be purged while they are read.
            return [found for name in self._store.batches() if (found := self._store.batch(name)) is not None]

    def status(self, batch: str | None = None) -> Status:
        """The whole queue at a glance, or one batch of it. Raises UnknownBatch."""
        if batch is not None:
            self.batch(batch)
        now, store = self._now(), self._store
        with reachable():
            lines = store.lines(batch)
            states = store.counts(batch, lines)
            pace = store.finished(now - PACE_S) * 60 / PACE_S
            unsettled = sum(states[state] for state in ACTIVE)
            return Status(
                states=states,
                gate=store.controls.gate(now),
                in_flight=store.in_flight(),
                limit=store.controls.flow().limit,
                credits=store.credits(batch),
                workers=len(store.pulses["worker"].alive(now)),
                account=store.controls.account(now),
                backlog=tuple(lines),
                failures=store.failures() if batch is None else {},
                refused=tuple(store.controls.refused(batch)),
                rejects=store.rejects.count() if batch is None else 0,
                callbacks=store.callbacks.counted(now - HEARTBEAT_TIMEOUT_S) if batch is None else CallbackCounts(),
                archive=store.archive.counted(now - HEARTBEAT_TIMEOUT_S) if batch is None else ArchiveCounts(),
                pace=pace,
                seconds_left=unsettled * 60 / pace if pace else None,
                at=now,
            )

    # ── steering ───────────────────────────────────────────────────────────────────────────────

    def pause(self, *, stage: Stage | str | None = None, batch: str | None = None, by: str = "") -> bool:
        """Charge nothing more: of anything, of one stage, or of one batch. False if it was so already.

        What is in flight is polled as ever. `by` is told to whoever asks why. Raises UnknownBatch, InvalidJob.
        """
        checked("by", whole, by)
        if batch is not None:
            return self.limit_batch(self.batch(batch).name, paused=True)
        with reachable():
            return self._store.controls.pause(self._now(), stage=None if stage is None else Stage(stage), by=by)

    def resume(self, *, stage: Stage | str | None = None, batch: str | None = None) -> bool:
        """Go on, and try what is held back for other reasons. False if nothing was. Raises UnknownBatch."""
        if batch is not None:
            return self.limit_batch(self.batch(batch).name, paused=False)
        with reachable():
            return self._store.controls.resume(self._now(), stage=None if stage is None else Stage(stage))

    def limits(self) -> Limits:
        """As somebody set them while it runs, or else as the workers' settings say."""
        with reachable():
            return self._store.controls.limits()

    def set_limits(self, **limits: float | None) -> Limits:
        """Set `in_flight`, `submit_rate` (POSTs a minute) or `credit_floor` for all workers, now; None goes
        back to their settings. Raises ValueError."""
        with reachable():
            self._store.controls.set_limits(**limits)
            return self._store.controls.limits()

    def limit_batch(
        self,
        name: str,
        *,
        paused: bool | None = None,
        max_credits: float | None = None,
        max_in_flight: float | None = None,
    ) -> bool:
        """Set what one batch may do; it holds at each order from now on. None leaves it as it is, `math.inf` sets no
        limit.

        It may be set before the batch has jobs. False if all was so already. Raises ValueError.
        """
        with reachable():
            return self._store.limit_batch(name, paused=paused, max_credits=max_credits, max_in_flight=max_in_flight)

    def call_back_batch(self, name: str, url: str | None) -> None:
        """Where it is told, from now on, each time that all jobs of this batch have come to rest; None: nowhere.

        It may be set before the batch has jobs. Raises ValueError.
        """
        with reachable():
            self._store.callbacks.set_batch_url(name, url, origin=self._origin)

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    def callbacks(self, *, undelivered: bool = False) -> Iterator[Callback]:
        """Callbacks that are pending, whose time comes first, first; or those that were given up."""
        found = self._store.callbacks.undelivered() if undelivered else self._store.callbacks.pending()
        while page := self._callback_page(found):
            yield from page

    @staticmethod
    def _callback_page(found: Iterator[Callback]) -> list[Callback]:
        with reachable():
            return list(islice(found, CHUNK))

    def callback(self, callback_id: str) -> Callback | None:
        """One callback; None once it is delivered."""
        with reachable():
            return next(iter(self._store.callbacks.get([callback_id])), None)

    def callback_counts(self) -> CallbackCounts:
        """How many callbacks there are."""
        with reachable():
            return self._store.callbacks.counted(self._now() - HEARTBEAT_TIMEOUT_S)

    def redeliver(self, callback_ids: Iterable[str]) -> int:
        """Deliver callbacks that were given up, or are pending, now; gives how many there were of them."""
        rest, found = iter(callback_ids), 0
        while page := list(islice(rest, CHUNK)):
            with reachable():
                found += sum(self._store.callbacks.redeliver(page, self._now()))
        return found

    # ── archive ────────────────────────────────────────────────────────────────────────────────

    def archive(self, *, failed: bool = False) -> Iterator[ToArchive]:
        """Jobs whose songs are to be archived, whose time comes first, first; or those that were given up."""
        found = self._store.archive.failed() if failed else self._store.archive.pending()
        while page := self._archive_page(found):
            yield from page

    @staticmethod
    def _archive_page(found: Iterator[ToArchive]) -> list[ToArchive]:
        with reachable():
            return list(islice(found, CHUNK))

    def archive_counts(self) -> ArchiveCounts:
        """Of how many jobs the songs are to be archived, were given up, and were archived."""
        with reachable():
            return self._store.archive.counted(self._now() - HEARTBEAT_TIMEOUT_S)

    def archive_again(self, job_ids: Iterable[str]) -> int:
        """Archive the songs of these jobs from now on, be it that they were given up or never meant to be; gives
        how many are to be archived now: not those without songs, nor those that are archived."""
        rest, found = iter(job_ids), 0
        while page := list(islice(rest, CHUNK)):
            with reachable():
                found += sum(self._store.archive.again(page, self._now()))
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

        What upstream already works on was paid and goes on there; if the result comes, the job keeps it. A job whose
        order is on its way, or was lost, is marked (`cancelling`): no further stage is ordered, and it is cancelled as
        soon as it is known what became of the order.
        """
        while True:
            now, job = self._now(), transitions.not_over(self.get(job_id))
            if job.cancelling:
                return job
            with reachable():
                if job.state in transitions.UNDER_WAY:
                    [done] = self._store.withdraw([job], now)
                else:
                    [done] = self._store.apply([transitions.cancel(job, now)], now)
            if done:
                return self.get(job_id)

    def cancel_as_read(self, jobs: Iterable[Job]) -> list[Job]:
        """Cancel many jobs, or mark them as `cancel` does, also where they have moved on since they were read; what is
        over stays so. Gives them as they are then."""
        with reachable():
            return cancelling.cancel(self._store, list(jobs), self._now())

    def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Let a failed job go on at the first stage that has no result. Raises NotAllowed.

        What was paid and may still come is asked for again, free, unless `resubmit` says to order it
        anew; nothing that has a result is bought again.
        """
        return self._change(job_id, partial(transitions.retry, resubmit=resubmit))

    def retry_as_read(self, jobs: Iterable[Job], *, resubmit: bool = False) -> list[bool]:
        """Retry many failed jobs as they were when they were read; False for one that has changed since."""
        now = self._now()
        moves = [transitions.retry(job, now, resubmit=resubmit) for job in jobs]
        with reachable():
            return self._store.apply(moves, now)

    def plan(self, action: Action | str, wanted: Filter, *, resubmit: bool = False) -> Plan:
        """Freeze the list of jobs that `cancel` or `retry` would be done to, and say what that costs.

        Nothing is changed before `carry_out`. Raises UnknownBatch.
        """
        if wanted.batch is not None:
            self.batch(wanted.batch)
        with reachable():
            return bulk_operations.draw_up(self._store, Action(action), wanted, self._now(), resubmit=resubmit)

    def carry_out(self, action: Action | str, token: str) -> Done:
        """Do what was planned to each job of that list that has not changed since. Raises UnknownPlan."""
        with reachable():
            return bulk_operations.carry_out(self._store, Action(action), token, self._now())

    def take_up(self, job_id: str, task_id: str) -> Job:
        """Give a job the task id of its unsure order, or of one that was lost before. Raises InvalidJob, NotAllowed.

        Its charge is counted. The job continues with it, unless a newer order was sent.
        """
        order = transitions.lost_order(self.get(job_id), task_id)
        now = self._now()
        with reachable():
            name_order(self._store, order, now, reason="somebody gave the task id")
        return self.get(job_id)

    def order_again(self, job_id: str) -> Job:
        """Send the request of an unsure job again, which may cost its stage a second time. Raises NotAllowed."""
        return self._change(job_id, transitions.order_again)

    def abandon(self, job_id: str) -> Job:
        """Give up on an unsure job: it fails with the code `abandoned`. Raises NotAllowed."""
        return self._change(job_id, transitions.abandon)

    # ── mending ────────────────────────────────────────────────────────────────────────────────

    def audit(self) -> list[Finding]:
        """Every index and counter that does not agree with the job records; none is what one hopes for."""
        with reachable():
            return audit(self._redis, self._prefix)

    def repair(self, findings: Sequence[Finding]) -> list[Finding]:
        """Mend what `audit` found, and give what was mended; jobs that have moved on since are left alone."""
        with reachable():
            return repair(self._redis, self._prefix, findings, self._now())

    def _now(self) -> float:
        """Return the queue's time. Raises StoreUnreachable."""
        with reachable():
            return self._store.clock()

    def _change(self, job_id: str, decide: Callable[[Job, float], Move]) -> Job:
        while True:
            now = self._now()
            move = decide(self.get(job_id), now)
            with reachable():
                [written] = self._store.apply([move], now)
            if written:
                return self.get(job_id)


def entered_by(queue: VoiceQueue, origin: str) -> VoiceQueue:
    """Return the same queue for a door: what is enqueued with it has that origin (voicequeue/domain/origin.py)."""
    door = copy(queue)
    door._origin = origin
    return door


class _Chunk:
    """Jobs of one call to Redis, of which any may be none or, with several songs, many."""

    def __init__(self, store: Store, jobs: Sequence[VoiceJob | InvalidJob], origin: str) -> None:
        self._orders = [_order(job) for job in jobs]
        flat = [job for order in self._orders if not isinstance(order, InvalidJob) for job in order]
        with reachable():
            self._call = store.enqueueing(flat, store.clock(), origin=origin) if flat else None

    def begin(self) -> None:
        """Have Redis take them."""
        if self._call is not None:
            self._call.begin()

    def entries(self) -> list[Entry]:
        """What became of each. Raises StoreUnreachable."""
        with reachable():
            told = iter(self._call.outcomes() if self._call is not None else [])
        return [
            Entry(error=order) if isinstance(order, InvalidJob) else entered(order, list(islice(told, len(order))))
            for order in self._orders
        ]


def _parsed(given: Enqueueable) -> VoiceJob | InvalidJob:
    try:
        return parse(given)
    except InvalidJob as error:
        return detached(error)


def _order(given: VoiceJob | InvalidJob) -> Order:
    return given if isinstance(given, InvalidJob) else [(job.id(), job) for job in given.each()]
