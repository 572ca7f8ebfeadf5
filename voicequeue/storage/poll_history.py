"""Durations of orders, and the poll schedules derived from them, shared by all workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from voicequeue.domain.poll_schedule import MAX_DURATIONS, DurationInterval
from voicequeue.storage.connection.keyspace import Keyspace


class PollHistory:
    """Durations of the latest orders and poll schedules, by kind of order. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def add_durations(self, durations: Mapping[str, Sequence[DurationInterval]]) -> None:
        """Record how long orders took, by kind."""
        if not durations:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            for kind, spans in durations.items():
                key = self._space.key(f"poll_durations:{kind}")
                pipe.lpush(key, *[f"{span.lower_s:.3f} {span.upper_s:.3f}" for span in spans])
                pipe.ltrim(key, 0, MAX_DURATIONS - 1)
            pipe.sadd(self._space.key("poll_kinds"), *durations)
            pipe.execute()

    def durations(self, kind: str) -> list[DurationInterval]:
        """Return the durations of the latest orders of this kind, newest first."""
        lines = cast(list[str], self._redis.lrange(self._space.key(f"poll_durations:{kind}"), 0, -1))
        return [DurationInterval(*map(float, line.split())) for line in lines]

    def kinds(self) -> list[str]:
        """Return the kinds of orders with recorded durations."""
        return sorted(cast(set[str], self._redis.smembers(self._space.key("poll_kinds"))))

    def set_schedule(self, kind: str, ages: Sequence[float]) -> None:
        """Set the ages (seconds) at which orders of this kind are polled, for all workers."""
        self._redis.hset(self._space.key("poll_schedules"), kind, json.dumps([round(age, 3) for age in ages]))

    def schedules(self) -> dict[str, list[float]]:
        """Return the ages (seconds) at which orders are polled, by kind."""
        schedules = cast(dict[str, str], self._redis.hgetall(self._space.key("poll_schedules")))
        return {kind: json.loads(ages) for kind, ages in schedules.items()}
