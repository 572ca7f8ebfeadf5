"""The folder of a stack: one stack at a time, and none beside what is left of another."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from workers import private_files

#: Seconds that the processes of a stack which ends are waited for, beyond what its programs may take.
MARGIN_S = 15.0


class HomeInUse(Exception):
    """Another stack runs from the same folder; two Valkeys on one file would destroy it, and pay twice."""


class HomeLock:
    """The lock on a folder. It lasts as long as any process that inherits its file descriptor."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def descriptor(self) -> int:
        """What the processes of the stack inherit."""
        return self._file.fileno()

    def mark_as_ending(self) -> None:
        """Let the next stack wait for the end of this one instead of refusing to start."""
        self._file.truncate(0)


@contextmanager
def alone_in(home: Path, *, wait_s: float = 0.0, say: Callable[[str], None] = print) -> Iterator[HomeLock]:
    """Keep other stacks out of `home`. Waits at most `wait_s` seconds for the processes of one that is ending or was
    killed. Other users are kept out of it as well. Raises HomeInUse, UnsafeFileError."""
    private_files.narrow(home)
    with (home / "lock").open("a+", encoding="ascii") as file:
        if not _locked(file):
            _refuse_if_it_runs(file, home)
            say(f"waiting for what is left of the last stack in {home}: it finishes its orders")
            give_up = time.monotonic() + wait_s
            while not _locked(file):
                _refuse_if_it_runs(file, home)
                if time.monotonic() > give_up:
                    pids = ", ".join(map(str, _holders(home / "lock"))) or "unknown"
                    raise HomeInUse(f"processes of another stack still run from {home} ({pids}); end them first")
                time.sleep(0.1)
        lock = HomeLock(file)
        lock.mark_as_ending()
        file.write(str(os.getpid()))
        file.flush()
        yield lock


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_if_it_runs(file: TextIO, home: Path) -> None:
    """Raise HomeInUse unless its supervisor is ending, or dead."""
    pid = os.pread(file.fileno(), 32, 0).decode("ascii")
    if pid and _is_alive(int(pid)):
        raise HomeInUse(f"another stack runs from {home} (process {pid}); end it, or set VOICEQUEUE_HOME")


def _holders(lock: Path) -> list[int]:
    """Return the processes that have the lock file open; none where the system does not show them."""
    holders = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(folder.name) != os.getpid() and any(
                each.resolve() == lock.resolve() for each in (folder / "fd").iterdir()
            ):
                holders.append(int(folder.name))
    return sorted(holders)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        pass
    return True
