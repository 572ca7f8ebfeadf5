"""The archive's outbox: jobs whose songs are copied before upstream's links expire.

The script that stores a job's songs also schedules them for archiving. The job's record holds its archive state and the
links of archived files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from voicequeue.domain import serialization
from voicequeue.domain.clip import ArchivedFile
from voicequeue.domain.job import Job, to_iso8601
from voicequeue.domain.namespaces import qualify, split
from voicequeue.domain.states import ClipPart
from voicequeue.domain.status import ArchiveCounts
from voicequeue.storage.connection.keyspace import rows
from voicequeue.storage.outbox import Outbox

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas


class _Outcome(StrEnum):
    RENEW = "renew"
    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """A job whose songs are pending or failed to be archived.

    Attributes:
        job_id: Id of the job.
        batch: Batch of the job; None if it has none.
        since: Time when its songs could first be archived (Unix seconds).
        attempts: Number of failed attempts.
        last_error: Error of the last attempt; empty before the first failure.
        due_at: Time of the next attempt (Unix seconds); None if archiving failed.
        failed_at: Time when archiving was given up (Unix seconds); None until then.
        namespace: Namespace that owns the job; empty for the default one.
    """

    job_id: str
    batch: str | None
    since: float
    attempts: int = 0
    last_error: str = ""
    due_at: float | None = None
    failed_at: float | None = None
    namespace: str = ""

    @property
    def qualified_batch(self) -> str:
        """The batch with its namespace, such as `shop/spring`; without a batch, the namespace alone."""
        return qualify(self.namespace, self.batch or "")

    def as_dict(self) -> operator_schemas.ArchiveJob:
        """Return the JSON representation."""
        return {
            "job_id": self.job_id,
            "namespace": self.namespace,
            "batch": self.batch,
            "since": to_iso8601(self.since),
            "attempts": self.attempts,
            "last_error": self.last_error or None,
            "due_at": to_iso8601(self.due_at),
            "failed_at": to_iso8601(self.failed_at),
        }


@dataclass(frozen=True, slots=True)
class ArchiveClaim:
    """A claim to one attempt to archive a job's songs.

    `since` is when they could first be archived, `attempts` the number of failed attempts.
    """

    job_id: str
    holder: str
    since: float
    attempts: int
    record: Mapping[str, str]

    def job(self) -> Job:
        """Return the job. Raises ValueError if another release wrote its record."""
        try:
            return serialization.parse_job(self.job_id, self.record)
        except (ValueError, LookupError, TypeError):
            raise ValueError("this release cannot read the job's record") from None


class ArchiveOutbox(Outbox[ArchiveEntry]):
    """The outbox of jobs to be archived."""

    name = "archive"
    max_leased = 64

    # ── archiving ──────────────────────────────────────────────────────────────────────────────

    def claim(self, job_id: str, holder: str, now: float, *, lease_s: float) -> ArchiveClaim | None:
        """Claim the job for `lease_s` seconds; None if it is not due, or claimed by another worker.

        `holder` is a token of this claim alone: asking again with it returns the same claim.
        """
        flat = self._space.run_script("archive_claim", f"{now:.6f}", job_id, holder, f"{now + lease_s:.6f}")
        if flat is None:
            return None
        record = dict(cast("Iterator[tuple[str, str]]", rows(flat, 2)))
        since, attempts = float(record.get("archive.since", now)), int(record.get("archive.attempts", 0))
        return ArchiveClaim(job_id, holder, since, attempts, record)

    def renew(self, claim: ArchiveClaim, now: float, *, lease_s: float) -> bool:
        """Extend the claim to `lease_s` seconds from now. Return False if another worker holds the job."""
        return self._finish(claim, _Outcome.RENEW, now, now + lease_s)

    def record_file(
        self, claim: ArchiveClaim, clip_id: str, part: ClipPart, file: ArchivedFile, now: float, *, lease_s: float
    ) -> bool:
        """Record an archived file, and renew the claim as `renew` does."""
        field, text = serialization.archived_field(part, clip_id), json.dumps(asdict(file))
        return self._finish(claim, _Outcome.RENEW, now, now + lease_s, "", field, text)

    def has_job(self, job_id: str) -> bool:
        """Return whether the job exists."""
        return bool(self._redis.exists(self._space.key(f"job:{job_id}")))

    def mark_done(self, claim: ArchiveClaim, now: float) -> bool:
        """Record that all of the job's files are archived."""
        return self._finish(claim, _Outcome.DONE, now)

    def schedule_retry(self, claim: ArchiveClaim, now: float, due: float, reason: str) -> bool:
        """Record a failed attempt; the next is at `due`."""
        return self._finish(claim, _Outcome.RETRY, now, due, reason)

    def mark_failed(self, claim: ArchiveClaim, now: float, reason: str) -> bool:
        """Record that archiving failed; it is not attempted again until `retry` is called."""
        return self._finish(claim, _Outcome.FAILED, now, now, reason)

    def _finish(
        self, claim: ArchiveClaim, outcome: _Outcome, now: float, due: float = 0.0, reason: str = "", *file: str
    ) -> bool:
        arguments = (f"{now:.6f}", claim.job_id, claim.holder, outcome, f"{due:.6f}", reason, *file)
        return bool(self._space.run_script("archive_finish", *arguments))

    def retry(self, job_ids: Sequence[str], now: float) -> list[bool]:
        """Make these jobs due now. Return for each that is in scope whether it has songs that are not archived."""
        owned = self._owned(job_ids)
        return [bool(it) for it in self._space.run_change("archive_retry", f"{now:.6f}", *owned)] if owned else []

    # ── reading ────────────────────────────────────────────────────────────────────────────────

    def counts(self, workers_since: float) -> ArchiveCounts:
        """Return the numbers of jobs and files, and of workers whose last heartbeat is after `workers_since`."""
        pending, _, failed, jobs, files, workers = self._counts(workers_since, "archive.jobs", "archive.files")
        return ArchiveCounts(pending, failed, jobs, files, workers)

    def _read(self, pipe: Any, entry_id: str) -> None:
        pipe.hmget(self._space.key(f"job:{entry_id}"), "batch", "archive.since", "archive.attempts", "archive.reason")

    def _read_owner(self, pipe: Any, entry_id: str) -> None:
        pipe.hget(self._space.key(f"job:{entry_id}"), "batch")

    def _entry(
        self, entry_id: str, record: Sequence[str | None], due: float | None, failed_at: float | None
    ) -> ArchiveEntry | None:
        if due is None and failed_at is None:
            return None
        owner, since, attempts, reason = record
        if not self._space.scope.contains(owner):
            return None
        namespace, batch = split(owner or "")
        times = (float(since or 0), int(attempts or 0), reason or "", due, failed_at)
        return ArchiveEntry(entry_id, batch or None, *times, namespace)
