"""The spool of a response: in memory, and beyond that in a file, so that clients may send before they read."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator

#: Bytes kept in memory.
MEMORY_MAX_BYTES = 1 << 20

#: Bytes kept in total for a client that does not read: room for 100,000 rejected rows of 300 bytes each.
SPOOL_MAX_BYTES = 32 << 20

#: Bytes sent in one piece.
_PIECE = 1 << 16


class ResponseClosed(Exception):
    """The response is closed; nothing more can be sent."""


class ResponseSpool:
    """A spool that a thread fills and the event loop it was created in empties.

    Many clients send their whole request before they read any of the response; without a spool, client and server would
    wait for each other. Only a thread that has filled the spool waits. The spool is a ring, so its size limits the
    unsent bytes, not the whole response.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._changed = threading.Condition()
        self._room = max_bytes or SPOOL_MAX_BYTES
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_MAX_BYTES)  # noqa: SIM115  closed by `close`
        self._written = self._sent = 0
        self._ended = self._stopped = False
        self.is_used = False

    def write(self, data: bytes) -> None:
        """Append the data; wait while the spool is full. Raises ResponseClosed."""
        rest = memoryview(data)
        while rest:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._unsent < self._room)
                if self._stopped:
                    raise ResponseClosed
                rest = rest[self._write(rest) :]
                self.is_used = True
            self._loop.call_soon_threadsafe(self._filled.set)

    @property
    def _unsent(self) -> int:
        return self._written - self._sent

    def _write(self, data: memoryview) -> int:
        """Write as much as fits before the end of the ring; return the number of bytes."""
        offset = self._written % self._room
        size = min(len(data), self._room - self._unsent, self._room - offset)
        self._spool.seek(offset)
        self._spool.write(data[:size])
        self._written += size
        return size

    def mark_complete(self) -> None:
        """Mark the response as complete."""
        self._ended = True
        self._loop.call_soon_threadsafe(self._filled.set)

    def stop(self) -> None:
        """Make `write` raise Closed, also in a thread that waits for room."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the data as it arrives, until the response is complete."""
        while True:
            self._filled.clear()
            is_ended = self._ended
            while piece := self._take():
                yield piece
            if is_ended:
                return
            await self._filled.wait()

    def _take(self) -> bytes:
        with self._changed:
            offset = self._sent % self._room
            self._spool.seek(offset)
            piece = self._spool.read(min(_PIECE, self._unsent, self._room - offset))
            self._sent += len(piece)
            if not self._unsent:
                self._spool.seek(0)
                self._spool.truncate()
                self._written = self._sent = 0
            self._changed.notify_all()
            return piece

    def close(self) -> None:
        """Discard what was not sent."""
        with self._changed:
            self._spool.close()
