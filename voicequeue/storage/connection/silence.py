"""Connections that are lost without a sign: a NAT, a firewall or a network that parts drops their packets.

Nothing but a timeout shows such a loss. What drops one connection of a process usually drops all of them at once, so a
process that waited for each one's timeout, one after the other, would be idle for minutes. Here it waits for one: after
it, every connection that has not been used since is opened again before its next use.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError, TimeoutError

if TYPE_CHECKING:
    from redis.connection import AbstractConnection as _Base
else:
    _Base = object


class _Loss:
    """The last loss of a connection of this process, by its monotonic clock."""

    at = float("-inf")


class Suspicious(_Base):
    """A connection that is opened again before its next use if another one has been lost since its last reply.

    Pools call `connect` whenever they hand out a connection, and no command is in progress then.
    """

    _answered_at = float("-inf")

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read one reply."""
        try:
            return super().read_response(*args, **kwargs)
        except (ConnectionError, TimeoutError):
            _Loss.at = time.monotonic()
            raise
        finally:
            self._answered_at = time.monotonic()

    @property
    def is_suspect(self) -> bool:
        """True if another connection has been lost since the last reply."""
        return self._answered_at < _Loss.at

    def is_usable(self) -> bool:
        """Return whether the connection is open, not suspect, and without unread data."""
        try:
            return self._sock is not None and not self.is_suspect and not self.can_read()
        except (ConnectionError, TimeoutError, OSError):  # closed by the server
            return False

    def close_if_suspect(self) -> None:
        """Close the connection if it is suspect."""
        if self.is_suspect:
            self.disconnect()  # type: ignore[no-untyped-call]  # redis-py has no types here

    def connect(self) -> None:
        """Open the connection, if it is not open or suspect. redis-py would prepare retries first, for each command."""
        if self._sock is None or self.is_suspect:
            super().connect()  # type: ignore[no-untyped-call]  # as above

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Open the connection, if it is not open or suspect."""
        self.close_if_suspect()
        super().connect_check_health(check_health, retry_socket_connect)
