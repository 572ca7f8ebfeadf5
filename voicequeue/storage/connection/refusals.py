"""Temporary refusals: Redis answers with an error that goes away without a change by the caller.

It is out of memory, its disk is full, a failover has made it a replica, or too few replicas are connected. Such an
error is treated like a lost connection: the connection is closed and the call is retried on a new one, which may reach
another server. A refused command was not executed: a script is refused before its first write or not, a transaction as
a whole. Except for UNREPLICATED, which is our own word: the primary has executed the command, its replicas have not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from socket import socket
from ssl import SSLError
from typing import Any, Final

from redis import Connection, SSLConnection
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.sentinel import SentinelManagedConnection

from voicequeue.storage.connection.problems import CLOSED, require_usable, tls_error, tls_errors
from voicequeue.storage.connection.silence import Suspicious

#: The codes of such errors, and how an operator ends them.
CURES: Mapping[str, str] = {
    "BUSY": "a script runs for too long: wait for its end, or use SCRIPT KILL",
    "CLUSTERDOWN": "the cluster does not serve every slot",
    "MASTERDOWN": "it is a replica that has lost its primary: restore their link",
    "MISCONF": "it cannot write its file: free space on its disk",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write: connect them",
    "OOM": "it is full: raise its maxmemory, or shorten the retention of finished jobs",
    "READONLY": "it is a replica: wait for the end of the failover, or let the Redis URL name the primary",
    "TRYAGAIN": "the cluster is moving its keys",
    "UNBLOCKED": "its role has changed: the next connection reaches the new primary",
    "UNREPLICATED": "the primary has it, and a failover may forget it: connect the replicas, and repeat the call",
}

#: Errors from whose texts redis-py removes the code.
_CODES: Mapping[type[ResponseError], str] = {
    ClusterDownError: "CLUSTERDOWN",
    MasterDownError: "MASTERDOWN",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    TryAgainError: "TRYAGAIN",
}

#: The text before the code: none, or that of Redis 6 for a refused script, or that of EXEC.
_BEFORE: Final = r"(?:^|^Error running script.* -|because of: )"
_REFUSAL: Final = re.compile(rf"{_BEFORE}((?:{'|'.join(CURES)})(?: .*|$))", re.DOTALL)

#: The end of the text that redis-py puts before the error of a command in a pipeline.
_OF_PIPELINE: Final = "of pipeline caused error: "

#: The position in a refused script, which says nothing to an operator.
_POSITION: Final = re.compile(r" script: .*on @.*", re.DOTALL)


class RedisRefusalError(RedisError):
    """Redis refused a command temporarily; the text is Redis's, and starts with the code."""

    @property
    def cure(self) -> str:
        """The advice for an operator."""
        return CURES[str(self).partition(" ")[0]]


def redis_refusal(error: ResponseError) -> RedisRefusalError | None:
    """Return the refusal in an error reply; None if the error is permanent."""
    code, message = _CODES.get(type(error)), str(error).rpartition(_OF_PIPELINE)[2]
    match = _REFUSAL.search(f"{code} {message}" if code else message)
    return RedisRefusalError(_POSITION.sub("", match[1]).rstrip(".")) if match else None


class _ClosedByRefusals(Suspicious):
    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one reply. Raises RedisRefusalError after closing the connection."""
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if refusal := redis_refusal(error):
                self.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here
                raise refusal from None
            raise


class _ToQueue(Suspicious):
    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in and select the database. Raises UnusableServerError for a Cluster and for a sentinel."""
        super().on_connect_check_health(check_health)
        try:
            self.send_command("HELLO", check_health=False)
            reply = self.read_response()
        except ResponseError:  # no right, or a proxy that does not know the command
            return
        require_usable(reply, self.host, self.port)


class PlainServerConnection(_ClosedByRefusals, Connection):
    """A connection that is closed by a refusal."""


class SecureServerConnection(_ClosedByRefusals, SSLConnection):
    """A TLS connection that is closed by a refusal, and says why TLS failed."""

    def _wrap_socket_with_ssl(self, sock: socket) -> Any:
        with tls_errors(self.host, self.port):
            return super()._wrap_socket_with_ssl(sock)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        """Open the connection. Raises TlsError also for an alert after the handshake: that the server requires a
        certificate."""
        try:
            super().connect_check_health(*args, **kwargs)
        except RedisConnectionError as error:
            if isinstance(error.__context__, SSLError) and not isinstance(error.__context__, CLOSED):
                raise tls_error(self.host, self.port, error.__context__) from None
            raise


class PlainConnection(_ToQueue, PlainServerConnection):
    """A connection to a server that can keep a queue."""


class SecureConnection(_ToQueue, SecureServerConnection):
    """A TLS connection to a server that can keep a queue."""


class _ToPrimary(SentinelManagedConnection):
    """Asks the sentinels each time when it is opened.

    redis-py 8.1 does so for its first connection only: a call that is repeated after a failover would go to the server
    that was the primary (its issue 3874).
    """

    close_if_suspect: Callable[[], None]

    def _connect_retry(self) -> None:
        self.connect_check_health(check_health=self.connection_pool.check_connection)

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:  # noqa: ARG002
        """Open the connection to the present primary, if it is not open. The call is repeated with another one."""
        self.close_if_suspect()
        if self._sock is None:
            self.host, self.port = self.connection_pool.get_master_address()
        super().connect_check_health(check_health, retry_socket_connect=False)


class PrimaryConnection(_ToPrimary, PlainConnection):
    """A connection to the primary that sentinels name."""


class SecurePrimaryConnection(_ToPrimary, SecureConnection):
    """A TLS connection to the primary that sentinels name."""
