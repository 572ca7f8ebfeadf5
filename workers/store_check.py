"""The check of the queue's format at the start of a process."""

from __future__ import annotations

from redis.exceptions import RedisError

from config.settings import Settings
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.format import FormatStamp


def require_usable_store(configured: Settings) -> None:
    """Stamp a new queue with this release's format. Raises StoreFormatError if this release must not use the queue.

    Each new connection checks that again, so a Redis that does not answer now is not waited for.
    """
    with connect(configured.redis_url, prefix=configured.prefix) as redis:
        try:
            FormatStamp(Keyspace(redis, configured.prefix)).ensure()
        except RedisError:
            return
