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

#: Events with their ids and fields.
Page = list[tuple[str, dict[str, str]]]

#: The position before the first event.
_START = "-"


class EventLog:
    """The events of a queue, and the position up to which they were logged."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._redis = keyspace.redis
        self._events = keyspace.key("events")
        self._cursor = keyspace.key("event_cursor")
        self._lock = keyspace.key("lock:event_log")
        #: The position after which this process expects new events.
        self._expected = _START

    def log_new(self, write: Callable[[Event], None], is_logged: Callable[[str], bool] = lambda _: True) -> int:
        """Pass all new events whose state is logged to `write`; return the number of new events, 0 while another
        process does the same.

        An event may be passed again if the process crashes meanwhile.
        """
        count, page = 0, self._begin()
        if page is None:
            return 0
        try:
            while page:
                for event_id, fields in page:
                    if is_logged(fields["state"]):
                        write(serialization.parse_event(event_id, fields))
                count, self._expected = count + len(page), page[-1][0]
                page = self._page_after(self._expected) if len(page) == PAGE else []
        finally:
            self._end(has_new=count > 0)
        return count

    def _begin(self) -> Page | None:
        """Acquire the lock and return the first page of new events; None if another process holds it."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._lock, "held", nx=True, px=round(LOCK_TTL_S * 1000))
            pipe.get(self._cursor)
            pipe.xrange(self._events, min=_after(self._expected), count=PAGE)
            is_acquired, cursor, page = pipe.execute()
        if not is_acquired:
            return None
        if (cursor or _START) == self._expected:
            return cast(Page, page)
        self._expected = cursor or _START
        return self._page_after(self._expected)

    def _end(self, *, has_new: bool) -> None:
        """Write the position up to which events were logged, and release the lock."""
        with self._redis.pipeline(transaction=False) as pipe:
            if has_new:
                pipe.set(self._cursor, self._expected)
            pipe.delete(self._lock)
            pipe.execute()

    def _page_after(self, cursor: str) -> Page:
        return cast(Page, self._redis.xrange(self._events, min=_after(cursor), count=PAGE))


def _after(cursor: str) -> str:
    """Return the start of the events that follow a position."""
    return cursor if cursor == _START else f"({cursor}"
