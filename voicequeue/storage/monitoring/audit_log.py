"""The audit log: which person or program changed what, when, from where and why.

Scripts append an entry with each change (scripts/lib/audit_log.lua). Entries are never changed; maintenance deletes old
ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, cast

from voicequeue.domain.job import to_iso8601
from voicequeue.storage.connection.keyspace import Keyspace

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: Entries read by one call to Redis.
_PAGE = 500

_ENTRY_ID = re.compile(r"\d{1,15}-\d{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A change that a person or a program made.

    Attributes:
        id: Unique id of the entry; later entries have larger ones.
        at: Time of the change (Unix seconds).
        actor: Who made it: `key:NAME`, `page:NAME`, `cli:USER@HOST` or `library:APP`.
        address: Address of the HTTP client; empty for other interfaces.
        action: What was done: the name of the method of `VoiceQueue`; `cancel` and `retry` also for many jobs.
        namespace: Namespace that it concerned; empty for the default one, `*` for the whole queue.
        job_id: Id of the job; None if it concerned several, or none.
        batch: Name of the batch; None if it concerned no batch.
        details: Its other arguments, or the filter of a bulk change.
        jobs: Number of jobs (callbacks, messages, findings) that it concerned; None if it concerned no jobs.
        credits: The most credits that it could cost; None if it ordered nothing.
        reason: The reason that the actor gave; may be empty.
    """

    id: str
    at: float
    actor: str
    address: str
    action: str
    namespace: str
    job_id: str | None
    batch: str | None
    details: Mapping[str, Any]
    jobs: int | None
    credits: int | None
    reason: str

    def concerns(self, job_id: str) -> bool:
        """Return whether it names this job: alone, or among selected ones."""
        return job_id == self.job_id or job_id in str(self.details.get("job_ids", "")).split()

    #: Columns of an export.
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("at", "actor", "address", "action", "namespace", "job_id"),
        *("batch", "details", "jobs", "credits", "reason", "id"),
    )

    def cells(self) -> tuple[object, ...]:
        """Return the cells of its row in an export."""
        details = ", ".join(f"{name}: {value}" for name, value in self.details.items())
        record = {**self.as_dict(), "details": details}
        return tuple(record[column] for column in self.COLUMNS)

    def as_dict(self) -> operator_schemas.AuditEntry:
        """Return the JSON representation."""
        return {
            "id": self.id,
            "at": to_iso8601(self.at),
            "actor": self.actor,
            "address": self.address or None,
            "action": self.action,
            "namespace": self.namespace,
            "job_id": self.job_id,
            "batch": self.batch,
            "details": dict(self.details),
            "jobs": self.jobs,
            "credits": self.credits,
            "reason": self.reason or None,
        }


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A filter of entries; an entry matches if all given conditions hold.

    Attributes:
        since: Made at this time or later (Unix seconds).
        actor: Made by this actor, or by any of a kind: `key`, `page`, `cli`, `library`.
        action: This action.
        batch: Of this batch.
        namespace: Of this namespace.
        job_id: Of this job, alone or among selected ones.
    """

    since: float | None = None
    actor: str | None = None
    action: str | None = None
    batch: str | None = None
    namespace: str | None = None
    job_id: str | None = None

    def matches(self, entry: AuditEntry) -> bool:
        """Return whether the entry matches; `since` is applied where the entries are read."""
        return (
            self.actor in (None, entry.actor, entry.actor.partition(":")[0])
            and self.action in (None, entry.action)
            and self.batch in (None, entry.batch)
            and self.namespace in (None, entry.namespace)
            and (self.job_id is None or entry.concerns(self.job_id))
        )


@dataclass(frozen=True, slots=True)
class AuditLogRetention:
    """The greatest age of entries, in seconds, and the greatest number of them."""

    age_s: float
    max_entries: int


class AuditLog:
    """The entries of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.redis
        self._key = keyspace.key("audit_log")

    def pages(self, since: float | None, *, before: str | None = None) -> Iterator[list[AuditEntry]]:
        """Yield pages of entries, the latest first; `before` is the id of an entry to continue after."""
        end = "+" if before is None else f"({before}"
        start = "-" if since is None else str(max(0, int(since * 1000)))
        while True:
            page = cast(
                list[tuple[str, dict[str, str]]],
                self._redis.xrevrange(self._key, max=end, min=start, count=_PAGE),
            )
            yield [_parse(entry_id, fields) for entry_id, fields in page]
            if len(page) < _PAGE:
                return
            end = f"({page[-1][0]}"

    def trim(self, now: float, retention: AuditLogRetention) -> None:
        """Delete entries that are too old, and the oldest of too many."""
        if retention.age_s < inf:
            self._redis.xtrim(self._key, minid=f"{max(0, int((now - retention.age_s) * 1000))}", approximate=False)
        self._redis.xtrim(self._key, maxlen=retention.max_entries, approximate=False)


def is_entry_id(text: str) -> bool:
    """Return whether the text can be the id of an entry."""
    return _ENTRY_ID.fullmatch(text) is not None


def _parse(entry_id: str, fields: Mapping[str, str]) -> AuditEntry:
    return AuditEntry(
        id=entry_id,
        at=int(fields.get("at", entry_id).partition("-")[0]) / 1000,
        actor=fields.get("actor", ""),
        address=fields.get("address", ""),
        action=fields.get("action", ""),
        namespace=fields.get("namespace", ""),
        job_id=fields.get("job_id"),
        batch=fields.get("batch"),
        details=json.loads(fields.get("details", "{}")),
        jobs=_number(fields.get("jobs")),
        credits=_number(fields.get("credits")),
        reason=fields.get("reason", ""),
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
