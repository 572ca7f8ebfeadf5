"""A Redis that rejects writes for a while, for each reason that one setting causes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis

#: By error code: how to make Redis reject writes, and how to undo it.
_SWITCHES: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "READONLY": (lambda redis: redis.slaveof("127.0.0.1", 1), lambda redis: redis.slaveof()),
    "NOREPLICAS": (
        lambda redis: redis.config_set("min-replicas-to-write", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 0),
    ),
    "OOM": (lambda redis: redis.config_set("maxmemory", 1), lambda redis: redis.config_set("maxmemory", 0)),
}

CODES = tuple(_SWITCHES)


def reject_writes(redis: Redis, code: str) -> None:
    """Make Redis reject writes."""
    _SWITCHES[code][0](redis)


def accept_writes(redis: Redis) -> None:
    """Make Redis accept writes again, for every reason in CODES."""
    for _, undo in _SWITCHES.values():
        undo(redis)


@contextmanager
def rejecting_writes(redis: Redis, code: str) -> Iterator[None]:
    """Reject writes inside the block."""
    reject_writes(redis, code)
    try:
        yield
    finally:
        accept_writes(redis)


def url_of(redis: Redis) -> str:
    """Return the URL of the Redis of this client."""
    return f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}/0"
