"""The queue's time in Celery, for hosts whose clocks differ.

Celery converts a countdown into a timestamp by the sender's clock, and back into seconds by the receiver's; kombu
restores messages that exceed the visibility timeout by the clock of a third host. If these clocks differ, polls are
early (and find nothing due) or late, and messages are delivered twice. This module makes all of them use the queue's
time, which is that of Redis.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache

from redis import Redis

from config.settings import settings
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.clock import RedisClock
from voicequeue.storage.connection.retry import retry_until
from workers.dependencies import REDIS_RETRY_S

#: Time limit (seconds) for a worker's event loop to wait for Redis.
EVENT_LOOP_WAIT_S = 1.0


def queue_time() -> float:
    """Return the queue's time in Unix seconds. The first call in a process requires Redis."""
    return _clock_of(os.getpid())()


@lru_cache(maxsize=1)
def _clock_of(pid: int) -> RedisClock:
    return RedisClock(_redis_of(pid))


def queue_redis() -> Redis:
    """Return this process's client of the queue's Redis for what Celery does: its clock and its messages."""
    return _redis_of(os.getpid())


@lru_cache(maxsize=1)
def _redis_of(pid: int) -> Redis:  # noqa: ARG001  the key of the cache
    return connect(settings().redis_url, wait_s=REDIS_RETRY_S)


def event_loop_time() -> float:
    """Return the queue's time, in a worker's event loop. Raises redis.ConnectionError, on which Celery reconnects."""
    with retry_until(time.monotonic() + EVENT_LOOP_WAIT_S):
        return queue_time()


def to_monotonic(eta: datetime, timezone: tzinfo = UTC) -> float:
    """Convert a timestamp of the queue's time into the monotonic clock of a worker's timers."""
    at = eta if eta.tzinfo else eta.replace(tzinfo=timezone)
    return time.monotonic() + at.timestamp() - event_loop_time()
