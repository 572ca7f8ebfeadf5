"""kombu's event loop, without the system calls that change nothing.

At each turn, Celery's pool stops watching the pipes of idle processes, which it does not watch, and the transport
watches its connections; the pool watches the pipe of a process again after each result. These were a sixth of the
loop's processor time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.asynchronous import Hub


class EventLoop(Hub):
    """An event loop that changes its poller only if what it watches changes."""

    readers: dict[int, Any]
    writers: dict[int, Any]

    def add_reader(self, fds: Any, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback` when the descriptor is readable. One that was closed is forgotten before."""
        if self.readers.get(fds) != (callback, args):
            super().add_reader(fds, callback, *args)

    def remove_writer(self, fd: Any) -> None:
        """Stop watching whether a descriptor is writable."""
        if fd in self.writers:
            super().remove_writer(fd)
