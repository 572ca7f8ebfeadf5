"""The sentinels of a Redis URL, which name its primary."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry

from voicequeue.storage.connection.problems import ConnectionProblem, NoPrimaryError, TlsError
from voicequeue.storage.connection.redis_url import RedisAddress
from voicequeue.storage.connection.refusals import PlainServerConnection, SecureServerConnection

#: How long a sentinel may take to accept a connection and to answer (seconds), before the next one is asked.
SENTINEL_TIMEOUT_S = 1.0


class Sentinels:
    """The sentinels, asked one after the other; those that answered come first. Safe to share.

    More than half of them are asked, if so many answer: a sentinel that is cut off with an old primary still names it.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._clients = {f"{host}:{port}": _client(address, host, port) for host, port in address.hosts}
        self._order = list(self._clients)
        self._lock = threading.Lock()

    @property
    def clients(self) -> dict[str, Redis]:
        """A client of each sentinel, by its host and port."""
        return self._clients

    def discover_master(self, name: str) -> tuple[str, int]:
        """Return the host and port of the primary of the latest election; redis-py's pool calls it. Raises
        NoPrimaryError, which says what each sentinel answered."""
        primaries, problems = self._ask(name)
        latest = max(primaries.values(), key=_trust, default=None)
        if latest is not None and not _problem(latest):
            return str(latest["ip"]), int(latest["port"])
        raise _no_primary(name, problems | {sentinel: _problem(primary) for sentinel, primary in primaries.items()})

    def _ask(self, name: str) -> tuple[dict[str, dict[str, Any]], dict[str, Exception | str]]:
        """Ask more than half of the sentinels; return what they say of the primary, and why others say nothing."""
        primaries: dict[str, dict[str, Any]] = {}
        problems: dict[str, Exception | str] = {}
        for sentinel in list(self._order):
            try:
                primary = cast(dict[str, Any], self._clients[sentinel].sentinel_masters()).get(name)
            except (ConnectionError, TimeoutError, ResponseError) as error:
                problems[sentinel] = error
                continue
            if primary is None:
                problems[sentinel] = "does not know this name"
                continue
            primaries[sentinel] = primary
            if 2 * len(primaries) > len(self._clients):
                break
        with self._lock:
            self._order = sorted(self._order, key=lambda sentinel: sentinel not in primaries)
        return primaries, problems


def _trust(primary: dict[str, Any]) -> tuple[int, bool]:
    """Return a key that sorts answers of sentinels: by election, and a primary that is up after one that is down."""
    return primary["config-epoch"], not _problem(primary)


def _no_primary(name: str, problems: Mapping[str, Exception | str]) -> ConnectionProblem:
    """Return the error of sentinels that name no primary; that of TLS, where it fails with all of them."""
    for error in problems.values():
        if isinstance(error, TlsError) and all(isinstance(other, TlsError) for other in problems.values()):
            return error
    texts = "; ".join(f"{sentinel}: {problem}" for sentinel, problem in problems.items())
    return NoPrimaryError(f"no sentinel names a primary {name!r} that is up ({texts})")


def _problem(primary: dict[str, Any]) -> str:
    """Return why what a sentinel answered names no primary; '' if it does."""
    return "says that it is down" if primary["is_sdown"] or primary["is_odown"] or not primary["is_master"] else ""


def _client(address: RedisAddress, host: str, port: int) -> Redis:
    return Redis.from_pool(
        ConnectionPool(
            host=host,
            port=port,
            connection_class=PlainServerConnection if address.tls is None else SecureServerConnection,
            username=address.sentinel_username,
            password=address.sentinel_password,
            socket_connect_timeout=SENTINEL_TIMEOUT_S,
            socket_timeout=SENTINEL_TIMEOUT_S,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **(address.tls or {}),
        )
    )
