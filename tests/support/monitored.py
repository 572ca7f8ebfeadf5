"""What clients ask Redis for, as its MONITOR shows it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

_END = "end of the recording"

#: What their arguments are: channels, and not keys.
_OF_CHANNELS = {"PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE"}


@contextmanager
def recorded(redis: Redis) -> Iterator[list[list[str]]]:
    """Record the commands that clients send meanwhile, each with its arguments; what scripts do is left out."""
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
            # An argument with spaces falls apart: bodies of messages do, names of keys do not.
            commands.append(command["command"].split(" "))


def names_in(redis: Redis, commands: list[list[str]]) -> set[str]:
    """Return the keys and channels that these commands name."""
    return {name for command in commands for name in _names(redis, command)}


def _names(redis: Redis, command: list[str]) -> list[str]:
    verb = command[0].upper()
    if verb in _OF_CHANNELS:
        return command[1:2] if verb == "PUBLISH" else command[1:]
    try:
        return cast(list[str], redis.execute_command("COMMAND GETKEYS", *command))  # type: ignore[no-untyped-call]
    except ResponseError:  # it has none
        return []
