"""The queue's time: Redis's, so that hosts whose clocks differ agree on it.

A process asks Redis for its time every few seconds and counts on from there with a counter that no
change of this host's clock affects. Times that are written to Redis, or compared with times
read from it, are of this clock. Timestamps for others (signatures, logs) are of the host's clock.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from voicequeue.storage.connection.retry import retry_until

log = logging.getLogger("voicequeue")

#: Returns the current Unix time in seconds.
Clock = Callable[[], float]

#: Redis is asked this often (seconds), and this soon after an answer that took too long to be of use.
RESYNC_S, RETRY_S = 10.0, 1.0

#: The first answer is good enough when it is this exact (seconds); otherwise Redis is asked up to this often.
EXACT_S, FIRST_ATTEMPTS = 0.01, 3

#: How far two clocks may drift apart in a second: what NTP corrects at most.
DRIFT = 5e-4

#: A difference beyond this (seconds) and beyond the error of measurement is a step: Redis's clock was set.
STEP_S = 1.0

#: The least difference between two readings: one call writes one time.
_TICK_S = 1e-6


if sys.platform == "win32":

    def uptime() -> float:
        """Return the seconds since this host started, including those that it slept."""
        return time.monotonic()
else:

    def uptime() -> float:
        """Return the seconds since this host started, including those that it slept."""
        return time.clock_gettime(_COUNTER)

    #: Where there is no such counter, a host that slept is behind until Redis is asked again.
    _COUNTER: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement at `at` on the counter: Redis's time is the counter plus `offset`, give or take `error`."""

    offset: float
    error: float
    at: float

    def error_at(self, at: float) -> float:
        """Return the error by then: clocks drift apart."""
        return self.error + DRIFT * (at - self.at)


class RedisClock:
    """Redis's time in Unix seconds, without asking Redis for it each time.

    Each reading is later than the one before, except after Redis's clock was set back. The first reading raises
    RedisError if Redis does not answer within the client's own timeouts; later ones do not fail and do not wait.
    Safe to share between threads and to use after a fork.
    """

    def __init__(self, redis: Redis, *, counter: Callable[[], float] = uptime) -> None:
        self._redis = redis
        self._counter = counter
        self._sample: Sample | None = None
        self._next_at = 0.0
        self._last = 0.0
        self._new_locks()

    def __call__(self) -> float:
        """Return the time now."""
        if self._pid != os.getpid():
            self._new_locks()  # another thread of the parent process may hold one
        sample = self._sample
        if sample is None:
            sample = self._first()
        elif self._counter() >= self._next_at and self._measuring.acquire(blocking=False):
            try:
                sample = self._renewed(sample)
            finally:
                self._measuring.release()
        with self._reading:
            self._last = max(self._counter() + sample.offset, self._last + _TICK_S)
            return self._last

    def _new_locks(self) -> None:
        self._pid = os.getpid()
        self._reading = threading.Lock()
        self._measuring = threading.Lock()

    def _first(self) -> Sample:
        """Ask Redis, as each thread does until one has the answer: none waits for another's timeout."""
        best = self._ask()
        for _ in range(FIRST_ATTEMPTS - 1):
            if best.error > EXACT_S:
                best = min(best, self._ask(), key=lambda sample: sample.error)
        return self._go_by(best)

    def _renewed(self, before: Sample) -> Sample:
        """Ask Redis again, and return the more exact sample."""
        try:
            with retry_until(time.monotonic()):
                sample = self._ask()
        except (RedisError, OSError):
            self._next_at = self._counter() + RETRY_S
            return before
        step, error = sample.offset - before.offset, before.error_at(sample.at)
        if abs(step) > STEP_S + error + sample.error:
            log.warning("Redis's clock was set by %+.1f s, or this host was suspended", step)
            self._last = 0.0
        elif sample.error > error:
            self._next_at = sample.at + RETRY_S
            return before
        return self._go_by(sample)

    def _go_by(self, sample: Sample) -> Sample:
        self._next_at = sample.at + RESYNC_S
        self._sample = sample
        return sample

    def _ask(self) -> Sample:
        """Assign Redis's time to the middle of the round trip."""
        sent_at = self._counter()
        seconds, microseconds = self._redis.time()
        received_at = self._counter()
        middle, error = (sent_at + received_at) / 2, (received_at - sent_at) / 2
        return Sample(seconds + microseconds / 1e6 - middle, error, received_at)
