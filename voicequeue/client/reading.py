"""Reading: jobs, batches, voices, and the state of the queue. The other groups of methods build on this one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from voicequeue.client import search
from voicequeue.client.search import Filter, Page
from voicequeue.domain.balance import Balance
from voicequeue.domain.job import ACTIVE, Job, State, Step
from voicequeue.domain.portions import CHUNK
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, Status
from voicequeue.errors import UnknownBatch, UnknownJob
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.job_store import Store
from voicequeue.storage.monitoring.throughput import Stretch
from voicequeue.storage.personas import Persona

T = TypeVar("T")

#: The pace is the average over this many seconds.
PACE_S = 300.0


class ReadMethods:
    """Methods of `VoiceQueue` that read."""

    _store: Store

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str) -> Job:
        """Return the job as it is now.

        Raises:
            UnknownJob: No job has this id.
        """
        with reachable():
            [job] = self._store.get([job_id])
        if job is None:
            raise UnknownJob(job_id)
        return job

    def timeline(self, job_id: str) -> list[Step]:
        """Return every transition of the job, the oldest first.

        Raises:
            UnknownJob: No job has this id.
        """
        with reachable():
            entries = self._store.timeline(job_id)
        if not entries:
            raise UnknownJob(job_id)
        return entries

    def jobs(self, *, state: State | str | None = None, batch: str | None = None) -> Iterator[Job]:
        """Yield jobs, read a page at a time.

        Jobs of a batch are yielded in the order in which they were enqueued, jobs of a state by the latest to enter it.

        Args:
            state: Only jobs in this state.
            batch: Only jobs of this batch.

        Raises:
            UnknownBatch: No job is in this batch. Raised by the call itself.
        """
        only_state = None if state is None else State(state)
        if batch is not None:
            self.batch(batch)
        return self._read_jobs(only_state, batch)

    def _read_jobs(self, state: State | None, batch: str | None) -> Iterator[Job]:
        job_ids = self._store.ids(state=state, batch=batch)
        while page := self._job_page(job_ids):
            yield from (job for job in page if job is not None)

    def _job_page(self, job_ids: Iterator[str]) -> list[Job | None]:
        with reachable():
            return self._store.get(list(islice(job_ids, CHUNK)))

    def find(self, wanted: Filter, *, limit: int = 100, cursor: str | None = None) -> Page[Job]:
        """Return a page of the jobs that match a filter.

        A page may hold fewer than `limit` jobs, even none, and still have a next page: only the last one has no cursor.

        Args:
            wanted: The filter; `Filter()` matches every job.
            limit: Jobs on the page at most.
            cursor: The cursor of the page before. None returns the first page.

        Raises:
            UnknownBatch: No job is in the batch of the filter.
            BadCursor: The cursor is not one of this list and filter.
        """
        if wanted.batch is not None:
            self.batch(wanted.batch)
        with reachable():
            return search.page(self._store, wanted, limit=limit, cursor=cursor)

    def waits_for(self, job: Job) -> str | None:
        """Return the id of the job that creates the voice which a `waiting` job needs; None for any other job."""
        if job.state is not State.WAITING or job.shares is None:
            return None
        with reachable():
            return self._store.voices.maker(job.shares)

    # ── batches ────────────────────────────────────────────────────────────────────────────────

    def batch(self, name: str) -> Batch:
        """Return the counters and limits of a batch.

        Raises:
            UnknownBatch: No job is in this batch.
        """
        with reachable():
            batch = self._store.batch(name)
        if batch is None:
            raise UnknownBatch(name)
        return batch

    def batches(self) -> list[Batch]:
        """Return every batch, the newest first."""
        with reachable():
            batches = [self._store.batch(name) for name in self._store.batches()]
        return [batch for batch in batches if batch is not None]  # None: purged since its name was read

    def find_batches(self, *, limit: int = 100, cursor: str | None = None) -> Page[Batch]:
        """Return a page of the batches, the newest first.

        Raises:
            BadCursor: The cursor is not one of this list.
        """
        with reachable():
            return search.batches(self._store, limit=limit, cursor=cursor)

    # ── the queue ──────────────────────────────────────────────────────────────────────────────

    def status(self, batch: str | None = None) -> Status:
        """Return an overview of the queue: states, gate, slots, backlog, credits, workers.

        Args:
            batch: Count states, backlog and credits of this batch only.

        Raises:
            UnknownBatch: No job is in this batch.
        """
        if batch is not None:
            self.batch(batch)
        now, store = self._now(), self._store
        with reachable():
            backlog = store.lines(batch)
            states = store.counts(batch, backlog)
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
                backlog=tuple(backlog),
                failures=store.failures() if batch is None else {},
                refused=tuple(store.controls.refused(batch)),
                rejects=store.rejects.count() if batch is None else 0,
                callbacks=store.callbacks.counted(now - HEARTBEAT_TIMEOUT_S) if batch is None else CallbackCounts(),
                archive=store.archive.counted(now - HEARTBEAT_TIMEOUT_S) if batch is None else ArchiveCounts(),
                pace=pace,
                seconds_left=unsettled * 60 / pace if pace else None,
                at=now,
            )

    def trend(self, *, span_s: float = 3600.0, stretches: int = 60) -> list[Stretch]:
        """Return how many jobs finished over time and how long they took, the oldest interval first.

        Args:
            span_s: The period, up to now, in seconds.
            stretches: Number of equal intervals into which it is divided.
        """
        with reachable():
            return self._store.trend(self._now(), span_s=span_s, stretches=stretches)

    def balances(self) -> list[Balance]:
        """Return the account balances that upstream reported in the last days, the oldest first."""
        with reachable():
            return self._store.controls.balances()

    # ── voices ─────────────────────────────────────────────────────────────────────────────────

    def personas(self) -> Iterator[Persona]:
        """Yield the voices that were created and can be shared, the latest first, read a page at a time."""
        return paged(self._store.voices.made())

    def forget_persona(self, persona_id: str) -> bool:
        """Stop sharing a voice, because upstream has deleted it. Returns whether the voice was known."""
        with reachable():
            return self._store.voices.forget(persona_id) > 0

    def _now(self) -> float:
        """Return the time of the queue (Unix seconds)."""
        with reachable():
            return self._store.clock()


def paged(items: Iterator[T]) -> Iterator[T]:
    """Yield items that the store reads lazily. Raises StoreUnreachable."""
    while page := _next_page(items):
        yield from page


def _next_page(items: Iterator[T]) -> list[T]:
    with reachable():
        return list(islice(items, CHUNK))
