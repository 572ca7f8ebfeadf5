"""The lock on the folder of a stack: one stack at a time, and none while processes of an earlier one still run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from workers import private_files

#: Seconds to wait for the processes of a stack that is stopping, beyond the stop timeout of its programs.
STOP_MARGIN_S = 15.0


class HomeInUseError(Exception):
    """Another stack runs from the same folder. Two Valkeys would destroy their file, and jobs be paid twice."""


class HomeLock:
    """The lock on a folder. It is held until the last process that inherits its file descriptor has exited."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def descriptor(self) -> int:
        """The file descriptor that the processes of the stack inherit."""
        return self._file.fileno()

    def mark_as_ending(self) -> None:
        """Mark this stack as stopping: the next one waits for it instead of refusing to start."""
        self._file.truncate(0)


@contextmanager
def lock_home(home: Path, *, wait_s: float = 0.0, print_line: Callable[[str], None] = print) -> Iterator[HomeLock]:
    """Lock `home` against other stacks and other users. Wait at most `wait_s` seconds for the processes of a stack that
    is stopping or was killed. Raises HomeInUseError, UnsafeFileError."""
    private_files.restrict(home)
    with (home / "lock").open("a+", encoding="ascii") as file:
        if not _try_lock(file):
            _raise_if_running(file, home)
            print_line(f"waiting for the processes of an earlier stack in {home}, which finish their requests")
            deadline = time.monotonic() + wait_s
            while not _try_lock(file):
                _raise_if_running(file, home)
                if time.monotonic() > deadline:
                    pids = ", ".join(map(str, _holders(home / "lock"))) or "unknown"
                    raise HomeInUseError(f"processes of another stack still run from {home} ({pids}); stop them first")
                time.sleep(0.1)
        lock = HomeLock(file)
        lock.mark_as_ending()
        file.write(str(os.getpid()))
        file.flush()
        yield lock


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _raise_if_running(file: TextIO, home: Path) -> None:
    """Raise HomeInUseError if the supervisor of the other stack runs and is not stopping."""
    pid = os.pread(file.fileno(), 32, 0).decode("ascii")
    if pid and _exists(int(pid)):
        raise HomeInUseError(f"another stack runs from {home} (process {pid}); stop it, or set VOICEQUEUE_HOME")


def _holders(lock: Path) -> list[int]:
    """Return the ids of the processes that have the lock file open; none if the system does not show them."""
    holders = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(folder.name) != os.getpid() and any(
                descriptor.resolve() == lock.resolve() for descriptor in (folder / "fd").iterdir()
            ):
                holders.append(int(folder.name))
    return sorted(holders)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it belongs to another user
        pass
    return True
