"""The log of refused clients, throttled: clients must not be able to fill it."""

from __future__ import annotations

import logging
import math
import time

#: Seconds between two lines of one kind.
LOG_INTERVAL_S = 10.0


class ThrottleFilter(logging.Filter):
    """Passes one line per kind (its format string) and interval, with the number of lines dropped before it."""

    def __init__(self, every_s: float = LOG_INTERVAL_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        now, kind = time.monotonic(), str(record.msg)
        last, dropped = self._last.get(kind, (-math.inf, 0))
        if now - last < self._every_s:
            self._last[kind] = (last, dropped + 1)
            return False
        self._last[kind] = (now, 0)
        if dropped:
            record.msg = f"{kind} (and {dropped} more since the last line)"
        return True


log = logging.getLogger("voicequeue.limits")
log.addFilter(ThrottleFilter())
