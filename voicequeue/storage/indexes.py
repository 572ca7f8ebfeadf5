"""What lists, pages and plans read in Redis: places in indexes, jobs that fit, events that were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from voicequeue.domain.spec import Priority
from voicequeue.storage.connection.keyspace import Keyspace, rows

_PAGE = 500


class Lookup:
    """Reads in pages that anybody may go on from. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    # ── jobs ───────────────────────────────────────────────────────────────────────────────────

    def walk(
        self, index: str, after: tuple[str, str] | None, count: int, *, latest_first: bool = False
    ) -> list[tuple[str, str]]:
        """Up to so many (member, score) of an index, after those where another page ended."""
        member, score = after or ("", "")
        flat = self._space.run("read_page", index, int(latest_first), score, member, count)
        return cast(list[tuple[str, str]], list(rows(flat, 2)))

    def sift(
        self,
        index: str,
        after: tuple[str, str] | None,
        count: int,
        wanted: Mapping[str, Any],
        *,
        latest_first: bool = False,
    ) -> tuple[int, tuple[str, str], list[tuple[str, str]]]:
        """Look at so many jobs of an index, after those where another page ended: how many there were, the last of
        them, and those that may be `wanted` (scripts/filter_page.lua tells how); each as (member, score)."""
        member, score = after or ("", "")
        asked = json.dumps(wanted, ensure_ascii=False)
        looked, last, at, *flat = self._space.run("filter_page", index, int(latest_first), score, member, count, asked)
        return int(looked), (last, at), cast(list[tuple[str, str]], list(rows(flat, 2)))

    def lines(self, batch: str | None = None) -> list[tuple[Priority, str]]:
        """Where queued jobs stand, in the order of the names: priority and batch ('' for none)."""
        found = [(priority, each) for priority in Priority for each in sorted(self._turns(priority))]
        return [line for line in found if batch in (None, line[1])]

    def ahead(self, job_id: str, priority: Priority, batch: str) -> int | None:
        """How many queued jobs go before this one, as things stand; None if it is not queued."""
        lines = [(each, found) for each in Priority if each.rank <= priority.rank for found in self._turns(each)]
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrank(self._line(priority, batch), job_id)
            for line in lines:
                pipe.zcard(self._line(*line))
            found: list[int | None] = pipe.execute()
        own, counts = found[0], [count or 0 for count in found[1:]]
        if own is None or (priority, batch) not in lines:
            return None
        place = lines.index((priority, batch))
        # Batches take turns: in each round up to this job's the others have one, if they still have any.
        before = (
            count if line[0] is not priority else min(count, own + (index < place))
            for index, (line, count) in enumerate(zip(lines, counts, strict=True))
            if index != place
        )
        return own + sum(before)

    def _turns(self, priority: Priority) -> list[str]:
        return cast(list[str], self._redis.zrange(self._space.key(f"lanes:{priority.rank}"), 0, -1))

    def _line(self, priority: Priority, batch: str) -> str:
        return self._space.key(f"lane:{priority.rank}:{batch}")

    # ── events ─────────────────────────────────────────────────────────────────────────────────

    def first_event(self) -> str:
        """The id of the oldest event that is kept."""
        oldest = cast(list[Any], self._redis.xrange(self._space.key("events"), count=1))
        return cast(str, oldest[0][0]) if oldest else "0-0"

    # ── plans ──────────────────────────────────────────────────────────────────────────────────

    def keep_plan(self, token: str, lines: Sequence[str], *, for_s: int) -> None:
        """Write down what somebody may do at once."""
        key = self._space.key(f"bulk_plan:{token}")
        with self._redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(lines), _PAGE):
                pipe.rpush(key, *lines[start : start + _PAGE])
                pipe.expire(key, for_s)
            pipe.execute()

    def plan(self, token: str) -> Iterator[str]:
        """What was written down, line by line; nothing if its time is over."""
        key, start = self._space.key(f"bulk_plan:{token}"), 0
        while page := cast(list[str], self._redis.lrange(key, start, start + _PAGE - 1)):
            yield from page
            start += _PAGE
