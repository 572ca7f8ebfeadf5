"""The queue's time in Celery, where sender and receiver of a message may be hosts whose clocks differ.

Celery turns a countdown into a time of day by the sender's clock, and back into seconds by the receiver's;
kombu takes a message from a worker that seems to hold it for too long by yet another host's. Where these
clocks differ, polls come too early (and find nothing due) or too late, and messages are delivered twice.
Here all of these times are the queue's.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache

from celery import Celery

from config.settings import settings
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.clock import RedisClock
from voicequeue.storage.connection.retry import no_later_than
from workers.dependencies import STORE_WAIT_S

#: A worker's event loop waits no longer (seconds) for Redis.
WAIT_S = 1.0


def queue_time() -> float:
    """Return the queue's time in Unix seconds. The first reading of a process needs Redis."""
    return _clock_of(os.getpid())()


@lru_cache(maxsize=1)
def _clock_of(pid: int) -> RedisClock:  # noqa: ARG001  the key of the cache
    return RedisClock(connect(settings().redis_url, wait_s=STORE_WAIT_S))


def event_loop_time() -> float:
    """Return the same for a worker's event loop. Raises redis.ConnectionError, at which Celery connects again."""
    with no_later_than(time.monotonic() + WAIT_S):
        return queue_time()


class App(Celery):
    """Celery, with countdowns that end by the queue's time."""

    def now(self) -> datetime:
        """Return what countdowns are counted from."""
        return datetime.fromtimestamp(queue_time(), UTC)


def timer_time(eta: datetime, timezone: tzinfo = UTC) -> float:
    """Return a time of day as one on the monotonic clock, by which a worker's timers go."""
    at = eta if eta.tzinfo else eta.replace(tzinfo=timezone)
    return time.monotonic() + at.timestamp() - event_loop_time()
