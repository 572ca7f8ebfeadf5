"""A lock between the processes of one worker, released by the operating system when its holder ends or is killed."""

from __future__ import annotations

import fcntl
import tempfile
from typing import IO


class ProcessLock:
    """At most one process holds it. Open it before the processes are forked; without that, no process gets it.

    The lock is of the process: threads of one process share it.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        """Create the lock, in the process that forks the others."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process

    @property
    def is_open(self) -> bool:
        """True if `open` was called, here or in the process that forked this one."""
        return self._file is not None

    def try_acquire(self) -> bool:
        """Acquire the lock; False if another process holds it or is looking at it."""
        return self._file is not None and self._try(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def is_held_elsewhere(self) -> bool:
        """Return whether another process holds the lock. The holder must not ask: it would lose the lock."""
        if self._file is None:
            return False
        is_free = self._try(self._file, fcntl.LOCK_SH)
        if is_free:
            self.release()
        return not is_free

    @staticmethod
    def _try(file: IO[bytes], kind: int) -> bool:
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
