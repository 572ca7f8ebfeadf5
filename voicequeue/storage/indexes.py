"""Reads of indexes for listings and searches, and storage of bulk plans."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from redis.exceptions import ResponseError

from voicequeue.domain.namespaces import index_of
from voicequeue.domain.spec import Priority
from voicequeue.storage.connection.keyspace import Keyspace, rows
from voicequeue.storage.job_queries import SONG_SCORE_OFFSET
from voicequeue.storage.summaries import Summaries

_PAGE = 500

#: A score may be this far (seconds) from the time that it was computed from.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class Run:
    """The part of an index of jobs whose scores are times: all of it, or in a lane the voices, or the songs, whose
    scores are `SONG_SCORE_OFFSET` less."""

    index: str
    of_songs: bool = False

    def has(self, score: str) -> bool:
        """Return whether the entry with this score is one of the run."""
        return (float(score) < 0) == self.of_songs

    def time_of(self, score: str) -> float:
        """Return the time of the entry with this score."""
        return float(score) + self._offset

    def after(self, position: tuple[float, str] | None, *, latest_first: bool) -> tuple[str, str] | None:
        """Return the entry (member, score) after which to read: that of a position (time, member) in the list, or the
        end of what is not in the run; for songs a little earlier."""
        if position is not None:
            time, member = position
            slack = (_ROUNDING_S if latest_first else -_ROUNDING_S) if self.of_songs else 0.0
            return ("" if slack else member, repr(time - self._offset + slack))
        return None if self.of_songs != latest_first else ("", "0")

    def bounds(self, from_time: float | None, *, latest_first: bool) -> tuple[str, str]:
        """Return the lowest and the highest score of the entries at this time and later in the list."""
        low, high = ("-inf", "(0") if self.of_songs else ("0", "+inf")
        if from_time is None:
            return low, high
        score = from_time - self._offset
        return (low, repr(score + _ROUNDING_S)) if latest_first else (repr(score - _ROUNDING_S), high)

    @property
    def _offset(self) -> float:
        return SONG_SCORE_OFFSET if self.of_songs else 0.0


class FilteredPage(NamedTuple):
    """A page of an index, in which jobs were examined; each entry is (member, score).

    Attributes:
        examined: Number of examined jobs.
        last: The last entry that was examined or passed over.
        members: The entries that may match the filter.
        is_last: True if that was the last entry of the index.
    """

    examined: int
    last: tuple[str, str]
    members: list[tuple[str, str]]
    is_last: bool


class JobIndexes:
    """Reads in pages, each of which can be continued by any process. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        self.summaries = Summaries(keyspace)

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def read_page(
        self, index: str, after: tuple[str, str] | None, count: int, *, latest_first: bool = False
    ) -> list[tuple[str, str]]:
        """Return up to `count` entries (member, score) of an index, after the last entry of the previous page."""
        member, score = after or ("", "")
        flat = self._space.run_script("read_page", index, int(latest_first), score, member, count)
        return cast(list[tuple[str, str]], list(rows(flat, 2)))

    def first_times(self, runs: Sequence[Run], from_time: float | None, *, latest_first: bool) -> list[float | None]:
        """Return the time of the first entry of each run, at this time or later in the list; None if there is none."""
        with self._redis.pipeline(transaction=False) as pipe:
            for run in runs:
                low, high = run.bounds(from_time, latest_first=latest_first)
                start, end = (high, low) if latest_first else (low, high)
                pipe.zrange(
                    self._space.key(run.index),
                    start,
                    end,
                    desc=latest_first,
                    withscores=True,
                    byscore=True,
                    offset=0,
                    num=1,
                )
            replies = pipe.execute()
        return [run.time_of(reply[0][1]) if reply else None for run, reply in zip(runs, replies, strict=True)]

    def read_batches(self, after: tuple[str, str] | None, count: int, *, latest_first: bool) -> list[tuple[str, str]]:
        """Return up to `count` batches in scope with their times, in this order, after the last one that was read."""
        indexes = (index_of("batches", namespace) for namespace in self._space.namespaces())
        entries = [
            entry for index in indexes for entry in self.read_page(index, after, count, latest_first=latest_first)
        ]
        return sorted(entries, key=lambda entry: (float(entry[1]), entry[0]), reverse=latest_first)[:count]

    def filter_page(
        self,
        index: str,
        after: tuple[str, str] | None,
        count: int,
        criteria: Mapping[str, Any],
        *,
        latest_first: bool = False,
    ) -> FilteredPage:
        """Examine up to `count` jobs of an index, after the last entry of the previous page, for those that may match
        the filter `criteria` (scripts/filter_page.lua)."""
        member, score = after or ("", "")
        filter_text = json.dumps(criteria, ensure_ascii=False)
        examined, is_last, *flat = self._space.run_script(
            "filter_page", index, int(latest_first), score, member, count, filter_text
        )
        last, *members = cast(list[tuple[str, str]], list(rows(flat, 2)))
        return FilteredPage(int(examined), last, members, bool(is_last))

    def lanes(self, batch: str | None = None) -> list[tuple[Priority, str]]:
        """Return the lanes of the backlog in scope by name: priority and batch with its namespace."""
        scope = self._space.scope
        lanes = [(priority, name) for priority in Priority for name in sorted(self._lane_names(priority))]
        if batch is not None:
            return [lane for lane in lanes if lane[1] == scope.qualify(batch)]
        return [lane for lane in lanes if scope.contains(lane[1])]

    def position_in_backlog(self, job_id: str, priority: Priority, batch: str) -> int | None:
        """Return how many queued jobs in scope are currently admitted before this one; None if it is not queued.

        `batch` is named with its namespace.
        """
        lanes = [
            (lane_priority, name)
            for lane_priority in Priority
            if lane_priority.rank <= priority.rank
            for name in self._lane_names(lane_priority)
            if self._space.scope.contains(name)
        ]
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrank(self._lane_key(priority, batch), job_id)
            for lane in lanes:
                pipe.zcard(self._lane_key(*lane))
            rank, *counts = pipe.execute()
        if rank is None or (priority, batch) not in lanes:
            return None
        position = lanes.index((priority, batch))
        # Batches take turns: in each round before this job's, every other batch with queued jobs has one admitted.
        before = (
            count if lane[0] is not priority else min(count, rank + (index < position))
            for index, (lane, count) in enumerate(zip(lanes, counts, strict=True))
            if index != position
        )
        return int(rank + sum(before))

    def _lane_names(self, priority: Priority) -> list[str]:
        return cast(list[str], self._redis.zrange(self._space.key(f"lanes:{priority.rank}"), 0, -1))

    def _lane_key(self, priority: Priority, batch: str) -> str:
        return self._space.key(f"lane:{priority.rank}:{batch}")

    # ── events ─────────────────────────────────────────────────────────────────────────────────

    def first_event_id(self) -> str:
        """Return the id of the oldest stored event."""
        oldest = cast(list[Any], self._redis.xrange(self._space.key("events"), count=1))
        return cast(str, oldest[0][0]) if oldest else "0-0"

    # ── bulk plans ─────────────────────────────────────────────────────────────────────────────

    def store_plan(self, token: str, lines: Sequence[str], *, ttl_s: int) -> None:
        """Store the lines of a bulk plan for `ttl_s` seconds."""
        key = self._space.key(f"bulk_plan:{token}")
        with self._redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(lines), _PAGE):
                pipe.rpush(key, *lines[start : start + _PAGE])
                pipe.expire(key, ttl_s)
            pipe.execute()

    def replace_header(self, token: str, line: str) -> None:
        """Replace the first line of a plan, if it has not expired."""
        with suppress(ResponseError):
            self._redis.lset(self._space.key(f"bulk_plan:{token}"), 0, line)

    def finish_plan(self, token: str, line: str, *, ttl_s: int) -> None:
        """Replace the lines of a plan by this one, and keep it for `ttl_s` seconds."""
        key = self._space.key(f"bulk_plan:{token}")
        with self._redis.pipeline() as pipe:
            pipe.delete(key)
            pipe.rpush(key, line)
            pipe.expire(key, ttl_s)
            pipe.execute()

    def plan_lines(self, token: str) -> Iterator[str]:
        """Yield the lines of a bulk plan; none if it has expired."""
        key, start = self._space.key(f"bulk_plan:{token}"), 0
        while page := cast(list[str], self._redis.lrange(key, start, start + _PAGE - 1)):
            yield from page
            start += _PAGE
