"""The expected state: the indexes that each job belongs to, and its amounts in each counter, derived from the records.

`ExpectedState` reads the records of a running queue and computes the expected counters of one moment.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import inf
from typing import Any, TypeVar, cast

from redis import Redis

from voicequeue.domain.budgets import DAY_S, counters_of, spent_fields
from voicequeue.domain.namespaces import index_of, namespace_of, split
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import IN_FLIGHT, MAY_HAVE_LATE_RESULT, ArchiveState, State
from voicequeue.storage import scripts
from voicequeue.storage.audit.record import FIELDS, Record, record_of

T = TypeVar("T")

#: The number of records or members read by one call.
PAGE = 1000


# ── the rules: add new indexes and counters here ──────────────────────────────────────────────────

#: Names of the sorted sets of ids.
IS_INDEX = re.compile(
    r"lane:\d:.*|in_flight|late_results|refused|resting|state:.+|waiting:.+|archive:(?:pending|failed)|batch:[^:]+:jobs"
).fullmatch

#: Names of the hashes of counters.
IS_COUNTED = re.compile(r"counters|state_counts|backlog|batch:[^:]+|namespace:[^:]*|key:[^:]+").fullmatch


def required_indexes(record: Record) -> Iterator[str]:
    """Yield the indexes that must contain the job."""
    by_state = index_of(f"state:{record.state}", record.namespace)
    yield f"lane:{record.rank}:{record.batch}" if record.state == State.QUEUED else by_state
    if record.state in IN_FLIGHT:
        yield "in_flight"
    if record.refused:
        yield "refused"
    if record.state == State.WAITING:
        yield f"waiting:{record.shared_voice}"
    if record.archive in (ArchiveState.PENDING, ArchiveState.FAILED):
        yield f"archive:{record.archive}"
    if record.is_in_batch:
        yield f"batch:{record.batch}:jobs"


def allowed_indexes(record: Record) -> Iterator[str]:
    """Yield the indexes that may contain it in addition."""
    if record.state in MAY_HAVE_LATE_RESULT:
        yield "late_results"
    if record.state == State.QUEUED:
        yield "resting"


def counter_amounts(record: Record) -> Iterator[tuple[str, str, int]]:
    """Yield the amounts of the job: counters, field, amount."""
    yield "counters", "credits", record.credits
    yield "counters", "reserved", _reserved_credits(record)
    yield "counters", "unsettled", record.unsettled
    yield "backlog", "queued_credits", _queued_credits(record)
    if record.state != State.QUEUED:
        yield "state_counts", f"{record.state}:{record.stage}", 1
    if record.code:
        yield "counters", f"failed.{record.code}", 1
    if record.is_in_batch:
        yield f"batch:{record.batch}", record.state, 1
    for owner in _owners(record):
        yield owner, "credits", record.credits
        yield owner, "reserved", _reserved_credits(record) + record.unsettled
        yield owner, "queued_credits", _queued_credits(record)
        if record.code:
            yield owner, f"failed.{record.code}", 1
    for owner in record.owners():
        yield counters_of(owner), "in_flight", record.state in IN_FLIGHT
    for owner in ("counters", *_owners(record)):
        for day, credits in record.spent:
            for field in spent_fields(day * DAY_S).values():
                yield owner, field, credits


def _owners(record: Record) -> Iterator[str]:
    """Yield the counters of its batch, its namespace and its API key."""
    if record.is_in_batch:
        yield f"batch:{record.batch}"
    yield from map(counters_of, record.owners())


def _reserved_credits(record: Record) -> int:
    """Return the credits reserved for a job; the same as in scripts/lib/keys.lua."""
    if record.state not in IN_FLIGHT | {State.UNSURE}:
        return 0
    is_last = record.stage != Stage.VOICE or not record.next_stage or record.is_cancelling
    later = 0 if is_last else PRICES[Stage(record.next_stage)]
    return later + (0 if record.state == State.PENDING else PRICES[Stage(record.stage)])


def _queued_credits(record: Record) -> int:
    """Return the credits that a queued or waiting job will spend; the same as in scripts/lib/keys.lua."""
    if record.state not in (State.QUEUED, State.WAITING):
        return 0
    later = PRICES[Stage(record.next_stage)] if record.stage == Stage.VOICE and record.next_stage else 0
    return later + (0 if record.state == State.WAITING else PRICES[Stage(record.stage)])


#: Fields of these hashes that are no sums over the existing jobs: settings, the sample of a batch, which counts
#: outcomes of retried and purged jobs, too, what was ever delivered and archived, and lost orders of removed jobs.
_NO_SUM = re.compile(
    r"paused|max_credits|max_in_flight|stop_after|stop_min|stopped|callback_url|callback_source|settled_count|sample\..+"
    r"|callbacks\..+|archive\..+|lost\..+"
).fullmatch


def comparable(counters: str, values: dict[str, str]) -> dict[str, int]:
    """Return the amounts in counters for existing records, by the fields that `counter_amounts` yields; credits of all
    stages are one sum."""
    amounts = Counter({field: _number(amount) for field, amount in values.items() if not _NO_SUM(field)})
    if counters == "counters":
        stages = [field for field in amounts if field.endswith(".credits") and field != "purged.credits"]
        amounts["credits"] = sum(amounts[field] for field in stages)
    for field in [field for field in amounts if field.startswith("purged.")]:
        # Also numbers of purged jobs by state, of which no counter has the total.
        purged, amount = field.removeprefix("purged."), amounts.pop(field)
        day = purged.startswith("day.") and purged.removeprefix("day.")
        for total in spent_fields(int(day) * DAY_S).values() if day else [purged]:
            amounts[total] -= amount
    is_compared = _OF_ACCOUNT if counters == "counters" else bool
    return {field: amount for field, amount in amounts.items() if is_compared(field)}


#: Fields of `counters` that are sums over the existing jobs.
_OF_ACCOUNT = re.compile(r"credits|reserved|unsettled|failed\..+|day\..+|month\..+").fullmatch


def is_complete(field: str, days_from: float) -> bool:
    """Return whether a counter is one of all jobs: those of days and months are from this day on."""
    if match := re.fullmatch(r"month\.(\d{4})(\d\d)", field):
        year, month = map(int, match.groups())
        return datetime(year, month, 1, tzinfo=UTC).timestamp() >= days_from * DAY_S
    return not field.startswith("day.") or int(field.removeprefix("day.")) >= days_from


def _number(value: str) -> int:
    """Return the number; 0 for any other text."""
    try:
        return int(value)
    except ValueError:
        return 0


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


class ExpectedState:
    """The records of one queue as of the last `follow_changes`, and the expected sums."""

    def __init__(self, redis: Redis, root: str) -> None:
        self.records: dict[str, Record] = {}
        self.sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        #: The number of corrections of counters before the last look.
        self.corrections = "0"
        #: The first day of which the counters of owners are complete.
        self.days_from = inf
        #: Whether some changes can no longer be followed, so that the sums are invalid.
        self.has_lost_changes = False
        self._redis = redis
        self._root = root
        self._distinct: dict[Record, Record] = {}  # a million records have a few dozen distinct values
        self._grown: set[str] = set()
        self._positions = [_newest(redis, f"{root}{stream}") for stream in ("events", "purged")]

    def read(self) -> None:
        """Read every record, and follow the changes meanwhile."""
        # The braces of the hash tag have no meaning in a pattern.
        for page in pages(self._redis.scan_iter(match=f"{self._root}job:*", count=PAGE)):
            self._read([key.removeprefix(f"{self._root}job:") for key in page])
            self.follow_changes([])

    def read_new(self) -> None:
        """Read the jobs that were enqueued meanwhile: their event names only their batch."""
        for batch in self._grown:
            self.has_jobs(batch)
        self._grown.clear()

    def has_jobs(self, batch: str) -> bool:
        """Return whether a record is of this batch, after reading its new members."""
        # Jobs without a batch are listed in their lanes; those that left them are known by their event.
        lanes = [f"lane:{rank}:{batch}" for rank in range(len(Priority))]
        indexes = [f"batch:{batch}:jobs"] if split(batch)[1] else lanes
        job_ids = set().union(*map(self.members, indexes))
        for page in pages(job_ids - self.records.keys()):
            self._read(page)
        return any(self.records[job_id].batch == batch for job_id in job_ids & self.records.keys())

    def follow_changes(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Follow all changes and purges, and return those counters that can be compared with `sums` now.

        Counters that include new jobs, of their batch and of the backlog, cannot be compared yet.
        """
        counters = None
        while counters is None and not self.has_lost_changes:
            counters = self._follow(names)
        grown = {f"batch:{batch}" for batch in self._grown} | ({"backlog"} if self._grown else set())
        grown |= {f"namespace:{namespace_of(batch)}" for batch in self._grown}
        return {
            name: comparable(name, dict(_pairs(flat)))
            for name, flat in (counters or {}).items()
            if name not in grown and not (self._grown and name.startswith("key:"))
        }

    def _follow(self, names: Sequence[str]) -> dict[str, list[str]] | None:
        """Return the counters as of the last change that was followed; None while there are more changes."""
        arguments: list[str | int] = [*self._positions, PAGE, len(FIELDS), *FIELDS, *names]
        reply = scripts.run(self._redis, "read_changes", self._root, *arguments)
        if reply is None:
            self.has_lost_changes = True
            return None
        *self._positions, is_complete, changed, grown, self.corrections, days_from, counters = reply
        self.days_from = float(days_from or inf)
        for job_id, values in _pairs(changed):
            self._put(job_id, record_of(values))
        self._grown.update(grown)
        return dict(zip(names, counters, strict=True)) if is_complete else None

    def names(self) -> set[str]:
        """Return the names of all keys except those of single jobs and voices (job:, timeline:, voice:)."""
        keys = self._redis.scan_iter(match=f"{self._root}[^jtv]*", count=PAGE)
        return {key.removeprefix(self._root) for key in keys}

    def batches(self) -> set[str]:
        """Return the batches of the records."""
        return {record.batch for record in self.records.values() if record.is_in_batch}

    def namespaces(self) -> set[str]:
        """Return the namespaces of the records."""
        return {record.namespace for record in self.records.values()}

    def owners(self) -> set[str]:
        """Return the namespaces and API keys of the records, as owners of budgets."""
        return {owner for record in set(self.records.values()) for owner in record.owners()}

    def members(self, index: str) -> set[str]:
        """Return the ids in a sorted set."""
        return {member for member, _ in self._redis.zscan_iter(self._root + index, count=PAGE)}

    def _read(self, job_ids: Sequence[str]) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(f"{self._root}job:{job_id}", FIELDS)
            for job_id, values in zip(job_ids, pipe.execute(), strict=True):
                self._put(job_id, record_of(values))

    def _put(self, job_id: str, record: Record | None) -> None:
        before = self.records.pop(job_id, None)
        if before:
            self._add(before, -1)
        if record:
            self.records[job_id] = self._distinct.setdefault(record, record)
            self._add(record, 1)

    def _add(self, record: Record, times: int) -> None:
        for counters, field, amount in counter_amounts(record):
            self.sums[counters][field] += times * amount


def _newest(redis: Redis, stream: str) -> str:
    """Return the id of the last entry; '0-0' if there is none."""
    newest = cast(list[Any], redis.xrevrange(stream, count=1))
    return cast(str, newest[0][0]) if newest else "0-0"


def callback_ids(redis: Redis, root: str) -> set[str]:
    """Return the ids of all callbacks that have a record or are in an index."""
    listed = [redis.zscan_iter(f"{root}callbacks:{name}", count=PAGE) for name in ("pending", "undelivered")]
    records = redis.scan_iter(match=f"{root}callback:*", count=PAGE)
    return {member for index in listed for member, _ in index} | {
        key.removeprefix(f"{root}callback:") for key in records
    }


def pages(items: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """Yield the items page by page."""
    remaining = iter(items)
    while page := list(islice(remaining, size)):
        yield page


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
