"""The log of transitions: each event is logged once and in order, by any process."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from voicequeue.domain import serialization
from voicequeue.domain.job import Event
from voicequeue.storage.connection.keyspace import Keyspace

#: How long (seconds) a process that crashes while logging keeps the others from logging.
LOCK_TTL_S = 30.0

#: The number of events read at once.
PAGE = 200


class EventLog:
    """The events of a queue, and the position up to which they were logged."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.redis
        self._events = keyspace.key("events")
        self._cursor = keyspace.key("event_cursor")
        self._lock = keyspace.key("lock:event_log")

    def log_new(self, write: Callable[[Event], None], is_logged: Callable[[str], bool] = lambda _: True) -> int:
        """Pass all new events whose state is logged to `write`; return the number of new events, 0 while another
        process does the same.

        An event may be passed again if the process crashes meanwhile.
        """
        if not self._redis.set(self._lock, "held", nx=True, px=round(LOCK_TTL_S * 1000)):
            return 0
        try:
            return self._log_new(write, is_logged)
        finally:
            self._redis.delete(self._lock)

    def _log_new(self, write: Callable[[Event], None], is_logged: Callable[[str], bool]) -> int:
        count, cursor = 0, cast(str | None, self._redis.get(self._cursor)) or "-"
        while True:
            page = self._page_after(cursor)
            for event_id, fields in page:
                if is_logged(fields["state"]):
                    write(serialization.parse_event(event_id, fields))
            count += len(page)
            if page:
                cursor = page[-1][0]
                self._redis.set(self._cursor, cursor)
            if len(page) < PAGE:
                return count

    def _page_after(self, cursor: str) -> list[tuple[str, dict[str, str]]]:
        first = cursor if cursor == "-" else f"({cursor}"
        return cast(list[tuple[str, dict[str, str]]], self._redis.xrange(self._events, min=first, count=PAGE))
