"""Reading: jobs, batches, voices, and the state of the queue. The other groups of methods build on this one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeVar

from voicequeue.client import search
from voicequeue.client.batches import BatchMethods, require_positive
from voicequeue.client.search import Filter, Page
from voicequeue.client.sorted_search import Sort, sorted_page
from voicequeue.domain.api_keys import from_record
from voicequeue.domain.balance import Balance
from voicequeue.domain.job import Job, TimelineEntry
from voicequeue.domain.job_holds import JobHold, JobHoldReason, count_by_hold, gate_holds
from voicequeue.domain.namespaces import ALL, named_in
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.domain.states import ACTIVE, State
from voicequeue.domain.status import ArchiveCounts, CallbackCounts, Status
from voicequeue.errors import JobNotFoundError, NotOperatorError
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import Actor
from voicequeue.storage.counters import failures_by_code
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.audit_log import AuditEntry, AuditFilter
from voicequeue.storage.monitoring.throughput import TimeBucket

T = TypeVar("T")


class ReadMethods(BatchMethods):
    """Methods of `VoiceQueue` that read."""

    _store: JobStore
    _actor: Actor

    @property
    def namespace(self) -> str:
        """The namespace of this client; `*` for all."""
        return self._store.scope.namespace

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces in which anything was enqueued, and the default one, '', first.

        A client in one namespace gets its own only.
        """
        with translated_errors():
            return self._store.namespaces()

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def get(self, job_id: str) -> Job:
        """Return the job as it is now.

        Args:
            job_id: Id of the job.

        Raises:
            JobNotFoundError: No job has this id.
        """
        with translated_errors():
            [job] = self._store.get([job_id])
        if job is None:
            raise JobNotFoundError(job_id)
        return job

    def timeline(self, job_id: str) -> list[TimelineEntry]:
        """Return every transition of the job, the oldest first.

        Args:
            job_id: Id of the job.

        Raises:
            JobNotFoundError: No job has this id.
        """
        with translated_errors():
            entries = self._store.timeline(job_id)
        if not entries:
            raise JobNotFoundError(job_id)
        return entries

    def jobs(self, *, state: State | str | None = None, batch: str | None = None) -> Iterator[Job]:
        """Yield jobs, read a page at a time.

        Jobs of a batch are yielded in the order in which they were enqueued, jobs of a state by the latest to enter it;
        jobs of all namespaces one namespace after the other.

        Args:
            state: Only jobs in this state, such as `queued`. None yields jobs in all states.
            batch: Only jobs of this batch. None yields jobs of all batches and of none.

        Raises:
            BatchNotFoundError: No job is in this batch.
            ValueError: `state` is unknown.
        """
        only_state = None if state is None else State(state)
        if batch is not None:
            self.batch(batch)
        return self._read_jobs(only_state, batch)

    def _require_operator(self, action: str) -> None:
        """Raise NotOperatorError if this client is limited to one namespace."""
        if not self._store.scope.is_all:
            raise NotOperatorError(action)

    def _read_jobs(self, state: State | None, batch: str | None) -> Iterator[Job]:
        job_ids = self._store.list_ids(state=state, batch=batch)
        while page := self._job_page(job_ids):
            yield from (job for job in page if job is not None)

    def _job_page(self, job_ids: Iterator[str]) -> list[Job | None]:
        with translated_errors():
            return self._store.get(list(islice(job_ids, PORTION_JOBS_MAX)))

    def search(
        self, filter: Filter, *, limit: int = 100, cursor: str | None = None, sort: Sort | None = None
    ) -> Page[Job]:
        """Return a page of the jobs that match a filter.

        A page may hold fewer than `limit` jobs, even none, and still have a next page: only the last one has no cursor.

        Args:
            filter: The filter; `Filter()` matches every job.
            limit: Maximum number of jobs on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.
            sort: Order of the jobs: of a batch by `created`, of all others by `changed`. None: within a batch as
                enqueued, otherwise state by state.

        Raises:
            BatchNotFoundError: No job is in the batch of the filter.
            InvalidCursorError: The cursor is not one of this list, filter and order.
            InvalidJobError: These jobs cannot be sorted in this order.
            ValueError: `limit` is below 1, or `sort` is unknown.
        """
        require_positive("limit", limit)
        if filter.batch is not None:
            self.batch(filter.batch)
        with translated_errors():
            if sort is not None:
                return sorted_page(self._store, filter, Sort(sort), limit=limit, cursor=cursor)
            return search.search(self._store, filter, limit=limit, cursor=cursor)

    def voice_creator(self, job: Job) -> str | None:
        """Return the id of the job that creates the voice which a `waiting` job needs; None for any other job.

        Args:
            job: The job, as `get` returned it.
        """
        if job.state is not State.WAITING or job.shared_voice is None:
            return None
        with translated_errors():
            return self._store.personas.creator_of(job.shared_voice)

    def job_holds(self, job_id: str) -> list[JobHold]:
        """Return why a queued or waiting job is not submitted now, as admission decides it at this moment.

        An empty list: the job is in another state, or nothing holds it but its turn.

        Args:
            job_id: Id of the job.

        Raises:
            JobNotFoundError: No job has this id.
        """
        job = self.get(job_id)
        if job.state is State.WAITING:
            creator = self.voice_creator(job)
            return [] if creator is None else [JobHold(JobHoldReason.VOICE, f"job/{creator}")]
        if job.state is not State.QUEUED:
            return []
        now = self._now()
        with translated_errors():
            [own] = self._store.job_holds([job.id], now)
            return gate_holds(self._store.flow_control.gate(now).holds, job.stage) + own

    # ── the queue ──────────────────────────────────────────────────────────────────────────────

    def status(self, batch: str | None = None) -> Status:
        """Return an overview of the namespace: states, gate, slots, backlog, credits, workers.

        The gate and the slots are those of the whole queue. In one namespace, holds other than pauses have no details,
        and the account has no balance, because others use it, too.

        Args:
            batch: Count states, failures, backlog, credits and refused jobs of this batch only, and leave out rejected
                messages, stopped batches, callbacks and the archive. None counts all jobs.

        Raises:
            BatchNotFoundError: No job is in this batch.
        """
        if batch is not None:
            self.batch(batch)
        now, store = self._now(), self._store
        with translated_errors():
            backlog = store.lanes(batch)
            states = store.counts_by_state(batch, backlog)
            pace, unsettled = store.jobs_per_minute(now), sum(states[state] for state in ACTIVE)
            counts = store.counts(batch)
            holds = store.job_holds([lane.head_id for lane in backlog], now)
            gate = store.flow_control.gate(now)
            seconds_left = unsettled * 60 / pace if pace and gate.is_open else None
            if seconds_left is not None and any(it.lasts_beyond(now + seconds_left) for of in holds for it in of):
                seconds_left = None
            return Status(
                states=states,
                gate=gate,
                in_flight=store.count_in_flight(),
                in_flight_limit=store.flow_control.in_flight_limit().limit,
                credits=counts["credits"],
                workers=len(store.heartbeats["worker"].alive(now)),
                account=store.flow_control.account(now),
                backlog=tuple(backlog),
                backlog_holds=tuple(count_by_hold(holds, [lane.count for lane in backlog])),
                failures=failures_by_code(counts),
                refused_jobs=tuple(store.flow_control.refused_jobs(batch)),
                stopped_batches=tuple(store.stopped_batches()) if batch is None else (),
                rejected_messages=store.rejected_messages.count() if batch is None else 0,
                callbacks=store.callbacks.counts(now - HEARTBEAT_TIMEOUT_S) if batch is None else CallbackCounts(),
                archive=store.archive.counts(now - HEARTBEAT_TIMEOUT_S) if batch is None else ArchiveCounts(),
                jobs_per_minute=pace,
                seconds_left=seconds_left,
                at=now,
                namespace=store.scope.namespace,
            )

    def throughput(self, *, span_s: float = 3600.0, buckets: int = 60) -> list[TimeBucket]:
        """Return how many jobs finished over time and how long they took, the oldest interval first.

        Args:
            span_s: Length of the period, up to now, in seconds; above 0.
            buckets: Number of equal intervals into which it is divided; 1 or more.

        Raises:
            ValueError: A value is not positive.
        """
        require_positive("span_s", span_s)
        require_positive("buckets", buckets)
        with translated_errors():
            return self._store.throughput(self._now(), span_s=span_s, buckets=buckets)

    def balance_history(self) -> list[Balance]:
        """Return the account balances that upstream reported in the last days, the oldest first.

        Raises:
            NotOperatorError: The client is limited to one namespace.
        """
        self._require_operator("balance_history")
        with translated_errors():
            return self._store.flow_control.balances()

    def audit_log(
        self,
        *,
        since: float | None = None,
        actor: str | None = None,
        action: str | None = None,
        batch: str | None = None,
        job_id: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[AuditEntry]:
        """Return a page of the changes that people and programs made, the latest first.

        A page may have fewer entries than `limit`, even none, while `Page.cursor` is set.

        Args:
            since: Only changes at this time or later (Unix seconds).
            actor: Only changes by this actor, such as `key:shop`, or by all of a kind: `key`, `page`, `cli`, `library`.
            action: Only this action, such as `pause`.
            batch: Only changes of this batch.
            job_id: Only changes of this job, alone or among selected ones. Other bulk changes name their filter.
            limit: Maximum number of entries; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.

        Raises:
            InvalidCursorError: `cursor` is not a cursor of this list.
            ValueError: `limit` is not positive.
        """
        require_positive("limit", limit)
        with translated_errors():
            namespace, name = named_in(self.namespace, batch or "")
            entry_filter = AuditFilter(
                since=since,
                actor=actor,
                action=action,
                batch=name or None,
                namespace=None if namespace == ALL else namespace,
                job_id=job_id,
            )
            return search.audit_entries(self._store, entry_filter, limit=limit, cursor=cursor)

    def _namespace_of_key(self, key_name: str) -> str:
        """Return the namespace of an API key in Redis; `*` if there is none of this name."""
        record = self._store.api_keys.record(key_name)
        key = from_record(key_name, record) if record else None
        return ALL if key is None else key.namespace

    def _now(self) -> float:
        """Return the time of the queue (Unix seconds)."""
        with translated_errors():
            return self._store.clock()


def paged(items: Iterator[T]) -> Iterator[T]:
    """Yield items that the store reads lazily. Raises StoreUnavailableError."""
    while page := _next_page(items):
        yield from page


def _next_page(items: Iterator[T]) -> list[T]:
    with translated_errors():
        return list(islice(items, PORTION_JOBS_MAX))
