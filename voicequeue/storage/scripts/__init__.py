"""The Lua scripts: one action per file, loaded once, each preceded by the shared parts in `lib/`."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from voicequeue.domain.store_format import CURRENT, too_old
from voicequeue.errors import StoreFormatError
from voicequeue.storage.connection.recorded_change import current_change, has_changed, unrecorded_change
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.connection.retry import (
    UNREACHABLE,
    count_lost_reply,
    failed_attempts,
    retry_time_s,
    retry_until,
)
from voicequeue.storage.scripts import assembly
from voicequeue.texts import replace_unencodable

log = logging.getLogger("voicequeue")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

#: How long replicas may take to record what a script wrote (milliseconds).
WAIT_MS = 1_000

#: A command of Redis with its arguments.
Command = tuple[str | float, ...]

#: The end of every script.
_END = (
    "local refusal = format_refusal() if refusal then return refusal end "
    # What was collected belongs to records that are written: also if the script fails for a later job.
    "local is_done, outcome = pcall(action) flush_scores() flush_counters() "
    "if not is_done then error(outcome, 0) end "
    "if audit_argument then append_audit_entry(outcome) end return outcome"
)

#: The start of every script: the format of this release.
_START = f"local FORMAT_KNOWN, FORMAT_OLDEST_READER = {CURRENT.version}, {CURRENT.oldest_reader}"

#: The error of a script whose release is too old for the queue, with the format that it would have to know.
_FORMAT_REFUSAL = re.compile(r"(?:^|caused error: )FORMAT (\d+)")


class NoWaitError(ResponseError):
    """Redis ran a script and does not wait for replicas: it has no such command, or does not permit it. `reply` is that
    of the script."""

    def __init__(self, reply: Any, problem: RedisError) -> None:
        super().__init__(f"VOICEQUEUE_REPLICAS_ACK cannot be met, Redis does not wait for replicas: {problem}")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Script:
    """The whole text of a script, and its SHA-1 in Redis."""

    source: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script with this name: its action, preceded by the definitions that it needs."""
    action = "\n".join(("local function action()", assembly.text_of(name), "end", _END))
    source = assembly.assemble(_START, action)
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


def run(redis: Redis, name: str, root: str, *arguments: str | float) -> Any:
    """Run the script with this name and return its reply; `root` is the prefix of every key."""
    reply, _ = _run(redis, load(name), (root,), _encodable(arguments))
    return reply


def run_change(
    redis: Redis, name: str, root: str, *arguments: str | float, replicas: int = 0, within_s: float = 0.0
) -> Any:
    """Run a script that changes something for callers; if this is such a change, it is recorded in the audit log.

    The script must return 0, '' or nil for what it did not change. While fewer replicas have recorded what it wrote, it
    is run again for `within_s` seconds, by then perhaps on a new primary. Raises RedisRefusalError if the change of a
    caller was not recorded by so many replicas.
    """
    change = unrecorded_change()
    keys = (root,) if change is None else (root, f"{root}audit_log")
    argument = () if change is None else (change.argument(),)
    end = time.monotonic() + within_s
    while True:
        started_at = time.monotonic()
        try:
            reply, count = _run(redis, load(name), keys, _encodable((*arguments, *argument)), replicas)
        except NoWaitError as error:
            if current_change() is not None:
                raise
            log.warning("%s", error)
            return error.reply
        if count >= replicas or started_at >= end:
            break
        count_lost_reply()
        _ask_for_primary(redis)
        time.sleep(max(0.0, started_at + WAIT_MS / 1000 - time.monotonic()))
    if change is not None:
        change.is_recorded = has_changed(reply)
    if count < replicas and current_change() is not None:
        raise unreplicated(count, replicas)
    return reply


def run_acknowledged(redis: Redis, replicas: int, name: str, root: str, *arguments: str | float) -> tuple[Any, bool]:
    """Run a script; return its reply, and whether so many replicas have recorded what it wrote."""
    try:
        reply, count = _run(redis, load(name), (root,), _encodable(arguments), replicas)
    except NoWaitError as error:  # its caller has to know what the script has done
        log.warning("%s", error)
        return error.reply, False
    if count < replicas:
        _ask_for_primary(redis)
    return reply, count >= replicas


def confirm(redis: Redis, root: str, replicas: int) -> None:
    """Wait until so many replicas have what was written before. Raises RedisRefusalError if they do not in time, and
    ResponseError if Redis does not wait for replicas."""
    with redis.pipeline(transaction=False) as pipe:
        execute: Callable[..., Any] = pipe.execute_command
        for command in _wait_for(root, replicas):
            execute(*command)
        _, count = pipe.execute()
    if count < replicas:
        _ask_for_primary(redis)
        raise unreplicated(count, replicas)


def _ask_for_primary(redis: Redis) -> None:
    """Let the next calls open new connections: sentinels may name another primary by now."""
    redis.connection_pool.disconnect(inuse_connections=False)


def unreplicated(count: int, replicas: int) -> RedisRefusalError:
    """Return the error of a write that the primary has made and too few replicas have recorded."""
    return RedisRefusalError(f"UNREPLICATED {count} of {replicas} replicas have recorded it")


def _run(
    redis: Redis, script: Script, keys: Sequence[str], arguments: Sequence[str | float], replicas: int = 0
) -> tuple[Any, int]:
    """Run a script; return its reply, and how many replicas have recorded what it wrote, if it shall wait for some."""
    send = _send_and_wait if replicas else _send
    with _format_errors():
        try:
            return send(redis, ("EVALSHA", script.sha, len(keys), *keys, *arguments), keys[0], replicas)
        except NoScriptError:  # Redis has not loaded it yet, or was restarted
            return send(redis, ("EVAL", script.source, len(keys), *keys, *arguments), keys[0], replicas)


@contextmanager
def _format_errors() -> Iterator[None]:
    """Raise StoreFormatError for the error of a script whose release is too old for the queue."""
    try:
        yield
    except ResponseError as error:
        if refusal := _FORMAT_REFUSAL.search(str(error)):
            raise StoreFormatError(too_old(int(refusal[1]))) from None
        raise


def _send(redis: Redis, command: Command, _root: str, _replicas: int) -> tuple[Any, int]:
    execute: Callable[..., Any] = redis.execute_command
    return execute(*command), 0


def _send_and_wait(redis: Redis, command: Command, root: str, replicas: int) -> tuple[Any, int]:
    with redis.pipeline(transaction=False) as pipe:
        execute: Callable[..., Any] = pipe.execute_command
        for part in (command, *_wait_for(root, replicas)):
            execute(*part)
        reply, *waits = pipe.execute(raise_on_error=False)
    if isinstance(reply, RedisError):
        raise reply
    if problem := next((wait for wait in waits if isinstance(wait, RedisError)), None):
        raise NoWaitError(reply, problem)
    return reply, int(waits[-1])


def _wait_for(root: str, replicas: int) -> tuple[Command, Command]:
    """Return the commands that wait until so many replicas have what was written before, on the same connection.

    A server waits for the last write of the connection: if a script runs again after its reply was lost, and changes
    nothing, there is none. The first command is one. On another connection, the reply could be that of a new primary.
    """
    return ("SET", f"{root}replication_marker", ""), ("WAIT", replicas, WAIT_MS)


class ScriptCall:
    """A call of a script that runs while its caller does something else; then `replicas` have recorded its writes."""

    def __init__(self, redis: Redis, name: str, root: str, *arguments: str | float, replicas: int = 0) -> None:
        self._redis, self._script, self._root, self._replicas = redis, load(name), root, replicas
        self._arguments = _encodable(arguments)
        self._connection: Any = None
        self._failures = failed_attempts()

    def send(self) -> None:
        """Send the call on a connection of its own. If Redis is unreachable, `result` sends it."""
        connection: Any = None
        try:
            with retry_until(time.monotonic()):
                connection = self._redis.connection_pool.get_connection()
            call = ("EVALSHA", self._script.sha, 1, self._root, *self._arguments)
            waits = _wait_for(self._root, self._replicas) if self._replicas else ()
            parts = [part for command in (call, *waits) for part in connection.pack_command(*command)]
            connection.send_packed_command((b"".join(parts),))
        except (*UNREACHABLE, OSError):
            self._lost(connection)
        else:
            self._connection = connection

    def result(self) -> Any:
        """Return the reply. The script is run again, like any other, if the connection was lost, or while too few
        replicas have recorded what it wrote. Raises RedisRefusalError if they do not in time."""
        end = time.monotonic() + retry_time_s(self._redis)
        while (outcome := self._read() or self._run())[1] < self._replicas:
            count_lost_reply()
            if time.monotonic() >= end:
                raise unreplicated(outcome[1], self._replicas)
            _ask_for_primary(self._redis)
        return outcome[0]

    def _run(self) -> tuple[Any, int]:
        return _run(self._redis, self._script, (self._root,), self._arguments, self._replicas)

    def _read(self) -> tuple[Any, int] | None:
        """Read the reply of a call that was sent, and how many replicas have recorded it; None if there is none."""
        connection, self._connection = self._connection, None
        if connection is None:
            return None
        try:
            reply = connection.read_response()
            _, count = [connection.read_response() for _ in range(2)] if self._replicas else (None, 0)
        except (*UNREACHABLE, OSError):
            self._lost(connection)
        except RedisError as error:
            if self._replicas:  # more replies follow
                connection.disconnect()
            self._redis.connection_pool.release(connection)
            if not isinstance(error, NoScriptError):
                with _format_errors():
                    raise
        else:
            self._redis.connection_pool.release(connection)
            return reply, int(count)
        return None

    def may_have_run_twice(self) -> bool:
        """Return whether the script may have run twice, because the reply to its first attempt was lost."""
        return failed_attempts() > self._failures

    def _lost(self, connection: Any) -> None:
        count_lost_reply()
        if connection is not None:
            connection.disconnect()
            self._redis.connection_pool.release(connection)


def _encodable(arguments: Sequence[str | float]) -> list[str | float]:
    return [
        replace_unencodable(argument) if isinstance(argument, str) and not argument.isascii() else argument
        for argument in arguments
    ]
