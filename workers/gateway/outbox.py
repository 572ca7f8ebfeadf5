"""What is still to be sent: in memory, beyond that in a file, so that nobody has to read while they send."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator

#: Bytes kept in memory.
IN_MEMORY = 1 << 20

#: Bytes sent at once.
_PIECE = 1 << 16


class Outbox:
    """Filled by a thread, emptied by the event loop it was made in.

    Many clients send all before they read any; were they waited for, both sides would wait for ever.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._lock = threading.Lock()
        self._spool = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  closed by `close`
        self._written = self._sent = 0
        self._ended = False
        self.is_used = False

    def put(self, data: bytes) -> None:
        """To be sent next."""
        with self._lock:
            self._spool.seek(self._written)
            self._spool.write(data)
            self._written += len(data)
            self.is_used = True
        self._loop.call_soon_threadsafe(self._filled.set)

    def end(self) -> None:
        """That was all."""
        self._ended = True
        self._loop.call_soon_threadsafe(self._filled.set)

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
        with self._lock:
            self._spool.seek(self._sent)
            piece = self._spool.read(_PIECE)
            self._sent += len(piece)
            if self._sent == self._written:
                self._spool.seek(0)
                self._spool.truncate()
                self._written = self._sent = 0
            return piece

    def close(self) -> None:
        """Forget what was not sent."""
        with self._lock:
            self._spool.close()
