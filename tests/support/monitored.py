"""Record the commands that clients send to Redis, with MONITOR."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

_END = "end of the recording"

#: Commands whose arguments are channels, not keys.
_OF_CHANNELS = {"PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE"}


@contextmanager
def recorded(redis: Redis) -> Iterator[list[list[str]]]:
    """Yield a list that collects the commands of clients, each with its arguments; commands of scripts are left out."""
    commands: list[list[str]] = []
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
        thread = threading.Thread(target=_record, args=(monitor, commands))
        thread.start()
        try:
            yield commands
        finally:
            redis.echo(_END)
            thread.join()


def _record(monitor: Any, commands: list[list[str]]) -> None:
    for command in monitor.listen():
        if _END in command["command"]:
            return
        if command["client_type"] != "lua":
            # Splits arguments that contain spaces: message bodies do, keys do not.
            commands.append(command["command"].split(" "))


def names_in(redis: Redis, commands: list[list[str]]) -> set[str]:
    """Return the keys and channels in these commands."""
    return {name for command in commands for name in _names(redis, command)}


def _names(redis: Redis, command: list[str]) -> list[str]:
    verb = command[0].upper()
    if verb in _OF_CHANNELS:
        return command[1:2] if verb == "PUBLISH" else command[1:]
    try:
        return cast(list[str], redis.execute_command("COMMAND GETKEYS", *command))  # type: ignore[no-untyped-call]
    except ResponseError:  # the command has no keys
        return []
