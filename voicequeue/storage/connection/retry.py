"""Retries of calls to Redis while it is unreachable, restarting, loading its file or refusing commands.

The limit is a time and not a number of attempts: redis-py retries connecting within each attempt, so that numbers
multiply, and an attempt may take no time (connection refused) or seconds (Redis is frozen).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from voicequeue.storage.connection.problems import ConnectionProblem, UnusableServerError
from voicequeue.storage.connection.refusals import RedisRefusalError

log = logging.getLogger("voicequeue")

T = TypeVar("T")

#: Errors while Redis is unreachable, restarting, loading its file, or refusing commands temporarily.
UNREACHABLE = (ConnectionError, TimeoutError, BusyLoadingError, RedisRefusalError)

#: Those of them that a retry does not solve.
PERMANENT = (AuthenticationError, AuthorizationError, UnusableServerError)

#: Every call is retried for this long (seconds): a lost connection, a quick restart.
MIN_RETRY_S = 0.5


@dataclass(slots=True)
class _Call:
    """A call in progress; times are of the monotonic clock."""

    started_at: float
    give_up: float
    is_logged: bool = False

    def failed(self, error: Exception) -> None:
        """Count a failed attempt if Redis may have executed the command, and log once that the call takes longer."""
        _thread.failures += not isinstance(error, RedisRefusalError)
        now = time.monotonic()
        if not self.is_logged and self.started_at + MIN_RETRY_S <= now < self.give_up:
            self.is_logged = True
            log.warning("Redis %s; trying for up to %.0f s more", _problem(error), self.give_up - now)

    def answered(self) -> None:
        """Log that Redis answers again, if its failure was logged."""
        if self.is_logged:
            log.info("Redis answers again, after %.0f s", time.monotonic() - self.started_at)


def _problem(error: Exception) -> str:
    match error:
        case RedisRefusalError():
            return f"refuses ({error})"
        case ConnectionProblem():
            return f"cannot be used ({error})"
    return "does not answer"


class _Thread(threading.local):
    """The call, the deadline and the failed attempts of a thread."""

    call: _Call | None = None
    limit: float = math.inf
    failures: int = 0


_thread = _Thread()


class _Backoff(ExponentialWithJitterBackoff):
    """Exponential up to a second, but not beyond the deadline of the call, where one last attempt follows."""

    def compute(self, failures: int) -> float:
        """Return the seconds until the next attempt."""
        remaining_s = _thread.call.give_up - time.monotonic() if _thread.call else math.inf
        return max(0.0, min(super().compute(failures), remaining_s))


class TimedRetry(Retry):
    """Attempt each call at least twice, and again until `wait_s` seconds after its start."""

    def __init__(self, wait_s: float = 0.0) -> None:
        # Older releases of redis-py do not translate errors of sockets.
        super().__init__(_Backoff(base=0.05, cap=1), -1, (*UNREACHABLE, OSError))
        self.wait_s = max(wait_s, MIN_RETRY_S)

    def call_with_retry(self, do: Callable[[], T], fail: Callable[..., Any], *more: Any, **named: Any) -> T:
        """Retry like redis-py, with another end. Nested calls (connect, ping) have the deadline of the outer one."""
        if _thread.call is not None:
            return super().call_with_retry(do, _ending(_thread.call, fail, tries=1), *more, **named)
        now = time.monotonic()
        call = _thread.call = _Call(now, min(now + self.wait_s, _thread.limit))
        try:
            result = super().call_with_retry(do, _ending(call, fail, tries=2), *more, **named)
        finally:
            _thread.call = None
        call.answered()
        return result


def _ending(call: _Call, fail: Callable[..., Any], *, tries: int) -> Callable[..., None]:
    """Return a handler of failed attempts that calls `fail` and raises after the deadline."""
    failures = 0

    def failed(error: Exception, *count: int) -> None:
        nonlocal failures
        failures += 1
        fail(error, *count)
        call.failed(error)
        if isinstance(error, PERMANENT) or (failures >= tries and time.monotonic() >= call.give_up):
            raise error

    return failed


def retry_time_s(redis: Redis) -> float:
    """Return for how long (seconds) the calls of a client are retried."""
    retry = redis.get_retry()
    return retry.wait_s if isinstance(retry, TimedRetry) else 0.0


class retry_until:  # noqa: N801  # a context manager, without a generator: each call of `enqueue` enters it
    """Limit the retries of this thread's calls to a deadline (monotonic clock)."""

    def __init__(self, at: float | None) -> None:
        self._at = math.inf if at is None else at

    def __enter__(self) -> None:
        self._before = _thread.limit
        _thread.limit = min(self._before, self._at)

    def __exit__(self, *_: object) -> None:
        _thread.limit = self._before


def count_lost_reply() -> None:
    """Count a reply that this thread lost outside of a call."""
    _thread.failures += 1


def failed_attempts() -> int:
    """Return the number of failed attempts of this thread. If it grows during a call, the first reply may be lost."""
    return _thread.failures
