"""How long a call to Redis keeps trying while Redis is away, restarting, reading its file or refusing for now.

By time and not by number of tries: redis-py tries to connect within what it tries, so that numbers
multiply, and each try may take no time (refused) or seconds (frozen).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from voicequeue.storage.connection.refusals import RedisRefusalError

log = logging.getLogger("voicequeue")

T = TypeVar("T")

#: What is raised while Redis is away, restarting, reading its file, or refusing for now.
UNREACHABLE = (ConnectionError, TimeoutError, BusyLoadingError, RedisRefusalError)

#: Those of them that waiting does not mend.
REFUSED = (AuthenticationError, AuthorizationError)

#: Nobody notices this much (seconds): a connection that was cut, a quick restart.
BRIEFLY_S = 0.5


@dataclass(slots=True)
class _Call:
    """A call that is being tried; times are of the monotonic clock."""

    began: float
    give_up: float
    told: bool = False

    def failed(self, error: Exception) -> None:
        """Count it if Redis may have done what it was asked for, and say once that this takes longer."""
        _thread.failures += not isinstance(error, RedisRefusalError)
        now = time.monotonic()
        if not self.told and self.began + BRIEFLY_S <= now < self.give_up:
            self.told = True
            what = f"refuses ({error})" if isinstance(error, RedisRefusalError) else "does not answer"
            log.warning("Redis %s; trying for up to %.0f s more", what, self.give_up - now)

    def answered(self) -> None:
        """Log the end of what was logged."""
        if self.told:
            log.info("Redis answers again, after %.0f s", time.monotonic() - self.began)


class _Thread(threading.local):
    """What this thread is about."""

    call: _Call | None = None
    limit: float = math.inf
    failures: int = 0


_thread = _Thread()


class _Backoff(ExponentialWithJitterBackoff):
    """Longer from try to try, up to a second, but not beyond the call's end: one more try then."""

    def compute(self, failures: int) -> float:
        """Seconds until the next try."""
        left = _thread.call.give_up - time.monotonic() if _thread.call else math.inf
        return max(0.0, min(super().compute(failures), left))


class KeepTrying(Retry):
    """Tries each call at least twice, and again until `wait_s` seconds have passed since it began."""

    def __init__(self, wait_s: float = 0.0) -> None:
        # Older releases of redis-py let the sockets' own errors through to here.
        super().__init__(_Backoff(base=0.05, cap=1), -1, (*UNREACHABLE, OSError))
        self._wait_s = max(wait_s, BRIEFLY_S)

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *more: Any, **named: Any) -> T:
        """Retry's own, but for when it ends. What a call does within (connect, ping) has the call's own end."""
        if _thread.call is not None:
            return super().call_with_retry(do, _ending(_thread.call, fail, tries=1), *more, **named)
        now = time.monotonic()
        call = _thread.call = _Call(now, min(now + self._wait_s, _thread.limit))
        try:
            result = super().call_with_retry(do, _ending(call, fail, tries=2), *more, **named)
        finally:
            _thread.call = None
        call.answered()
        return result


def _ending(call: _Call, fail: Callable[..., Any], *, tries: int) -> Callable[..., None]:
    """What to do when a try has failed: `fail`, and the end when the time has passed."""
    failures = 0

    def failed(error: Exception, *count: int) -> None:
        nonlocal failures
        failures += 1
        fail(error, *count)
        call.failed(error)
        if isinstance(error, REFUSED) or (failures >= tries and time.monotonic() >= call.give_up):
            raise error

    return failed


@contextmanager
def no_later_than(give_up: float | None) -> Iterator[None]:
    """Calls of this thread end by then (monotonic clock), however long they would keep trying."""
    before = _thread.limit
    _thread.limit = before if give_up is None else min(before, give_up)
    try:
        yield
    finally:
        _thread.limit = before


def lost() -> None:
    """Count an answer of this thread that was lost outside of a call."""
    _thread.failures += 1


def failures() -> int:
    """How many tries of this thread have failed so far; more after a call means that its first answer may be lost."""
    return _thread.failures
