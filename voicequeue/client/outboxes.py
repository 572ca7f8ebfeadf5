"""The outboxes: callbacks to deliver and songs to archive, pending or given up; and rejected messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from voicequeue.client import listing
from voicequeue.client.audited import audited
from voicequeue.client.batches import require_positive
from voicequeue.client.reading import ReadMethods, paged
from voicequeue.client.search import Page
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.domain.states import SETTLED
from voicequeue.domain.status import ArchiveCounts, CallbackCounts
from voicequeue.storage.archive import ArchiveEntry
from voicequeue.storage.callbacks import Callback
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import begin_part
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.outbox import Outbox
from voicequeue.storage.rejected_messages import MESSAGES_MAX, RejectedMessage


class OutboxMethods(ReadMethods):
    """Methods of `VoiceQueue` for callbacks, the archive and rejected messages."""

    # ── callbacks ──────────────────────────────────────────────────────────────────────────────

    def callbacks(self, *, undelivered: bool = False) -> Iterator[Callback]:
        """Yield the callbacks that are pending, or those that were given up.

        Args:
            undelivered: False yields pending callbacks, by the time they are due. True yields callbacks that were given
                up, the oldest failure first.
        """
        return paged(self._store.callbacks.undelivered() if undelivered else self._store.callbacks.pending())

    def list_callbacks(
        self,
        *,
        undelivered: bool = False,
        batch: str | None = None,
        search: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Callback]:
        """Return a page of the callbacks that are pending, or of those that were given up.

        A page may hold fewer than `limit` callbacks, even none, and still have a next page.

        Args:
            undelivered: False lists pending callbacks, by the time they are due. True lists callbacks that were given
                up, the oldest failure first.
            batch: Only callbacks of this batch and of its jobs.
            search: Only callbacks with this text in their id, type, job id or last error.
            limit: Maximum number of callbacks on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.

        Raises:
            InvalidCursorError: The cursor is not one of this list.
            ValueError: `limit` is below 1.
        """
        require_positive("limit", limit)
        with translated_errors():
            return listing.list_callbacks(
                self._store, undelivered=undelivered, batch=batch, text=search, limit=limit, cursor=cursor
            )

    def callback(self, callback_id: str) -> Callback | None:
        """Return a callback; None if it is delivered or unknown.

        Args:
            callback_id: Id of the callback.
        """
        with translated_errors():
            return next(iter(self._store.callbacks.get([callback_id])), None)

    def callback_counts(self) -> CallbackCounts:
        """Return the number of callbacks by status, and of workers that deliver them."""
        with translated_errors():
            return self._store.callbacks.counts(self._now() - HEARTBEAT_TIMEOUT_S)

    @audited
    def redeliver_callbacks(self, callback_ids: Iterable[str]) -> int:
        """Deliver callbacks now, pending ones and those that were given up; return how many exist.

        Args:
            callback_ids: Ids of the callbacks, read lazily. Ids of delivered and unknown callbacks are skipped.
        """
        return self._sum_pages(callback_ids, self._store.callbacks, self._store.callbacks.redeliver)

    # ── archive ────────────────────────────────────────────────────────────────────────────────

    def archive_entries(self, *, failed: bool = False) -> Iterator[ArchiveEntry]:
        """Yield the jobs whose songs wait for the archive, or those that were given up.

        Args:
            failed: False yields pending jobs, by the time they are due. True yields jobs that were given up, the oldest
                failure first.
        """
        return paged(self._store.archive.failed() if failed else self._store.archive.pending())

    def archive_counts(self) -> ArchiveCounts:
        """Return the number of jobs by archive status, and of workers that archive."""
        with translated_errors():
            return self._store.archive.counts(self._now() - HEARTBEAT_TIMEOUT_S)

    @audited
    def retry_archive(self, job_ids: Iterable[str]) -> int:
        """Archive the songs of these jobs now, and return how many jobs are affected.

        Includes jobs that were given up, and jobs created before archiving was enabled.

        Args:
            job_ids: Ids of the jobs, read lazily. Jobs that are unknown, have no songs or are archived are skipped.
        """
        return self._sum_pages(job_ids, self._store.archive, self._store.archive.retry)

    @audited
    def backfill_archive(self, batch: str | None = None) -> int:
        """Archive songs created before archiving was enabled, and return how many jobs are affected.

        Args:
            batch: Only jobs of this batch. None archives the songs of all jobs.

        Raises:
            BatchNotFoundError: No job is in this batch.
        """
        jobs = (job for state in SETTLED for job in self.jobs(state=state, batch=batch))
        return self.retry_archive(job.id for job in jobs if job.clips and job.archive is None)

    def _sum_pages(
        self, ids: Iterable[str], outbox: Outbox[Any], change: Callable[[Sequence[str], float], Sequence[bool]]
    ) -> int:
        """Apply a change to ids, a page and a namespace at a time; return to how many it applied."""
        remaining, count = iter(ids), 0
        while page := list(islice(remaining, PORTION_JOBS_MAX)):
            with translated_errors():
                for namespace, part in outbox.by_namespace(page).items():
                    begin_part(part, namespace=namespace)
                    count += sum(change(part, self._now()))
        return count

    # ── rejected messages ──────────────────────────────────────────────────────────────────────

    def rejected_messages(self, limit: int = MESSAGES_MAX, *, message_id: str | None = None) -> list[RejectedMessage]:
        """Return messages of other Celery clients that were rejected, the newest first.

        The last 1,000 are kept, up to 4 MiB in all.

        Args:
            limit: Maximum number of messages. 0 or less returns none.
            message_id: Only the message with this id. None returns all.
        """
        with translated_errors():
            if message_id is None:
                return self._store.rejected_messages.latest(limit)
            return self._store.rejected_messages.with_id(message_id)[: max(0, limit)]

    def list_rejected_messages(
        self, *, message_id: str | None = None, limit: int = 100, cursor: str | None = None
    ) -> Page[RejectedMessage]:
        """Return a page of the rejected messages, the newest first.

        Args:
            message_id: Only the message with this id. None returns all.
            limit: Maximum number of messages on the page; 1 or more.
            cursor: `Page.cursor` of the previous page. None returns the first page.

        Raises:
            InvalidCursorError: The cursor is not one of this list.
            ValueError: `limit` is below 1.
        """
        require_positive("limit", limit)
        with translated_errors():
            return listing.list_rejected_messages(self._store, message_id=message_id, limit=limit, cursor=cursor)

    @audited
    def clear_rejected_messages(self) -> list[RejectedMessage]:
        """Delete all rejected messages, and return them."""
        with translated_errors():
            return self._store.rejected_messages.pop_all()
