"""The format stamp of a queue: read, made and raised."""

from __future__ import annotations

from collections.abc import Iterable

from voicequeue.domain.store_format import CURRENT, StoreFormat, misfit
from voicequeue.errors import StoreFormatError
from voicequeue.storage.connection.format_check import FIELDS, parse_format
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.heartbeats import ProcessHeartbeat

#: The fact of a process that gives the newest format that it knows. Processes without it know format 1.
KNOWN_FORMAT = "format"


class FormatStamp:
    """The stamp of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace

    def read(self) -> StoreFormat:
        """Return the format of the queue; that of queues before stamps, if it has none."""
        values: list[str | None] = self._space.redis.hmget(self._space.key("format"), list(FIELDS))  # type: ignore[assignment]
        return parse_format(values)

    def ensure(self) -> None:
        """Stamp the queue if it has no stamp, and check that this release may use it. Raises StoreFormatError."""
        if problem := misfit(parse_format(self._space.run_script("stamp_format"))):
            raise StoreFormatError(problem)

    def raise_to(self, target: StoreFormat = CURRENT) -> bool:
        """Raise the format of the queue; return whether it was lower."""
        return bool(self._space.run_change("raise_format", target.version, target.oldest_reader))


def left_behind(processes: Iterable[ProcessHeartbeat], target: StoreFormat = CURRENT) -> list[ProcessHeartbeat]:
    """Return the processes that could not use the queue after it has been raised to a format."""
    return [process for process in processes if process.facts.get(KNOWN_FORMAT, 1) < target.oldest_reader]
