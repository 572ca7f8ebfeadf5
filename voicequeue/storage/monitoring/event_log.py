"""Every move, told once and in order, whoever made it: producers, workers, the gateway, or one job for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from voicequeue.domain import serialization
from voicequeue.domain.job import Event
from voicequeue.storage.connection.keyspace import Keyspace

#: How long (seconds) whoever is telling keeps the others from it, if it dies at that.
TELLING_S = 30.0

#: Moves that are read at once.
PAGE = 1_000


class Story:
    """The events of a queue, and how far they were told."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.redis
        self._events = keyspace.key("events")
        self._told = keyspace.key("event_cursor")
        self._telling = keyspace.key("lock:event_log")

    def tell(self, say: Callable[[Event], None]) -> int:
        """Say all moves that were not told yet, if nobody else is at it; gives how many.

        One that was told may be told again where the teller dies at that.
        """
        if not self._redis.set(self._telling, "taken", nx=True, px=round(TELLING_S * 1000)):
            return 0
        try:
            return self._tell(say)
        finally:
            self._redis.delete(self._telling)

    def _tell(self, say: Callable[[Event], None]) -> int:
        count, after = 0, cast(str | None, self._redis.get(self._told)) or "-"
        while page := self._after(after):
            for event_id, fields in page:
                say(serialization.event(event_id, fields))
            after, count = page[-1][0], count + len(page)
            self._redis.set(self._told, after)
        return count

    def _after(self, after: str) -> list[tuple[str, dict[str, str]]]:
        first = after if after == "-" else f"({after}"
        return cast(list[tuple[str, dict[str, str]]], self._redis.xrange(self._events, min=first, count=PAGE))
