"""Log lines about refused clients: of each kind one in a while, however many clients there are."""

from __future__ import annotations

import logging
import math
import time

#: Between two lines of one kind (seconds).
EVERY_S = 10.0


class Sparing(logging.Filter):
    """Passes a line of each kind (its text before it is filled in) once in a while, with how many it held back."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        super().__init__()
        self._every_s = every_s
        self._last: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """As logging calls it."""
        now, kind = time.monotonic(), str(record.msg)
        last, held_back = self._last.get(kind, (-math.inf, 0))
        if now - last < self._every_s:
            self._last[kind] = (last, held_back + 1)
            return False
        self._last[kind] = (now, 0)
        if held_back:
            record.msg = f"{kind} (and {held_back} more since the last line)"
        return True


log = logging.getLogger("voicequeue.limits")
log.addFilter(Sparing())
