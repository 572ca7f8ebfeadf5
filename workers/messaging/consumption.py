"""The consumption of this process: when it last consumed each of its queues, for its heartbeats.

The heartbeats come from a thread, which also runs while the event loop hangs. So the event loop records here that it
consumes, and the thread reports that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S
from voicequeue.storage.monitoring.consumption import CANCELLED, CONSUMED, STEADY_SINCE


class Consumption:
    """The queues with a consumer, and when the process last consumed each queue."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, float] = {}
        self._active: frozenset[str] = frozenset()
        self._is_busy = False
        self._reported_at = self._steady_since = float("-inf")

    def start(self, queues: Collection[str]) -> None:
        """Begin with these queues, for which the process is started."""
        self.record(queues)
        self._active |= frozenset(queues)

    def turn(self, active: Iterable[str], *, is_full: bool) -> None:
        """Record a turn of the event loop: the queues with a consumer, and whether the process may hold no more
        messages, so that it reads none until a task ends."""
        self._active = frozenset(active)
        if is_full:
            self.record(self._active)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count as consuming meanwhile: the event loop runs a task itself, and reads no messages until it ends."""
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False

    def record(self, queues: Iterable[str]) -> None:
        """Record that Redis has answered a read of these queues, with a message or without."""
        self._times.update(dict.fromkeys(queues, self._clock()))

    def facts(self, queues: Collection[str], now: float) -> Mapping[str, Any]:
        """Return the facts about these queues for a heartbeat at `now`, the queue's time."""
        if abs(now - self._reported_at) > HEARTBEAT_TIMEOUT_S:
            self._steady_since = now
        self._reported_at = now
        if self._is_busy:
            self.record(self._active)
        ahead_s = now - self._clock()
        return {
            CONSUMED: {queue: round(self._times[queue] + ahead_s, 1) for queue in queues},
            CANCELLED: [queue for queue in queues if queue not in self._active],
            STEADY_SINCE: round(self._steady_since, 1),
        }


#: The consumption of this process.
consumption = Consumption()
