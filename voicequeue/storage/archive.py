"""Songs that are kept before upstream's links die: which are still to be fetched, and which could not be.

That a job's songs are to be archived is written by the script that stores them; where the job stands in the
archive its record says. Every `now` is in Unix seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, cast

from voicequeue.domain import serialization
from voicequeue.domain.clip import ArchivedFile
from voicequeue.domain.job import Job, Part, iso
from voicequeue.domain.status import ArchiveCounts
from voicequeue.storage.keyspace import Keyspace, rows

if TYPE_CHECKING:
    from voicequeue.domain import schemas

#: Jobs that may be handed out and not claimed yet, in all.
OUT_MAX = 64

_PAGE = 500


class Became(StrEnum):
    """What became of a try."""

    KEPT = "kept"
    DONE = "done"
    LATER = "later"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ToArchive:
    """A job whose songs are still to be archived, or were given up. Times are Unix seconds.

    `reason` is why the last try failed. `due` is when it is tried next; None once it was given up.
    """

    job_id: str
    batch: str | None
    since: float
    tries: int = 0
    reason: str = ""
    due: float | None = None
    given_up_at: float | None = None

    def as_dict(self) -> schemas.ArchiveJob:
        """Return the JSON representation."""
        return {
            "job": self.job_id,
            "batch": self.batch,
            "since": iso(self.since),
            "tries": self.tries,
            "reason": self.reason or None,
            "due": iso(self.due),
            "failed_at": iso(self.given_up_at),
        }


@dataclass(frozen=True, slots=True)
class Fetch:
    """A claim to try a job's songs. `since` is when that was first possible, `tries` how often it failed."""

    job_id: str
    holder: str
    since: float
    tries: int
    record: Mapping[str, str]

    def job(self) -> Job:
        """The job. Raises ValueError if this release cannot read its record."""
        try:
            return serialization.job(self.job_id, self.record)
        except (ValueError, LookupError, TypeError):
            raise ValueError("this release cannot read the job's record") from None


class Archive:
    """What is to be archived, in Redis. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    # ── fetching ───────────────────────────────────────────────────────────────────────────────

    def hand_out(self, now: float, *, patience: float, at_most: int = OUT_MAX) -> list[str]:
        """Ids that are due; each is given to one caller, for `patience` seconds. `at_most` may be out at once."""
        return cast(list[str], self._space.run("fetches", f"{now:.6f}", f"{now + patience:.6f}", at_most))

    def claim(self, job_id: str, holder: str, now: float, *, lease: float) -> Fetch | None:
        """The job, if it is still to be tried; nobody else gets it for `lease` seconds. `holder` is a token of
        this very claim."""
        flat = self._space.run("fetch", f"{now:.6f}", job_id, holder, f"{now + lease:.6f}")
        if flat is None:
            return None
        record = dict(cast("Iterator[tuple[str, str]]", rows(flat, 2)))
        since, tries = float(record.get("archive.since", now)), int(record.get("archive.tries", 0))
        return Fetch(job_id, holder, since, tries, record)

    def renew(self, fetch: Fetch, now: float, *, lease: float) -> bool:
        """The claim holds for `lease` seconds from now; False if it is somebody else's by now."""
        return self._write(fetch, Became.KEPT, now, now + lease)

    def kept(self, fetch: Fetch, clip_id: str, part: Part, file: ArchivedFile, now: float, *, lease: float) -> bool:
        """The same, and this file lies in the archive."""
        field, text = serialization.archived_field(part, clip_id), json.dumps(asdict(file))
        return self._write(fetch, Became.KEPT, now, now + lease, "", field, text)

    def done(self, fetch: Fetch, now: float) -> bool:
        """All of its files lie there."""
        return self._write(fetch, Became.DONE, now)

    def later(self, fetch: Fetch, now: float, due: float, reason: str) -> bool:
        """Try again then; `reason` is why it failed."""
        return self._write(fetch, Became.LATER, now, due, reason)

    def give_up(self, fetch: Fetch, now: float, reason: str) -> bool:
        """Try no more, until somebody wants it."""
        return self._write(fetch, Became.FAILED, now, now, reason)

    def _write(self, fetch: Fetch, became: Became, now: float, due: float = 0.0, reason: str = "", *file: str) -> bool:
        who = (fetch.job_id, fetch.holder)
        return bool(self._space.run("fetched", f"{now:.6f}", *who, became, f"{due:.6f}", reason, *file))

    def again(self, job_ids: Sequence[str], now: float) -> list[bool]:
        """Archive the songs of these from now on; False for what has none, or whose are archived."""
        return [bool(each) for each in self._space.run("refetch", f"{now:.6f}", *job_ids)] if job_ids else []

    # ── asking ─────────────────────────────────────────────────────────────────────────────────

    def counted(self, workers_since: float) -> ArchiveCounts:
        """How many there are."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(self._space.key("archive:pending"))
            pipe.zcard(self._space.key("archive:failed"))
            pipe.hget(self._space.key("counters"), "archive.jobs")
            pipe.hget(self._space.key("counters"), "archive.files")
            pipe.zcount(self._space.key("archive:pulses"), f"({workers_since}", "+inf")
            found = pipe.execute()
        return ArchiveCounts(*(int(each or 0) for each in found))

    def pending(self) -> Iterator[ToArchive]:
        """Jobs to be archived, whose time comes first, first; read a page at a time."""
        return self._read("archive:pending")

    def failed(self) -> Iterator[ToArchive]:
        """Those that were given up, the first first; read a page at a time."""
        return self._read("archive:failed")

    def _read(self, name: str) -> Iterator[ToArchive]:
        ids = self._space.pages(self._space.key(name))
        while page := list(islice(ids, _PAGE)):
            yield from self._page(page)

    def _page(self, job_ids: Sequence[str]) -> Iterator[ToArchive]:
        fields = ("batch", "archive.since", "archive.tries", "archive.reason")
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(self._space.key(f"job:{job_id}"), fields)
                pipe.zscore(self._space.key("archive:pending"), job_id)
                pipe.zscore(self._space.key("archive:failed"), job_id)
            found = iter(pipe.execute())
        for job_id, (batch, since, tries, reason), due, failed in zip(job_ids, found, found, found, strict=False):
            if due is not None or failed is not None:
                yield ToArchive(job_id, batch, float(since or 0), int(tries or 0), reason or "", due, failed)
