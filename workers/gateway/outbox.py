"""What is still to be sent: in memory, beyond that in a file, so that clients need not read while they send."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator

#: Bytes kept in memory.
IN_MEMORY = 1 << 20

#: Bytes kept in all, for a client that does not read. 100,000 rejected rows with 300 bytes each have room.
SPOOL_MAX = 32 << 20

#: Bytes sent at once.
_PIECE = 1 << 16


class Closed(Exception):
    """Nothing is sent any more."""


class Outbox:
    """Filled by a thread, emptied by the event loop it was made in.

    Many clients send all before they read any; were they waited for from the first byte on, both sides would wait for
    ever. So the spool has room for that, and only a thread that has filled it waits. It is a ring: room that was sent
    is used again, however long it goes on.
    """

    def __init__(self, room: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._changed = threading.Condition()
        self._room = room or SPOOL_MAX
        self._spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  closed by `close`
        self._written = self._sent = 0
        self._ended = self._stopped = False
        self.is_used = False

    def put(self, data: bytes) -> None:
        """Have it sent next; waits while there is no room. Raises Closed."""
        left = memoryview(data)
        while left:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._unsent < self._room)
                if self._stopped:
                    raise Closed
                left = left[self._write(left) :]
                self.is_used = True
            self._loop.call_soon_threadsafe(self._filled.set)

    @property
    def _unsent(self) -> int:
        return self._written - self._sent

    def _write(self, data: memoryview) -> int:
        """As much as has room in one place; how much that is."""
        place = self._written % self._room
        size = min(len(data), self._room - self._unsent, self._room - place)
        self._spool.seek(place)
        self._spool.write(data[:size])
        self._written += size
        return size

    def end(self) -> None:
        """That was all."""
        self._ended = True
        self._loop.call_soon_threadsafe(self._filled.set)

    def stop(self) -> None:
        """Have a thread that waits for room give up."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    async def pieces(self) -> AsyncIterator[bytes]:
        """All that was put in, as it comes."""
        while True:
            self._filled.clear()
            ended = self._ended
            while piece := self._take():
                yield piece
            if ended:
                return
            await self._filled.wait()

    def _take(self) -> bytes:
        with self._changed:
            place = self._sent % self._room
            self._spool.seek(place)
            piece = self._spool.read(min(_PIECE, self._unsent, self._room - place))
            self._sent += len(piece)
            if not self._unsent:
                self._spool.seek(0)
                self._spool.truncate()
                self._written = self._sent = 0
            self._changed.notify_all()
            return piece

    def close(self) -> None:
        """Forget what was not sent."""
        with self._changed:
            self._spool.close()
