"""Free ports of this machine, and which processes listen on a port."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

PROC = Path("/proc")

#: Below the range that systems use for outgoing connections, which could take a free port a moment later.
PORTS = range(20_000, 32_000)

#: The state of a listening socket in the kernel's table.
_LISTENING = "0A"


class PortOwner(Enum):
    """The owner of a listening port. UNKNOWN: the system does not report it, as on macOS."""

    NONE = auto()
    OURS = auto()
    OTHER = auto()
    UNKNOWN = auto()


def free_port(preferred: int | None = None) -> int:
    """Return the preferred port if it is free, else any free one."""
    others = secrets.SystemRandom().sample(PORTS, 100)
    return next(port for port in ([preferred] if preferred else []) + others if _is_free(port))


def port_owner(port: int, session: int) -> PortOwner:
    """Return who listens on this port, on any address; OURS: only processes of this session."""
    try:
        sockets = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
    except OSError:
        return PortOwner.UNKNOWN
    if not sockets:
        return PortOwner.NONE
    return PortOwner.OURS if sockets <= {*_sockets(session)} else PortOwner.OTHER


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listening(table: str, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on the port."""
    file = PROC / "net" / table
    if table == "tcp6" and not file.exists():
        return
    for line in file.read_text(encoding="ascii").splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
            yield rest[5]


def _sockets(session: int) -> Iterator[str]:
    """Yield the inodes of the sockets of a session's processes."""
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
