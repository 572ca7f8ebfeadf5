"""Shift the clock of a Python process by the seconds in the file SKEWED_CLOCK, also while the process runs.

Python imports this module on its own in each process with its folder on PYTHONPATH, before any other code. Only the
time of day is shifted, as on a host with a wrong clock; monotonic clocks are not.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

#: The file is read again after this many seconds.
_REREAD_AFTER_S = 0.02

_file = os.environ.get("SKEWED_CLOCK", "")
_ahead, _read_at = 0.0, float("-inf")
_time, _time_ns, _clock_gettime = time.time, time.time_ns, time.clock_gettime


def ahead() -> float:
    """Return by how many seconds the clock is ahead; negative if it is behind."""
    global _ahead, _read_at  # noqa: PLW0603
    if time.monotonic() - _read_at > _REREAD_AFTER_S:
        _read_at = time.monotonic()
        with open(_file, encoding="ascii") as file:  # noqa: PTH123  without importing more than needed
            _ahead = float(file.read() or _ahead)
    return _ahead


def _gettime(clock: int) -> float:
    return _clock_gettime(clock) + (ahead() if clock == time.CLOCK_REALTIME else 0)


class _IsDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)


_datetime = datetime.datetime


class _Shifted(_datetime, metaclass=_IsDatetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


if _file:
    time.time = lambda: _time() + ahead()
    time.time_ns = lambda: _time_ns() + round(ahead() * 1e9)
    time.clock_gettime = _gettime
    datetime.datetime = _Shifted  # type: ignore[misc]
