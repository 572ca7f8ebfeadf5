"""The Lua scripts: one action a file, loaded once, each led by the shared ones in `lib/`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError

from voicequeue.storage.connection import UNREACHABLE, failures, lost, no_later_than
from voicequeue.texts import mended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

#: In this order: each relies on those before it.
_PARTS = (
    "keys",
    "line",
    "flow",
    "refused",
    "orders",
    "outbox",
    "callbacks",
    "archive",
    "move",
    "cancel",
    "voices",
    "batch",
    "walk",
)
_SHARED = tuple(f"lib/{name}.lua" for name in _PARTS)

#: What each does at last.
_END = "local outcome = action() write_sums() return outcome"


@dataclass(frozen=True, slots=True)
class Script:
    """A script's whole text, and the name that Redis knows it by."""

    source: str
    sha: str


@cache
def load(name: str) -> Script:
    """The script called `name`."""
    folder = files(__name__)
    *shared, action = ((folder / part).read_text(encoding="utf-8") for part in (*_SHARED, f"{name}.lua"))
    source = "\n".join((*shared, "local function action()", action, "end", _END))
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def run(redis: Redis, name: str, root: str, *arguments: str | float) -> Any:
    """What the script called `name` returns; `root` is what every key begins with."""
    return _run(redis, load(name), root, _encodable(arguments))


def _run(redis: Redis, script: Script, root: str, given: Sequence[str | float]) -> Any:
    command: Callable[..., Any] = redis.execute_command
    try:
        return command("EVALSHA", script.sha, 1, root, *given)
    except NoScriptError:  # a Redis that has not seen it yet, or was restarted
        return command("EVAL", script.source, 1, root, *given)


class Call:
    """A script that Redis runs while its caller does something else."""

    def __init__(self, redis: Redis, name: str, root: str, *arguments: str | float) -> None:
        self._redis, self._script, self._root = redis, load(name), root
        self._given = _encodable(arguments)
        self._connection: Any = None
        self._failures = failures()

    def begin(self) -> None:
        """Send it, on a connection that is its own until the result is read. Where Redis is away, that waits for it."""
        connection: Any = None
        try:
            with no_later_than(time.monotonic()):
                connection = self._redis.connection_pool.get_connection()
            connection.send_command("EVALSHA", self._script.sha, 1, self._root, *self._given)
        except (*UNREACHABLE, OSError):
            self._lost(connection)
        else:
            self._connection = connection

    def result(self) -> Any:
        """What it returns. Where the connection was lost it is asked for again, like any other script."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                found = connection.read_response()
            except (*UNREACHABLE, OSError):
                self._lost(connection)
            except RedisError as error:
                self._redis.connection_pool.release(connection)
                if not isinstance(error, NoScriptError):
                    raise
            else:
                self._redis.connection_pool.release(connection)
                return found
        return _run(self._redis, self._script, self._root, self._given)

    def is_second_try(self) -> bool:
        """Whether what it returned may tell of what it did itself, in a try whose answer was lost."""
        return failures() > self._failures

    def _lost(self, connection: Any) -> None:
        lost()
        if connection is not None:
            connection.disconnect()
            self._redis.connection_pool.release(connection)


def _encodable(arguments: Sequence[str | float]) -> list[str | float]:
    return [mended(each) if isinstance(each, str) else each for each in arguments]
