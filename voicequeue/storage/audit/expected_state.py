"""What follows from the job records: where each id belongs, and what each job adds to which counter.

`Books` reads the records of a store whose jobs move all the time, and says what the counters ought to
be at one and the same moment.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from redis import Redis

from voicequeue.domain.job import IN_FLIGHT, MAY_BE_LATE, InArchive, State
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.storage import scripts

T = TypeVar("T")

#: How many records or members are read by one call.
PAGE = 1000


_STATES = frozenset(State)


class Record(NamedTuple):
    """What of a job's record the indexes and counters follow."""

    state: str
    batch: str
    credits: int
    rank: str
    stage: str
    next_stage: str
    code: str
    shares: str
    archive: str
    refused: str
    is_cancelling: bool
    #: What its lost orders cost, if they were charged, that were given up or sent again.
    unsettled: int

    @property
    def is_known(self) -> bool:
        """Whether this release knows its state. Of any other it cannot say where the job belongs."""
        return self.state in _STATES


# ── the rules: a further index or counter is a line here ──────────────────────────────────────────

#: The sorted sets of ids.
IS_INDEX = re.compile(
    r"lane:\d:.*|in_flight|late|refused|state:.+|waiting:.+|archive:(?:pending|failed)|batch:[^:]+:jobs"
).fullmatch

#: The hashes of counters.
IS_COUNTED = re.compile(r"counters|state_counts|batch:[^:]+").fullmatch


def indexes(record: Record) -> Iterator[str]:
    """Where the job's id must stand."""
    yield f"lane:{record.rank}:{record.batch}" if record.state == State.QUEUED else f"state:{record.state}"
    if record.state in IN_FLIGHT:
        yield "in_flight"
    if record.refused:
        yield "refused"
    if record.state == State.WAITING:
        yield f"waiting:{record.shares}"
    if record.archive in (InArchive.PENDING, InArchive.FAILED):
        yield f"archive:{record.archive}"
    if record.batch:
        yield f"batch:{record.batch}:jobs"


def tolerated(record: Record) -> Iterator[str]:
    """Where it may stand besides; anywhere else it does not belong."""
    if record.state in MAY_BE_LATE:
        yield "late"


def counts(record: Record) -> Iterator[tuple[str, str, int]]:
    """What the job adds: counters, field, amount."""
    yield "counters", "credits", record.credits
    yield "counters", "committed", _committed(record)
    if record.state != State.QUEUED:
        yield "state_counts", f"{record.state}:{record.stage}", 1
    if record.code:
        yield "counters", f"failed.{record.code}", 1
    if record.batch:
        yield f"batch:{record.batch}", record.state, 1
        yield f"batch:{record.batch}", "credits", record.credits
        yield f"batch:{record.batch}", "committed", _committed(record) + record.unsettled


def _committed(record: Record) -> int:
    """Credits that are promised to a job; scripts/lib/keys.lua says the same."""
    if record.state not in IN_FLIGHT | {State.UNSURE}:
        return 0
    is_last = record.stage != Stage.VOICE or not record.next_stage or record.is_cancelling
    later = 0 if is_last else PRICES[Stage(record.next_stage)]
    return later + (0 if record.state == State.PENDING else PRICES[Stage(record.stage)])


#: What else stands in these hashes: no sum over jobs, but what somebody set.
_SET = frozenset({"paused", "max_credits", "max_in_flight", "callback_url", "callback_origin", "settlings"})


def told(counters: str, written: dict[str, str]) -> dict[str, int]:
    """What counters say of the records that are there, by the fields that `counts` gives; credits of all stages are one
    sum."""
    amounts = {field: _number(amount) for field, amount in written.items() if field not in _SET}
    purged = amounts.pop("purged.credits", 0)
    if counters != "counters":
        return amounts | ({"credits": amounts.get("credits", 0) - purged} if purged else {})
    kept = {field: amount for field, amount in amounts.items() if field == "committed" or field.startswith("failed.")}
    return kept | {"credits": sum(amount for field, amount in amounts.items() if field.endswith(".credits")) - purged}


def _number(written: str) -> int:
    """What is no number counts nothing."""
    try:
        return int(written)
    except ValueError:
        return 0


# ── reading ───────────────────────────────────────────────────────────────────────────────────────

#: What of a record is read for that.
FIELDS = (
    *(
        "state",
        "batch",
        "credits",
        "rank",
        "stage",
        "next_stage",
        "failure",
        "shares",
        "archive",
        "refused",
        "cancelling",
    ),
    *("lost", "orders"),
)


def record_of(values: Sequence[str | None]) -> Record | None:
    """The record from its `FIELDS`; None where there is none."""
    if values == [None] * len(FIELDS):
        return None
    state, batch, credits, rank, stage, next_stage, failure, shares, archive, refused, cancelling, *orders = values
    code = json.loads(failure)["code"] if failure else ""
    spent = int(credits or 0)
    # Of no other state it is asked for; and records that are alike are kept once.
    shares = shares if state == State.WAITING else None
    known = (state or "", batch or "", spent, rank or "", stage or "", next_stage or "", code, shares or "")
    return Record(*known, archive or "", "refused" if refused else "", bool(cancelling), _unsettled(*orders))


def _unsettled(lost: str | None, orders: str | None) -> int:
    """Credits of lost orders that upstream has not named; scripts/lib/orders.lua says the same."""
    if not lost:
        return 0
    named = json.loads(orders or "{}")
    return sum(PRICES[Stage(stage)] for attempt, stage in json.loads(lost).items() if attempt not in named)


class Books:
    """The records of one store as `look` last saw them, and the sums that follow from them."""

    def __init__(self, redis: Redis, root: str) -> None:
        self.records: dict[str, Record] = {}
        self.sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        #: How often counters were corrected before the last look.
        self.corrections = "0"
        #: Whether moves were made that can no longer be followed: the sums are worth nothing then.
        self.is_torn = False
        self._redis = redis
        self._root = root
        self._alike: dict[Record, Record] = {}  # a million records are a few dozen different ones
        self._grown: set[str] = set()
        self._known = [_newest(redis, f"{root}{stream}") for stream in ("events", "purged")]

    def read(self) -> None:
        """Read every record, and follow those that move meanwhile."""
        # Braces of the hash tag mean nothing to a pattern; brackets would.
        for page in pages(self._redis.scan_iter(match=f"{self._root}job:*", count=PAGE)):
            self._read([key.removeprefix(f"{self._root}job:") for key in page])
            self.look([])

    def read_new(self) -> None:
        """Read the jobs that were enqueued meanwhile: an event tells no more of them than their batch."""
        for batch in self._grown:
            self.has_jobs(batch)
        self._grown.clear()

    def has_jobs(self, batch: str) -> bool:
        """Whether any record names this batch; those of its members are read that were not yet."""
        job_ids = self.members(f"batch:{batch}:jobs")
        for page in pages(job_ids - self.records.keys()):
            self._read(page)
        return any(self.records[job_id].batch == batch for job_id in job_ids & self.records.keys())

    def look(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Follow all moves and purges, and give those of the counters that can be compared with `sums` now.

        Not yet among them are those of a batch that has new jobs.
        """
        found = None
        while found is None and not self.is_torn:
            found = self._follow(names)
        grown = {f"batch:{batch}" for batch in self._grown}
        return {name: told(name, dict(_pairs(flat))) for name, flat in (found or {}).items() if name not in grown}

    def _follow(self, names: Sequence[str]) -> dict[str, list[str]] | None:
        """The counters, of the moment up to which moves were followed; None while there are more of them."""
        asked: list[str | int] = [*self._known, PAGE, len(FIELDS), *FIELDS, *names]
        seen = scripts.run(self._redis, "read_changes", self._root, *asked)
        if seen is None:
            self.is_torn = True
            return None
        *self._known, is_all, moved, grown, self.corrections, counters = seen
        for job_id, values in _pairs(moved):
            self._put(job_id, record_of(values))
        self._grown.update(grown)
        return dict(zip(names, counters, strict=True)) if is_all else None

    def names(self) -> set[str]:
        """Every key but those of single jobs and voices (job:<id>, timeline:<id>, voice:<id>), without the root."""
        found = self._redis.scan_iter(match=f"{self._root}[^jtv]*", count=PAGE)
        return {key.removeprefix(self._root) for key in found}

    def members(self, index: str) -> set[str]:
        """The ids in a sorted set."""
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
            self.records[job_id] = self._alike.setdefault(record, record)
            self._add(record, 1)

    def _add(self, record: Record, times: int) -> None:
        for counters, field, amount in counts(record):
            self.sums[counters][field] += times * amount


def _newest(redis: Redis, stream: str) -> str:
    """The id of the last entry; '0-0' where there is none."""
    newest = cast(list[Any], redis.xrevrange(stream, count=1))
    return cast(str, newest[0][0]) if newest else "0-0"


def callbacks(redis: Redis, root: str) -> set[str]:
    """The ids of all callbacks, be it that one has no record or stands nowhere."""
    listed = [redis.zscan_iter(f"{root}callbacks:{name}", count=PAGE) for name in ("pending", "undelivered")]
    records = redis.scan_iter(match=f"{root}callback:*", count=PAGE)
    return {member for each in listed for member, _ in each} | {key.removeprefix(f"{root}callback:") for key in records}


def pages(found: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """What was found, a page at a time."""
    rest = iter(found)
    while page := list(islice(rest, size)):
        yield page


def _pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
