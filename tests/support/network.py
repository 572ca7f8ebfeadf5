"""Hosts as network namespaces of this machine, joined by a router that can lose what it should pass on.

The namespaces have no names: each lives as long as a process that holds it, and ends with the test process, however
that ends. Addresses exist inside of them only.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from tests.conftest import eventually

#: What is needed to make namespaces and to run programs in them.
TOOLS: Final = ("ip", "nsenter", "setpriv", "unshare")

#: Each host has a network of four addresses of this range: the router's, its own, and two that cannot be used.
_ADDRESS: Final = "192.0.2.{}"

_C: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Namespace:
    """A network namespace, held by a process."""

    holder: int

    def command(self, *command: str) -> list[str]:
        """Return a command that runs this command inside, as one process."""
        return ["nsenter", f"--net=/proc/{self.holder}/ns/net", "--", *command]

    def run(self, *command: str) -> None:
        """Run a command inside. Raises CalledProcessError."""
        subprocess.run(self.command(*command), check=True, capture_output=True)


@dataclass(frozen=True)
class Host(Namespace):
    """A host with its address and its link to the router."""

    name: str
    address: str
    link: str

    def shell(self, command: str) -> str:
        """Return a shell command that runs this shell command inside."""
        return shlex.join(["exec", *self.command("sh", "-c", command)])

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Make the connections of this thread, and of the threads and processes that it starts, from this host."""
        with Path("/proc/thread-self/ns/net").open() as before:
            self.enter()
            try:
                yield
            finally:
                _enter(before.fileno())

    def enter(self) -> None:
        """Let this thread stay in this host."""
        with Path(f"/proc/{self.holder}/ns/net").open() as namespace:
            _enter(namespace.fileno())


def _enter(namespace: int) -> None:
    if _C.setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """A router, and the hosts that it joins. Use it in a `with` block."""

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._hosts = 0

    def __enter__(self) -> Self:
        with ExitStack() as started:
            self._router = Namespace(started.enter_context(_holder()))
            self._router.run("ip", "link", "set", "lo", "up")
            self._router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self._resources = started.pop_all()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._resources.close()

    def add_host(self, name: str) -> Host:
        """Return a new host, linked to the router."""
        holder, first = self._resources.enter_context(_holder()), 4 * self._hosts
        self._hosts += 1
        host = Host(holder, name, _ADDRESS.format(first + 2), f"link{self._hosts}")
        gateway = _ADDRESS.format(first + 1)
        ends = ["netns", str(holder), "type", "veth", "peer", "name", host.link, "netns", str(self._router.holder)]
        host.run("ip", "link", "add", "name", "eth0", *ends)
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "address", "add", f"{host.address}/30", "dev", "eth0")
        self._router.run("ip", "address", "add", f"{gateway}/30", "dev", host.link)
        self._router.run("ip", "link", "set", host.link, "up")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", gateway)
        return host

    @contextmanager
    def lost(self, one: Host, *others: Host, replies_only: bool = False) -> Iterator[None]:
        """Lose all packets between a host and others without a word, as a firewall does that forgets connections; or
        only those that come back to the host."""
        rules = [["from", other.address, "to", one.address, "blackhole"] for other in others]
        rules += [] if replies_only else [["from", one.address, "to", other.address, "blackhole"] for other in others]
        for rule in rules:
            self._router.run("ip", "rule", "add", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self._router.run("ip", "rule", "delete", *rule)

    @contextmanager
    def unplugged(self, host: Host) -> Iterator[None]:
        """Take the cable from a host: its link is down, and both sides know it."""
        self._router.run("ip", "link", "set", host.link, "down")
        try:
            yield
        finally:
            self._router.run("ip", "link", "set", host.link, "up")


@contextmanager
def _holder() -> Iterator[int]:
    """Start a process in a new namespace; yield its process id, and end everything that runs in there at the end."""
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        eventually(lambda: process.poll() is not None or _namespace(process.pid) != _namespace(os.getpid()))
        if process.poll() is not None:
            raise OSError((process.communicate()[1] or b"").decode().strip())
        yield process.pid
    finally:
        namespace = _namespace(process.pid)
        for other in psutil.process_iter():
            if namespace and other.pid != os.getpid() and _namespace(other.pid) == namespace:
                with suppress(psutil.NoSuchProcess):
                    other.kill()
        process.kill()
        process.communicate()


def _namespace(pid: int) -> str:
    """Return what identifies the network namespace of a process; '' if it has ended."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""


@lru_cache
def why_no_network() -> str:
    """Return why this system cannot make such hosts; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are a part of Linux"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(missing)} is not installed"
    try:
        with Network() as network, network.lost(network.add_host("one"), network.add_host("other")):
            return ""
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be linked: {error.stderr.decode().strip()}"
    except OSError as error:
        return f"network namespaces cannot be made: {error}"
