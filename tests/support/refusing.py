"""A Redis that refuses writes for a while, in each way that one setting brings about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis

#: How a Redis comes to refuse writes, and to take them again; by the code of its answers.
_SWITCHES: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "READONLY": (lambda redis: redis.slaveof("127.0.0.1", 1), lambda redis: redis.slaveof()),
    "NOREPLICAS": (
        lambda redis: redis.config_set("min-replicas-to-write", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 0),
    ),
    "OOM": (lambda redis: redis.config_set("maxmemory", 1), lambda redis: redis.config_set("maxmemory", 0)),
}

CODES = tuple(_SWITCHES)


def refuse(redis: Redis, code: str) -> None:
    """Have it refuse writes."""
    _SWITCHES[code][0](redis)


def serve(redis: Redis) -> None:
    """Have it take writes again, whatever it refused them for."""
    for _, again in _SWITCHES.values():
        again(redis)


@contextmanager
def refusing(redis: Redis, code: str) -> Iterator[None]:
    """It refuses meanwhile."""
    refuse(redis, code)
    try:
        yield
    finally:
        serve(redis)


def url_of(redis: Redis) -> str:
    """The URL that names it."""
    return f"redis://127.0.0.1:{redis.connection_pool.connection_kwargs['port']}/0"
