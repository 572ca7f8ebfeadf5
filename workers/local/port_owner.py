"""Whose a port is: of a process that was started here, or of another one that took it a moment before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

PROC = Path("/proc")

#: What the kernel's table of sockets says of one that listens.
_LISTENS = "0A"


class Holder(Enum):
    """Who listens at a port. UNKNOWN is where the system does not say, as on macOS."""

    NONE = auto()
    OURS = auto()
    OTHER = auto()
    UNKNOWN = auto()


def holder(port: int, session: int) -> Holder:
    """Return who listens at this port, on any address: OURS are the processes of this session alone."""
    try:
        sockets = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    except OSError:
        return Holder.UNKNOWN
    if not sockets:
        return Holder.NONE
    return Holder.OURS if sockets <= {*_sockets(session)} else Holder.OTHER


def _listening(table: str, port: int) -> Iterator[str]:
    """Give the inodes of the sockets that listen there."""
    file = PROC / "net" / table
    if table == "tcp6" and not file.exists():
        return
    for line in file.read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *more = line.split()
        if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
            yield more[5]


def _sockets(session: int) -> Iterator[str]:
    """Give the inodes of the sockets that the processes of a session have."""
    for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal()):
        with suppress(OSError):  # it has ended, or is another user's
            if os.getsid(pid) == session:
                yield from _sockets_of(pid)


def _sockets_of(pid: int) -> Iterator[str]:
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")
