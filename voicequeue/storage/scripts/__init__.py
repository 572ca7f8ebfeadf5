"""The Lua scripts: one action per file, loaded once, each preceded by the shared parts in `lib/`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError, ResponseError

from voicequeue.domain.store_format import CURRENT, too_old
from voicequeue.errors import StoreFormatError
from voicequeue.storage.connection.recorded_change import has_changed, unrecorded_change
from voicequeue.storage.connection.retry import UNREACHABLE, count_lost_reply, failed_attempts, retry_until
from voicequeue.texts import replace_unencodable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis

#: The shared parts; each depends on those before it.
PARTS = (
    "keys",
    "format",
    "audit_log",
    "tombstones",
    "backlog",
    "budgets",
    "flow_control",
    "refusals",
    "orders",
    "outbox",
    "callbacks",
    "archive",
    "transition",
    "cancellation",
    "shared_voices",
    "hard_budgets",
    "admission",
    "stop_loss",
    "batches",
    "removal",
    "erasure",
    "paging",
)

#: The names that a part defines.
_LOCALS = re.compile(r"^local (?:function )?([\w, ]+?) *(?:=|\(|$)", re.MULTILINE)

#: The end of every script.
_END = (
    "local refusal = format_refusal() if refusal then return refusal end "
    "local outcome = action() flush_counters() append_audit_entry(outcome) return outcome"
)

#: The start of every script: the format of this release.
_START = f"local FORMAT_KNOWN, FORMAT_OLDEST_READER = {CURRENT.version}, {CURRENT.oldest_reader}"

#: The error of a script whose release is too old for the queue, with the format that it would have to know.
_FORMAT_REFUSAL = re.compile(r"(?:^|caused error: )FORMAT (\d+)")


@dataclass(frozen=True, slots=True)
class Script:
    """The whole text of a script, and its SHA-1 in Redis."""

    source: str
    sha: str


@cache
def load(name: str) -> Script:
    """Return the script with this name."""
    source = "\n".join(("local function action()", text_of(name), "end", _END))
    # Only the parts that it needs: Lua allows 200 local variables.
    for part in reversed(PARTS):
        text = text_of(f"lib/{part}")
        if part == "keys" or any(re.search(rf"\b{name}\b", source) for name in names_of(text)):
            source = f"{text}\n{source}"
    source = f"{_START}\n{source}"
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


@cache
def text_of(name: str) -> str:
    """Return the text of a script, or of a shared part, such as `lib/keys`."""
    return (files(__name__) / f"{name}.lua").read_text(encoding="utf-8")


def names_of(text: str) -> list[str]:
    """Return the names that a text of Lua defines for what follows it."""
    return [name.strip() for names in _LOCALS.findall(text) for name in names.split(",")]


def run(redis: Redis, name: str, root: str, *arguments: str | float) -> Any:
    """Run the script with this name and return its reply; `root` is the prefix of every key."""
    return _run(redis, load(name), (root,), _encodable(arguments))


def run_change(redis: Redis, name: str, root: str, *arguments: str | float) -> Any:
    """Run a script that changes something for callers; if this is such a change, it is recorded in the audit log.

    The script must return 0, '' or nil for what it did not change.
    """
    change = unrecorded_change()
    if change is None:
        return run(redis, name, root, *arguments)
    keys = (root, f"{root}audit_log")
    reply = _run(redis, load(name), keys, _encodable((*arguments, change.argument())))
    change.is_recorded = has_changed(reply)
    return reply


def run_acknowledged(
    redis: Redis, replicas: int, wait_ms: int, name: str, root: str, *arguments: str | float
) -> tuple[Any, bool]:
    """Run a script and return its reply, and whether so many replicas have acknowledged within `wait_ms` milliseconds
    what it wrote.

    Both commands are sent on one connection: a server waits for what that connection has written to it. So a primary
    that was replaced meanwhile acknowledges nothing.
    """
    script, values = load(name), _encodable(arguments)
    with _format_errors():
        try:
            reply, count = _send_with_wait(redis, ("EVALSHA", script.sha, 1, root, *values), replicas, wait_ms)
        except NoScriptError:
            reply, count = _send_with_wait(redis, ("EVAL", script.source, 1, root, *values), replicas, wait_ms)
    return reply, count >= replicas


def _send_with_wait(redis: Redis, command: Sequence[str | float], replicas: int, wait_ms: int) -> tuple[Any, int]:
    with redis.pipeline(transaction=False) as pipe:
        send: Callable[..., Any] = pipe.execute_command
        send(*command)
        send("WAIT", replicas, wait_ms)
        reply, count = pipe.execute()
    return reply, int(count)


def _run(redis: Redis, script: Script, keys: Sequence[str], arguments: Sequence[str | float]) -> Any:
    command: Callable[..., Any] = redis.execute_command
    with _format_errors():
        try:
            return command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # Redis has not loaded it yet, or was restarted
            return command("EVAL", script.source, len(keys), *keys, *arguments)


@contextmanager
def _format_errors() -> Iterator[None]:
    """Raise StoreFormatError for the error of a script whose release is too old for the queue."""
    try:
        yield
    except ResponseError as error:
        if refusal := _FORMAT_REFUSAL.search(str(error)):
            raise StoreFormatError(too_old(int(refusal[1]))) from None
        raise


class ScriptCall:
    """A call of a script that runs while its caller does something else."""

    def __init__(self, redis: Redis, name: str, root: str, *arguments: str | float) -> None:
        self._redis, self._script, self._root = redis, load(name), root
        self._arguments = _encodable(arguments)
        self._connection: Any = None
        self._failures = failed_attempts()

    def send(self) -> None:
        """Send the call on a connection of its own. If Redis is unreachable, `result` sends it."""
        connection: Any = None
        try:
            with retry_until(time.monotonic()):
                connection = self._redis.connection_pool.get_connection()
            connection.send_command("EVALSHA", self._script.sha, 1, self._root, *self._arguments)
        except (*UNREACHABLE, OSError):
            self._lost(connection)
        else:
            self._connection = connection

    def result(self) -> Any:
        """Return the reply. If the connection was lost, the script is run again, like any other."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                with _format_errors():
                    reply = connection.read_response()
            except (*UNREACHABLE, OSError):
                self._lost(connection)
            except (RedisError, StoreFormatError) as error:
                self._redis.connection_pool.release(connection)
                if not isinstance(error, NoScriptError):
                    raise
            else:
                self._redis.connection_pool.release(connection)
                return reply
        return _run(self._redis, self._script, (self._root,), self._arguments)

    def may_have_run_twice(self) -> bool:
        """Return whether the script may have run twice, because the reply to its first attempt was lost."""
        return failed_attempts() > self._failures

    def _lost(self, connection: Any) -> None:
        count_lost_reply()
        if connection is not None:
            connection.disconnect()
            self._redis.connection_pool.release(connection)


def _encodable(arguments: Sequence[str | float]) -> list[str | float]:
    return [replace_unencodable(argument) if isinstance(argument, str) else argument for argument in arguments]
