"""The lengths of Celery's queues for Flower, read with the queue's own client.

Flower 2.2 reads them with a client of its own, which knows one sentinel only and no certificates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from flower import views  # type: ignore[import-untyped]
from kombu.transport.redis import PRIORITY_STEPS, Channel
from redis.exceptions import RedisError

from config.settings import settings
from voicequeue.errors import StoreFormatError
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import celery_root


def require_usable_store() -> None:
    """End this process with one sentence if its release must not use the queue. Raises SystemExit."""
    configured = settings()
    with connect(configured.redis_url, prefix=configured.prefix) as redis:
        try:
            redis.ping()
        except StoreFormatError as error:
            raise SystemExit(str(error)) from None
        except RedisError:  # it is checked again when Redis answers
            return


def install() -> None:
    """Give this reader to the Flower that this process starts later."""
    views.Broker = Broker


class Broker:
    """The reader of queues that Flower uses."""

    def __init__(self, *_: object, **__: object) -> None:
        """Accept what Flower passes: the address is that of the settings."""

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return the name and the number of messages of each queue."""
        return await asyncio.to_thread(_read_queues, list(names))


def _read_queues(names: list[str]) -> list[dict[str, Any]]:
    configured = settings()
    root = celery_root(configured.prefix)
    with connect(configured.redis_url, prefix=configured.prefix) as redis, redis.pipeline(transaction=False) as pipe:
        for name in names:
            for priority in PRIORITY_STEPS:
                pipe.llen(root + (f"{name}{Channel.sep}{priority}" if priority else name))
        lengths = iter(pipe.execute())
    return [{"name": name, "messages": sum(next(lengths) for _ in PRIORITY_STEPS)} for name in names]
