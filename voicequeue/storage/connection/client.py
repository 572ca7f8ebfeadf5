"""The Redis client of a queue."""

from __future__ import annotations

from redis import Redis

from voicequeue.storage.connection.redis_url import validate_redis_url
from voicequeue.storage.connection.refusals import PlainConnection, SecureConnection
from voicequeue.storage.connection.retry import TimedRetry


def connect(url: str, *, wait_s: float = 0.0) -> Redis:
    """Return a client for the queue's Redis. Each call is retried for up to `wait_s` seconds while Redis is
    unreachable or refuses commands.

    Raises ValueError if not every process can use `url`. The message does not quote it: it may contain a password.
    """
    return Redis.from_url(
        validate_redis_url(url),
        connection_class=SecureConnection if url.startswith("rediss:") else PlainConnection,
        decode_responses=True,
        protocol=2,  # responses have one shape for every server and release of redis-py
        socket_connect_timeout=5,
        socket_timeout=10,
        health_check_interval=25,
        retry=TimedRetry(wait_s),
    )
