"""Free ports of this machine, the ports of a stack, and which processes listen on a port."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from workers import private_files

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


class StackPorts:
    """The ports of a stack: the usual ones, unless another program has them. Those of the last start are kept in a
    file, so that links and the settings of other shells stay valid."""

    def __init__(self, file: Path, report: Callable[[str], None]) -> None:
        """`report` is called with a sentence for each port that is taken."""
        self._file = file
        self._report = report
        self._last: dict[str, int] = {}
        with suppress(OSError, ValueError, AttributeError, TypeError):
            self._last = {name: int(port) for name, port in json.loads(file.read_text(encoding="utf-8")).items()}

    def choose(self, program: str, usual: int) -> int:
        """Return the usual port of a program if it is free, else that of the last start, else any free one."""
        port = free_port(usual, self._last.get(program))
        if usual and port != usual:
            self._report(f"port {usual} for {program} is taken{_by_whom(usual)}: using {port} instead")
        return port

    def report_lost(self, program: str, lost: Sequence[int], ports: Sequence[int]) -> None:
        """Report that another program took one of the ports of a program while it started, and name the new ones."""
        was, now = (" and ".join(map(str, numbers)) for numbers in (lost, ports))
        self._report(f"another program took a port of {program} ({was}) while it started: using {now} instead")

    def remember(self, ports: Mapping[str, int]) -> None:
        """Keep the ports of this start, by program."""
        self._last |= ports
        private_files.write(self._file, json.dumps(self._last))


def free_port(*preferred: int | None) -> int:
    """Return the first of the preferred ports that is free, else any free one."""
    others = secrets.SystemRandom().sample(PORTS, 100)
    return next(port for port in [*filter(None, preferred), *others] if _is_free(port))


def _by_whom(port: int) -> str:
    """Return who listens on a port, as far as this user may see it."""
    with suppress(OSError):
        sockets = {inode for table in ("tcp", "tcp6") for inode in _listening(table, port)}
        for pid in _pids():
            with suppress(OSError):
                if sockets & {*_sockets_of(pid)}:
                    return f" by {(PROC / str(pid) / 'comm').read_text(encoding='utf-8').strip()} (process {pid})"
    return ""


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
    for pid in _pids():
        with suppress(OSError):  # it has ended, or is another user's
            if os.getsid(pid) == session:
                yield from _sockets_of(pid)


def _pids() -> Iterator[int]:
    yield from (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


def _sockets_of(pid: int) -> Iterator[str]:
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target.removeprefix("socket:[").removesuffix("]")
