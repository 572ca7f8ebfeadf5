"""Transactions in one round trip, as redis-py's pipelines execute them, in half of their processor time."""

from __future__ import annotations

from functools import partial
from typing import Any

from redis import Redis

#: A command and its arguments; keys are complete.
Command = tuple[str | float, ...]


def execute(client: Redis, *commands: Command) -> None:
    """Execute all commands or none. Raises the error of the first that Redis refuses."""
    pool: Any = client.connection_pool
    connection = pool.get_connection()
    try:
        exchange = partial(_exchange, connection, [("MULTI",), *commands, ("EXEC",)])
        connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    finally:
        pool.release(connection)


def _exchange(connection: Any, commands: list[Command]) -> None:
    """Send commands, and read the replies to all of them."""
    connection.send_packed_command(connection.pack_commands(commands))
    try:
        *_, results = [connection.read_response() for _ in commands]
    except BaseException:
        connection.disconnect()  # it may have replies that were not read
        raise
    for result in results:
        if isinstance(result, Exception):
            raise result
