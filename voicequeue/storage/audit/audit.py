"""Whether the indexes and counters in Redis agree with the job records, which are the truth.

Reads only, a page at a time, beside workers that go on. Nothing is told that merely moved while it was
read: a job counts as misplaced if one transaction shows record and index apart, counters as wrong if
they are off by the sum over all records of the same moment (see `voicequeue.storage.audit.expected_state`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from voicequeue.domain.job import State
from voicequeue.domain.spec import Priority
from voicequeue.storage import scripts
from voicequeue.storage.audit.expected_state import (
    FIELDS,
    IS_COUNTED,
    IS_INDEX,
    Books,
    callbacks,
    indexes,
    pages,
    record_of,
    tolerated,
)

#: How often counters of batches that get new jobs all the time are looked at again.
TRIES = 10


_KINDS = {True: "missing", False: "too much"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement, or what keeps the audit from telling; `str` gives it in words."""

    @property
    def kind(self) -> str:
        """What findings are grouped by."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON representation: `kind`, `text`, and the fields of the finding."""
        return {"kind": self.kind, **asdict(self), "text": str(self)}


@dataclass(frozen=True, slots=True)
class Misplaced(Finding):
    """A job that an index misses (`belongs`) or has too much; `version` is its record's, '' where there is none."""

    index: str
    job_id: str
    belongs: bool
    version: str

    @property
    def kind(self) -> str:
        """By index, those of all batches together."""
        family, _, rest = self.index.partition(":")
        index = "batch:*:jobs" if family == "batch" and rest else self.index
        return f"{index}: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"{self.index}: job {self.job_id} {_wrong(self.belongs)}"


@dataclass(frozen=True, slots=True)
class Unlisted(Finding):
    """A batch with jobs that the list of batches misses (`belongs`), or one without that it has."""

    batch: str
    belongs: bool

    @property
    def kind(self) -> str:
        """All in one."""
        return f"batches: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"batches: batch {self.batch} {_wrong(self.belongs)}"


@dataclass(frozen=True, slots=True)
class Turn(Finding):
    """A batch with queued jobs of a priority that has no turn (`belongs`), or one without that has one."""

    rank: int
    batch: str
    belongs: bool

    @property
    def kind(self) -> str:
        """Those of all priorities together."""
        return f"turns: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        named = f"batch {self.batch}" if self.batch else "jobs without a batch"
        return f"turns:{self.rank}: {named} {_wrong(self.belongs)}"


@dataclass(frozen=True, slots=True)
class Unmade(Finding):
    """A voice that jobs wait for, `job_id` for one, and that nobody makes."""

    voice: str
    job_id: str

    @property
    def kind(self) -> str:
        """All in one."""
        return "voices"

    def __str__(self) -> str:
        return f"voices: {self.voice} is waited for, and nobody makes it"


@dataclass(frozen=True, slots=True)
class Drift(Finding):
    """Counters that are off in one field; `corrections` is how often any had been corrected by then."""

    counters: str
    field: str
    found: int
    expected: int
    corrections: str

    @property
    def kind(self) -> str:
        """Those of all batches together."""
        return "batch:*: counters" if self.counters.startswith("batch:") else self.counters

    def __str__(self) -> str:
        return f"{_named(self.counters)}: counts {self.found:,} {self.field}, the records say {self.expected:,}"


@dataclass(frozen=True, slots=True)
class Unclear(Finding):
    """Counters that could not be compared, because too much was going on."""

    counters: str

    @property
    def kind(self) -> str:
        """All in one."""
        return "unclear"

    def __str__(self) -> str:
        return f"{_named(self.counters)}: too much happened while it was counted; ask again when it is calmer"


@dataclass(frozen=True, slots=True)
class Unknown(Finding):
    """A record in a state that this release does not know; where it belongs is not judged."""

    job_id: str
    state: str

    @property
    def kind(self) -> str:
        """All in one."""
        return "records"

    def __str__(self) -> str:
        return f"records: job {self.job_id} is in the state {self.state!r}, which this release does not know"


@dataclass(frozen=True, slots=True)
class Stray(Finding):
    """A callback that would never be delivered, and why."""

    callback_id: str
    wrong: str

    @property
    def kind(self) -> str:
        """All in one."""
        return "callbacks"

    def __str__(self) -> str:
        return f"callbacks: {self.callback_id} {self.wrong}"


def _wrong(belongs: bool) -> str:
    return "is missing" if belongs else "does not belong there"


def _named(counters: str) -> str:
    return counters.replace(":", " ", 1)


def audit(redis: Redis, prefix: str) -> list[Finding]:
    """Every disagreement; none is what one hopes for."""
    root = f"{{{prefix}}}:"
    books = Books(redis, root)
    books.read()
    names = books.names()
    findings: list[Finding] = [
        Unknown(job_id, record.state) for job_id, record in books.records.items() if not record.is_known
    ]
    for index, job_ids in _suspects(books, names):
        for page in pages(sorted(job_ids)):
            findings += _misplaced(redis, root, index, page)
    findings += _unlisted(redis, root, books)
    torn = {each.index for each in findings if isinstance(each, Misplaced) and each.belongs}
    findings += _turns(redis, root, books, torn)
    findings += _unmade(redis, root, books)
    findings += _strays(redis, root)
    return findings + list(_drifts(books, names))


# ── indexes ───────────────────────────────────────────────────────────────────────────────────────


def _suspects(books: Books, names: set[str]) -> Iterator[tuple[str, set[str]]]:
    """By index, the ids that stood there when they should not, or the other way round; perhaps they only moved."""
    expected: defaultdict[str, set[str]] = defaultdict(set)
    for job_id, record in books.records.items():
        for index in indexes(record):
            expected[index].add(job_id)
    for index in sorted(set(filter(IS_INDEX, names)) | expected.keys()):
        yield index, expected.pop(index, set()) ^ books.members(index)


def _misplaced(redis: Redis, root: str, index: str, job_ids: list[str]) -> Iterator[Misplaced]:
    """Those of the suspects of which record and index disagree at one moment."""
    with redis.pipeline(transaction=True) as pipe:
        for job_id in job_ids:
            pipe.hmget(f"{root}job:{job_id}", "v", *FIELDS)
            pipe.zscore(root + index, job_id)
        answers = iter(pipe.execute())
    for job_id, ((version, *values), score) in zip(job_ids, zip(answers, answers, strict=True), strict=True):
        record = record_of(values)
        if record and not record.is_known:
            continue
        belongs = record is not None and index in indexes(record)
        may_stand = belongs or (record is not None and index in tolerated(record))
        if (belongs and score is None) or (score is not None and not may_stand):
            yield Misplaced(index, job_id, belongs, version or "")


def _unlisted(redis: Redis, root: str, books: Books) -> Iterator[Unlisted]:
    """Batches are listed when their first job comes, until their last one is purged."""
    listed_then = books.members("batches")
    books.look([])  # jobs may have gone since they were read, and batches with them
    having_jobs = {record.batch for record in books.records.values() if record.batch}
    for batch in sorted(having_jobs ^ listed_then):
        listed = redis.zscore(f"{root}batches", batch) is not None
        if batch in having_jobs:
            if not listed:
                yield Unlisted(batch, belongs=True)
        elif listed and not books.has_jobs(batch):
            yield Unlisted(batch, belongs=False)


def _turns(redis: Redis, root: str, books: Books, torn: set[str]) -> Iterator[Turn]:
    """A batch has a turn exactly while it has a line (or ought to: `torn`); its jobs would wait for ever."""
    queued = {(record.rank, record.batch) for record in books.records.values() if record.state == State.QUEUED}
    for rank in range(len(Priority)):
        waiting = {batch for of_rank, batch in queued if of_rank == str(rank)}
        for batch in sorted(waiting ^ books.members(f"turns:{rank}")):
            with redis.pipeline(transaction=True) as pipe:
                pipe.exists(f"{root}line:{rank}:{batch}")
                pipe.zscore(f"{root}turns:{rank}", batch)
                line, turn = pipe.execute()
            belongs = bool(line) or f"line:{rank}:{batch}" in torn
            if belongs != (turn is not None):
                yield Turn(rank, batch, belongs)


def _unmade(redis: Redis, root: str, books: Books) -> Iterator[Unmade]:
    """Each is judged at one moment by itself."""
    waiting = {record.shares: job_id for job_id, record in books.records.items() if record.state == State.WAITING}
    for page in pages(sorted(waiting.items())):
        wrong = scripts.run(redis, "unmade", root, 0, 0, *(part for pair in page for part in pair))
        yield from (Unmade(*pair) for pair, is_so in zip(page, wrong, strict=True) if is_so)


def _strays(redis: Redis, root: str) -> Iterator[Stray]:
    """Each is judged at one moment by itself."""
    for page in pages(sorted(callbacks(redis, root)), 200):
        wrong = scripts.run(redis, "stray", root, 0, 0, *page)
        yield from (Stray(callback_id, what) for callback_id, what in zip(page, wrong, strict=True) if what)


# ── counters ──────────────────────────────────────────────────────────────────────────────────────


def _drifts(books: Books, names: Iterable[str]) -> Iterator[Drift | Unclear]:
    undecided = set(filter(IS_COUNTED, names)) | books.sums.keys()
    for _ in range(TRIES):
        books.read_new()
        for page in pages(sorted(undecided), 200):
            for counters, found in books.look(page).items():
                undecided.discard(counters)
                yield from _drift(books, counters, found)
    yield from (Unclear(counters) for counters in sorted(undecided))


def _drift(books: Books, counters: str, found: dict[str, int]) -> Iterator[Drift]:
    expected = books.sums[counters]
    for field in sorted(found.keys() | expected.keys()):
        if found.get(field, 0) != expected[field]:
            yield Drift(counters, field, found.get(field, 0), expected[field], books.corrections)
