"""The Redis client of a queue: of one server, or of the primary that sentinels name."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from redis import Connection, ConnectionPool, Redis

from voicequeue.storage.connection.format_check import checked_on_connect
from voicequeue.storage.connection.pool import QuickPool, QuickPrimaryPool
from voicequeue.storage.connection.redis_url import RedisAddress, parse_redis_url
from voicequeue.storage.connection.refusals import (
    PlainConnection,
    PrimaryConnection,
    SecureConnection,
    SecurePrimaryConnection,
)
from voicequeue.storage.connection.retry import TimedRetry
from voicequeue.storage.connection.sentinels import Sentinels

#: The client of one server, or of the primary that sentinels name.
RedisClient = Redis


class QueueClient(Redis):
    """redis-py's client without its telemetry, which takes a third of the processor time of a command."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its parsed reply; retry it as the connection says."""
        if self.connection is not None:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no types
        connection: Any = self.connection_pool.get_connection()
        try:
            exchange = partial(self._exchange, connection, args, options)
            return connection.retry.call_with_retry(exchange, lambda *_: connection.disconnect())
        finally:
            self.connection_pool.release(connection)

    def _exchange(self, connection: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        connection.send_command(*args)
        return self.parse_response(connection, args[0], **options)  # type: ignore[no-untyped-call]  # as above


#: The Redis of a queue whose user names none.
DEFAULT_URL = "redis://localhost:6379/0"

#: How long Redis may take to accept a connection, and to answer a command, before the connection counts as lost
#: (seconds). Commands that wait in Redis wait for less.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 5, 10

#: How the kernel notices that the other end of a connection is gone although nothing says so: a probe after so many
#: idle seconds, then one every few seconds; and how long what was sent may stay unacknowledged (milliseconds).
_TCP_OPTIONS: Mapping[str, int] = {
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 15_000,
}

#: Those of them that this system has, by number.
KEEPALIVE_OPTIONS: Mapping[int, int] = {
    getattr(socket, name): value for name, value in _TCP_OPTIONS.items() if hasattr(socket, name)
}


def connect(url: str, *, wait_s: float = 0.0, prefix: str | None = None) -> Redis:
    """Return a client for the queue's Redis. Each call is retried for up to `wait_s` seconds while Redis is
    unreachable or refuses commands, also while sentinels elect a new primary. With `prefix`, calls raise
    StoreFormatError if that queue has a format that this release must not use.

    Raises ValueError if not every process can use `url`. The message does not quote it: it may contain a password.
    """
    return QueueClient.from_pool(
        connection_pool(
            parse_redis_url(url),
            decode_responses=True,
            protocol=2,  # responses have one shape for every server and release of redis-py
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            socket_keepalive=True,
            socket_keepalive_options=KEEPALIVE_OPTIONS,
            health_check_interval=25,
            retry=TimedRetry(wait_s),
            **(checked_on_connect(prefix) if prefix else {}),
        )
    )


def connection_pool(
    address: RedisAddress,
    adapt: Callable[[type[Connection]], type[Connection]] = lambda kind: kind,
    **options: Any,
) -> ConnectionPool:
    """Return a pool of connections to the server, or to the server that the sentinels name as the primary.

    `options` are redis-py's options of a connection. `adapt` may replace the class of the connections.
    """
    options |= {"db": address.database, "username": address.username, "password": address.password}
    options |= address.tls or {}
    if not address.primary:
        host, port = address.hosts[0]
        kind = PlainConnection if address.tls is None else SecureConnection
        return QuickPool(host=host, port=port, connection_class=adapt(kind), **options)
    managed = PrimaryConnection if address.tls is None else SecurePrimaryConnection
    return QuickPrimaryPool(  # type: ignore[no-untyped-call]  # redis-py has no types here
        address.primary, Sentinels(address), connection_class=adapt(managed), **options
    )
