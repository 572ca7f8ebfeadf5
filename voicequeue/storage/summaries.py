"""Summaries of ranges of jobs, by which searches by text pass over jobs that they cannot find.

A summary is a filter (`domain/token_filter`) of the tokens of up to about a thousand neighbouring jobs of an index.
Jobs leave a range, but do not join it: the summary stays true. Where a job joins nevertheless, or changes, scripts
delete the summary (`drop_summary` in scripts/lib/summaries.lua). Summaries are built in the background, some time after
jobs have joined the index; ranges without one are searched job by job.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from math import inf
from typing import NamedTuple, cast

from voicequeue.domain import serialization
from voicequeue.domain.namespaces import index_of
from voicequeue.domain.search_text import tokens_of
from voicequeue.domain.spec import Priority
from voicequeue.domain.states import State
from voicequeue.domain.token_filter import ANYTHING, build, holds
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.connection.keyspace import Keyspace, rows
from voicequeue.storage.heartbeats import KINDS, Heartbeats
from voicequeue.storage.job_queries import SONG_SCORE_OFFSET

#: The fact of a process that deletes summaries where jobs join or change. Processes of older releases do not have it.
KEEPS_SUMMARIES = "summaries"

#: Jobs enter an index at the time of the call that writes them, and a call may be late: only jobs that entered longer
#: ago than this (seconds) are summarized.
SETTLED_S = 120.0

#: A summary is built again after this time (seconds), and deleted if it was not completed within the other one. It
#: expires after twice its time.
OLD_S, UNFINISHED_S = 43_200, 600

#: The most bytes of a summary for each of its jobs, about a twentieth of what a job needs.
BYTES_PER_JOB = 50

#: The most tokens of a summary, several times those of a thousand ordinary jobs. With more, it would take long and
#: exclude little: the range is searched job by job.
TOKENS_MAX = 50_000

#: Seconds between two checks whether processes of another release run.
CHECK_INTERVAL_S = 5.0

#: Jobs that are read at once, in some milliseconds.
_PAGE = 100

#: Indexes whose sizes are read at once.
_INDEXES = 500

#: The fields of a record that tokens are made of, and those without which it cannot be read.
_FIELDS = ("persona_id", "voice_name", "orders", "message_ids", "spec", "created", "version", "state", "stage")


class _Part(NamedTuple):
    """A part of an index, at whose end jobs join: all of it, or in a lane the songs or the voices.

    `offset` is what its scores are less than times.
    """

    first: str
    last: str
    offset: float = 0.0


_ALL = (_Part("-inf", "+inf"),)
_OF_LANES = (_Part("-inf", "(0", SONG_SCORE_OFFSET), _Part("0", "+inf"))


class _Range(NamedTuple):
    """A range of scores of an index, and the number of its jobs when its summary was started."""

    low: str
    high: str
    jobs: int


class WrongSummary(NamedTuple):
    """An entry of the summaries of an index (its `name`), and a job of its range that searches pass over."""

    name: str
    entry: str
    job_id: str


@dataclass(frozen=True, slots=True)
class Size:
    """The number of jobs of a full summary, and of the smallest."""

    full: int = 1_000
    smallest: int = 25


class Summaries:
    """The summaries of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def build(self, clock: Clock, size: Size | None = None, *, settled_s: float = SETTLED_S) -> Iterator[int]:
        """Build the missing summaries of all namespaces, and delete those that are of no use. Each step takes some
        milliseconds and yields how many jobs it has read; the caller may stop after any.

        While processes run that do not delete summaries where it is necessary, there are none. If the clock was set
        back meanwhile, or since the last build, all are deleted: jobs join ranges that have some.
        """
        size, latest, checked_at = size or Size(), self._latest_build(), -inf
        for jobs in self._build_all(clock, size, settled_s):
            now = clock()
            is_due, is_set_back = now >= checked_at + CHECK_INTERVAL_S, now < latest - settled_s / 2
            if is_set_back or (is_due and self._are_others_alive(now)):
                self.delete_all()
                return
            if is_due:
                latest, checked_at = max(latest, now), now
                self._redis.set(self._space.key("summarized:at"), f"{latest:.6f}")
            yield jobs

    def _latest_build(self) -> float:
        return float(cast(str | None, self._redis.get(self._space.key("summarized:at"))) or -inf)

    def _build_all(self, clock: Clock, size: Size, settled_s: float) -> Iterator[int]:
        for indexes in self._indexes(size.smallest):
            yield 0
            for index in indexes:
                for part in _OF_LANES if index.startswith("lane:") else _ALL:
                    yield from self._build_part(index, part, clock, size, settled_s)

    def delete_all(self) -> None:
        """Delete all summaries."""
        for index in cast(set[str], self._redis.smembers(self._space.key("summarized"))):
            self._space.run_script("delete_summaries", index)
        self._redis.delete(self._space.key("summarized:at"))

    def wrong(self) -> Iterator[WrongSummary]:
        """Yield the summaries that lack a token of one of their jobs, each with one such job."""
        for index in sorted(cast(set[str], self._redis.smembers(self._space.key("summarized")))):
            for entry in cast(list[str], self._redis.zrange(self._space.key(f"summaries:{index}"), 0, -1)):
                yield from islice(self._missing_jobs(index, entry), 1)

    def _missing_jobs(self, index: str, entry: str) -> Iterator[WrongSummary]:
        _, low, high, count, _, summary_id = entry.split(" ")
        text = cast(str | None, self._redis.get(self._space.key(f"summary:{summary_id}")))
        if text is None or self._redis.zcount(self._space.key(index), low, high) > int(count):
            return  # searches do not use it
        checked: set[str] = set()  # most tokens are those of several jobs
        for page in self._pages(index, _Range(low, high, int(count))):
            missing_ids: list[str] = []
            for job_id, tokens in self._tokens(page):
                unchecked = (tokens or set()) - checked  # other checks report a record that cannot be read
                if holds(text, unchecked):
                    checked |= unchecked
                else:
                    missing_ids.append(job_id)
            for job_id in missing_ids:
                with self._redis.pipeline(transaction=True) as pipe:
                    pipe.zscore(self._space.key(f"summaries:{index}"), entry)
                    pipe.zscore(self._space.key(index), job_id)
                    is_listed, score = pipe.execute()
                # A job that has changed meanwhile has ended the summary, or has left its range.
                if is_listed is not None and score is not None and float(low) <= score <= float(high):
                    yield WrongSummary(index, entry, job_id)

    def _are_others_alive(self, now: float) -> bool:
        """Return whether processes of a release run that does not delete summaries."""
        running = chain.from_iterable(Heartbeats(self._space, kind).alive(now) for kind in KINDS)
        return not all(process.facts.get(KEEPS_SUMMARIES) for process in running)

    def _indexes(self, smallest: int) -> Iterator[Sequence[str]]:
        """Yield the indexes that have enough jobs, or have summaries, page by page."""
        namespaces = self._space.namespaces()
        names = [index_of(f"state:{state}", name) for state, name in product(State, namespaces)]
        for priority in Priority:
            lanes = cast(list[str], self._redis.zrange(self._space.key(f"lanes:{priority.rank}"), 0, -1))
            names += [f"lane:{priority.rank}:{lane}" for lane in lanes]
        summarized = cast(set[str], self._redis.smembers(self._space.key("summarized")))
        yield sorted(summarized)
        others = [name for name in names if name not in summarized]
        for start in range(0, len(others), _INDEXES):
            page = others[start : start + _INDEXES]
            with self._redis.pipeline(transaction=False) as pipe:
                for name in page:
                    pipe.zcard(self._space.key(name))
                yield [name for name, count in zip(page, pipe.execute(), strict=True) if count >= smallest]

    def _build_part(self, index: str, part: _Part, clock: Clock, size: Size, settled_s: float) -> Iterator[int]:
        cursor = ""
        while True:
            now, summary_id = clock(), secrets.token_hex(8)
            limit = repr(now - settled_s - part.offset)
            plan = self._space.run_script(
                "plan_summary",
                *(index, part.first, part.last, limit, cursor, f"{now:.6f}", summary_id),
                *(size.full, size.smallest, OLD_S, UNFINISHED_S),
            )
            yield 0
            if not plan:
                return
            cursor, *bounds = plan
            if bounds:
                yield from self._build_one(index, _Range(bounds[0], bounds[1], int(bounds[2])), summary_id, now)

    def _build_one(self, index: str, of: _Range, summary_id: str, since: float) -> Iterator[int]:
        """Write the summary of a range that was started at this time, unless a job has joined it meanwhile."""
        tokens: set[str] = set()
        is_too_large = False
        for page in self._pages(index, of):
            for _, tokens_of_job in self._tokens(page):
                if tokens_of_job is None:  # the range is searched job by job
                    return
                tokens |= tokens_of_job
            yield len(page)
            if is_too_large := len(tokens) > TOKENS_MAX:
                break
        text = ANYTHING if is_too_large else build(tokens, of.jobs * BYTES_PER_JOB)
        entry = f"1 {of.low} {of.high} {of.jobs} {since:.6f} {summary_id}"
        self._space.run_script("finish_summary", index, entry, text, 2 * OLD_S)

    def _pages(self, index: str, of: _Range) -> Iterator[list[str]]:
        """Yield the ids of the jobs of a range, page by page."""
        after, has_more = ("", of.low), True
        while has_more:
            flat = self._space.run_script("read_page", index, 0, after[1], after[0], _PAGE)
            entries = cast(list[tuple[str, str]], list(rows(flat, 2)))
            inside = [(job_id, score) for job_id, score in entries if float(score) <= float(of.high)]
            has_more = len(inside) == _PAGE
            if inside:
                after = inside[-1]
                yield [job_id for job_id, _ in inside]

    def _tokens(self, job_ids: Sequence[str]) -> Iterator[tuple[str, set[str] | None]]:
        """Yield the jobs that have a record, with their tokens; None if this release cannot read the record."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(self._space.key(f"job:{job_id}"), _FIELDS)
            replies = cast(list[list[str | None]], pipe.execute())
        for job_id, values in zip(job_ids, replies, strict=True):
            record = {field: value for field, value in zip(_FIELDS, values, strict=True) if value is not None}
            if record:
                yield job_id, _tokens_of_record(job_id, record)


def _tokens_of_record(job_id: str, record: Mapping[str, str]) -> set[str] | None:
    try:
        return tokens_of(serialization.parse_job(job_id, record))
    except (KeyError, ValueError, TypeError, AttributeError):  # a field is missing, or is JSON of another kind
        return None
