"""Pools that hand out an open connection at once, and take it back at once.

redis-py counts each use of a connection for its metrics, and prepares to open it: that takes longer than to send a
short command. What is not usual, it still does itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis import ConnectionPool
from redis.sentinel import SentinelConnectionPool

if TYPE_CHECKING:
    _Base = ConnectionPool
else:
    _Base = object


class _Quick(_Base):
    def get_connection(self, *_arguments: Any, **_options: Any) -> Any:
        """Return a connection that can be used."""
        self._checkpid()
        with self._lock:
            if self._available_connections and self._available_connections[-1].is_usable():
                connection = self._available_connections.pop()
                self._in_use_connections.add(connection)
                return connection
        return super().get_connection()

    def release(self, connection: Any) -> None:
        """Take back a connection that `get_connection` returned."""
        self._checkpid()
        with self._lock:
            is_ours = connection in self._in_use_connections and self.owns_connection(connection)
            if is_ours and not connection.should_reconnect():
                self._in_use_connections.remove(connection)
                self._available_connections.append(connection)
                return
        super().release(connection)


class QuickPool(_Quick, ConnectionPool):
    """Connections to one server. Their class is one of `connection/refusals.py`."""


class QuickPrimaryPool(_Quick, SentinelConnectionPool):
    """Connections to the primary that sentinels name."""
