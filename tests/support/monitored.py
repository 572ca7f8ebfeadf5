"""Record the commands that clients send to Redis, with MONITOR."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import psutil
from redis import Redis
from redis.exceptions import ResponseError

_END = "end of the recording"

#: Commands whose arguments are channels, not keys.
_OF_CHANNELS = {"PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE"}


@contextmanager
def recorded(redis: Redis, process: psutil.Process | None = None) -> Iterator[list[list[str]]]:
    """Yield a list that holds, after the body, the commands of clients, each with its arguments; commands of scripts
    are left out. With a `process`, of its connections alone, if they are open at the beginning or at the end."""
    entries: list[dict[str, str]] = []
    commands: list[list[str]] = []
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]
        thread = threading.Thread(target=_record, args=(monitor, entries))
        ports = _ports_of(process)
        thread.start()
        try:
            yield commands
            ports |= _ports_of(process)
        finally:
            redis.echo(_END)
            thread.join()
        # Splits arguments that contain spaces: message bodies do, keys do not.
        commands += [
            entry["command"].split(" ") for entry in entries if process is None or entry["client_port"] in ports
        ]


def _ports_of(process: psutil.Process | None) -> set[str]:
    return {str(at.laddr.port) for at in process.net_connections() if at.laddr} if process else set()


def _record(monitor: Any, entries: list[dict[str, str]]) -> None:
    for command in monitor.listen():
        if _END in command["command"]:
            return
        if command["client_type"] != "lua":
            entries.append(command)


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
