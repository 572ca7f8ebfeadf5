"""A lock between the processes of one worker, released by the operating system when its holder ends or is killed."""

from __future__ import annotations

import fcntl
import os
import tempfile


class ProcessLock:
    """At most one process holds it. Open it before the processes are forked; without that, no process gets it.

    The lock is of the process: threads of one process share it.
    """

    def __init__(self) -> None:
        self._descriptor = -1

    def open(self) -> None:
        """Create the lock, in the process that forks the others. It is open as long as they run."""
        self._descriptor, path = tempfile.mkstemp(prefix="voicequeue-lock-")
        os.unlink(path)  # noqa: PTH108  the processes have its descriptor

    @property
    def is_open(self) -> bool:
        """True if `open` was called, here or in the process that forked this one."""
        return self._descriptor >= 0

    def try_acquire(self) -> bool:
        """Acquire the lock; False if another process holds it or is looking at it."""
        return self.is_open and self._try(fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self.is_open:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def is_held_elsewhere(self) -> bool:
        """Return whether another process holds the lock. The holder must not ask: it would lose the lock."""
        if not self.is_open:
            return False
        is_free = self._try(fcntl.LOCK_SH)
        self.release()
        return not is_free

    def _try(self, kind: int) -> bool:
        try:
            fcntl.lockf(self._descriptor, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
