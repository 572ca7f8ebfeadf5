"""Lists of jobs in the order of a time, merged from indexes that are in this order.

Each index is read page by page, and only when the list has reached its first job, so that a page of a million jobs
costs about as much as one of a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import merge
from typing import Any, NamedTuple

from voicequeue.client import search
from voicequeue.client.search import Filter, Page, PagePosition
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import index_of
from voicequeue.domain.states import State
from voicequeue.errors import InvalidCursorError, InvalidJobError, Problem
from voicequeue.storage.indexes import Run
from voicequeue.storage.job_store import JobStore


class Sort(StrEnum):
    """Order of a list of jobs: by the time of enqueueing, or by the time when they entered their state.

    With `-`, the latest come first. Jobs of a batch can be sorted by `created`, all others by `changed`, because these
    indexes exist.
    """

    CREATED = "created"
    CREATED_DESC = "-created"
    CHANGED = "changed"
    CHANGED_DESC = "-changed"

    @property
    def is_descending(self) -> bool:
        """True if the latest come first."""
        return self.startswith("-")

    @classmethod
    def of(cls, job_filter: Filter) -> tuple[Sort, Sort]:
        """Return the orders that exist for these jobs, the one with the newest first before the other."""
        return (cls.CHANGED_DESC, cls.CHANGED) if job_filter.batch is None else cls.of_batches()

    @classmethod
    def of_batches(cls) -> tuple[Sort, Sort]:
        """Return the orders of batches and of the jobs of one batch."""
        return (cls.CREATED_DESC, cls.CREATED)


class _Entry(NamedTuple):
    """A job that may match, or (`is_match` is false) a position before which all jobs were examined."""

    time: float
    job_id: str
    is_match: bool = False

    @property
    def position(self) -> tuple[float, str]:
        """The position in the list."""
        return (self.time, self.job_id)


@dataclass
class _Reader:
    """Reads the entries of all runs in order, and counts how many jobs it has examined."""

    store: JobStore
    job_filter: Filter
    is_descending: bool
    start: tuple[float, str] | None
    chunk: int
    examined: int = field(default=0, init=False)
    #: Arguments of scripts/filter_page.lua.
    arguments: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.arguments = self.job_filter.script_arguments(self.store.scope)

    @property
    def is_exhausted(self) -> bool:
        """True if the page ends, however many jobs it has."""
        return self.examined >= search.EXAMINED_MAX

    def entries(self, runs: list[Run]) -> Iterator[_Entry]:
        """Yield the entries after the start."""
        from_time = None if self.start is None else self.start[0]
        firsts = self.store.indexes.first_times(runs, from_time, latest_first=self.is_descending)
        sources = [self._run(run, first) for run, first in zip(runs, firsts, strict=True) if first is not None]
        merged = merge(*sources, key=lambda entry: entry.position, reverse=self.is_descending)
        return (entry for entry in merged if entry.job_id not in ("", "~") and self._is_after_start(entry))

    def take(self, entries: Iterator[_Entry], count: int) -> list[_Entry]:
        """Return the next entries, with up to `count` that may match; [] at the end."""
        portion: list[_Entry] = []
        for entry in entries:
            portion.append(entry)
            count -= entry.is_match
            if not count or self.is_exhausted:
                break
        return portion

    def _is_after_start(self, entry: _Entry) -> bool:
        if self.start is None:
            return True
        return entry.position < self.start if self.is_descending else entry.position > self.start

    def _run(self, run: Run, first: float) -> Iterator[_Entry]:
        yield _Entry(first, "~" if self.is_descending else "")  # the run is read when the list has arrived there
        after, chunk, is_end = run.after(self.start, latest_first=self.is_descending), self.chunk, False
        while not is_end:
            page = self.store.indexes.filter_page(
                run.index, after, chunk, self.arguments, latest_first=self.is_descending
            )
            after = page.last
            self.examined += max(page.examined, search.CALL_COST)
            yield from (_Entry(run.time_of(score), job_id, True) for job_id, score in page.members if run.has(score))
            is_end = page.is_last or not run.has(after[1]) or self._is_too_old(run.time_of(after[1]))
            if not is_end:
                yield _Entry(run.time_of(after[1]), after[0])
            if search.is_selective(self.job_filter):
                chunk = min(search.CHUNK, 4 * chunk)

    def _is_too_old(self, time: float) -> bool:
        """Return whether no later job of the run has changed since the time of the filter."""
        since = self.job_filter.since
        return since is not None and self.is_descending and self.job_filter.batch is None and time < since


def sorted_page(store: JobStore, job_filter: Filter, sort: Sort, *, limit: int, cursor: str | None) -> Page[Job]:
    """Return a page of up to `limit` jobs in this order; fewer, even none, if few of many match.

    A job that changes its state between two pages may be on both. Raises InvalidCursorError, InvalidJobError.
    """
    if sort not in Sort.of(job_filter):
        raise InvalidJobError([Problem("sort", "jobs of a batch can be sorted by created, all others by changed")])
    position = None if cursor is None else _decode(cursor, sort)
    reader = _Reader(store, job_filter, sort.is_descending, position, min(search.CHUNK, limit + 1))
    entries = reader.entries(_runs(store, job_filter))
    jobs: dict[str, Job] = {}
    while len(jobs) < limit and not reader.is_exhausted:
        portion = reader.take(entries, limit - len(jobs))
        if not portion:
            return Page(tuple(jobs.values()), None)
        position = portion[-1].position
        read = store.get([entry.job_id for entry in portion if entry.is_match])
        jobs |= {job.id: job for job in read if job is not None and job_filter.matches(job)}
    is_end = next((entry for entry in entries if entry.is_match or reader.is_exhausted), None) is None
    return Page(tuple(jobs.values()), None if is_end or position is None else _encode(position, sort))


def _runs(store: JobStore, job_filter: Filter) -> list[Run]:
    """Return the parts of indexes that hold all jobs of the filter, each of them in order."""
    if job_filter.batch is not None:
        return [Run(f"batch:{store.scope.qualify(job_filter.batch)}:jobs")]
    states = set(State) if job_filter.state is None else {job_filter.state}
    namespaces = store.namespaces()
    runs = [Run(index_of(f"state:{state}", name)) for state in states - {State.QUEUED} for name in namespaces]
    if State.QUEUED in states:
        lanes = [f"lane:{priority.rank}:{batch}" for priority, batch in store.indexes.lanes()]
        runs += [Run(lane, of_songs=of_songs) for lane in lanes for of_songs in (False, True)]
    return runs


def _encode(position: tuple[float, str], sort: Sort) -> str:
    time, job_id = position
    return PagePosition(f"sort:{sort}", job_id, repr(time)).text()


def _decode(cursor: str, sort: Sort) -> tuple[float, str]:
    """Return the position of a cursor. Raises InvalidCursorError."""
    position = search.decode_position(cursor)
    if position.index != f"sort:{sort}" or not position.score:
        raise InvalidCursorError
    return float(position.score), position.member
