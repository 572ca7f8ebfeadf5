"""The connections of one process: how many there may be, and which are closed for what their clients do not do."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from workers.gateway.notices import log

#: Requests that one process answers at once, and connections on which one or its body is still to come, at most.
PLACES_MAX = 1_000

#: Descriptors for Redis, the broker, log and spools, at most; a quarter of all where there are few.
RESERVED = 192

#: Connections that the kernel keeps ready; they are all opened at once, before any of them can be closed.
BACKLOG_MAX = 1_024

#: The ASGI extension of the server: a context manager in which a connection waits for the body of its request.
AWAITED_BODY = "voicequeue.awaited_body"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What clients are allowed. `places`: so many requests at once, and as many connections that wait for one."""

    places: int = PLACES_MAX
    backlog: int = BACKLOG_MAX
    #: Seconds for the head of a request, from the connection or the answer before on.
    head_s: float = 10.0
    #: Of an answer so many bytes must be read in so many seconds, or all that is there.
    unread_s: float = 60.0
    least_read: int = 61_440
    #: Bytes that all clients together may leave unread; an answer of several MB is in memory until its last byte left.
    buffered: int = 32 * 1024 * 1024
    #: Seconds between two looks at all connections.
    look_s: float = 1.0

    @classmethod
    def of(cls, descriptors: int) -> Bounds:
        """Return the bounds for a process with so many descriptors; an answer may need a second one, for its file."""
        backlog = min(max(descriptors // 8, 32), BACKLOG_MAX)
        reserved = min(descriptors // 4, RESERVED) + backlog
        return cls(places=min(max((descriptors - reserved) // 3, 8), PLACES_MAX), backlog=backlog)

    def part(self, at_most: int) -> int:
        """Return how many of the places one kind of long request may take: a quarter, and no more than `at_most`."""
        return min(at_most, self.places // 4)


def descriptors() -> int:
    """Return how many files this process may open, after asking for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * (PLACES_MAX + BACKLOG_MAX)
    wanted = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return enough if soft == resource.RLIM_INFINITY else soft


class Connection(Protocol):
    """What is known of a connection."""

    @property
    def peer(self) -> str:
        """What counts as the address at its other end."""

    @property
    def is_waiting(self) -> bool:
        """Whether a request is still to come, the rest of its head, or its body."""

    @property
    def awaits_body(self) -> bool:
        """Whether it waits for a body; the reader of the body limits the time."""

    @property
    def unread(self) -> int:
        """Bytes that its client has not read, where nothing more is written before it does."""

    def end(self, status: int, why: str) -> None:
        """Close it, and tell the client why where a request has begun."""

    def cut(self) -> None:
        """Close it at once."""


@dataclass(slots=True)
class _Unread:
    """Bytes that a client had not read at some time."""

    size: int
    since: float


class Connections:
    """Keeps connections that wait for a request or its body apart from all others: neither take the other's places.

    Where too many wait the one that waits longest is closed, of the same address if half of them are.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._waiting: dict[Connection, float] = {}  # since when; the longest first
        self._of_peer: dict[str, dict[Connection, None]] = {}  # the same by their addresses
        self._others: set[Connection] = set()
        self._unread: dict[Connection, _Unread] = {}

    def note(self, connection: Connection) -> None:
        """Take note of what the connection does now."""
        if not connection.is_waiting:
            self._no_longer_waits(connection)
            self._others.add(connection)
        elif connection not in self._waiting:
            self._others.discard(connection)
            self._make_room(connection.peer)
            self._waiting[connection] = time.monotonic()
            self._of_peer.setdefault(connection.peer, {})[connection] = None

    def lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._no_longer_waits(connection)
        self._others.discard(connection)
        self._unread.pop(connection, None)

    def has_place(self) -> bool:
        """Return whether one more request is answered; if need be in the place of the answer that is left unread for
        the longest time."""
        if len(self._others) <= self.bounds.places:
            return True
        if not self._unread:
            log.warning("all %s places are taken: a request was answered 503", self.bounds.places)
            return False
        slowest = min(self._unread, key=lambda each: self._unread[each].since)
        log.warning("all %s places are taken: cut off %s, who does not read", self.bounds.places, slowest.peer)
        self._cut(slowest)
        return True

    def _make_room(self, peer: str) -> None:
        places, same = self.bounds.places, self._of_peer.get(peer, {})
        if len(same) >= places // 2:
            longest = next(iter(same))
        elif len(self._waiting) >= places:
            longest = next(iter(self._waiting))
        else:
            return
        log.warning(
            "too many connections wait for a request (%s, the newest of %s): closed the oldest",
            len(self._waiting),
            peer,
        )
        self._end(longest, 503, "too many connections wait for a request")

    def _end(self, connection: Connection, status: int, why: str) -> None:
        connection.end(status, why)
        self.note(connection)

    def _cut(self, connection: Connection) -> None:
        connection.cut()
        self._unread.pop(connection, None)
        self._others.discard(connection)

    def _no_longer_waits(self, connection: Connection) -> None:
        if self._waiting.pop(connection, None) is None:
            return
        same = self._of_peer[connection.peer]
        del same[connection]
        if not same:
            del self._of_peer[connection.peer]

    def note_unread(self, connection: Connection) -> None:
        """Take note that a client leaves bytes unread, and cut off the slowest where that is too much in all."""
        now = time.monotonic()
        self._measure(connection, now)
        self._cut_unread(now)

    def note_read(self, connection: Connection) -> None:
        """Take note that a client has read what was written: of what is written next it has the whole time again."""
        self._unread.pop(connection, None)

    # ── looking after them ─────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Look after all connections, now and from now on."""
        now = time.monotonic()
        _check_descriptors()
        self._end_headless(now)
        for connection in (*self._waiting, *self._others):
            self._measure(connection, now)
        self._cut_unread(now)
        asyncio.get_running_loop().call_later(self.bounds.look_s, self.look)

    def _end_headless(self, now: float) -> None:
        head_s = self.bounds.head_s
        late = [each for each, since in self._waiting.items() if now - since >= head_s and not each.awaits_body]
        for connection in late:
            log.info("no whole request came within %g s on a connection of %s: closed it", head_s, connection.peer)
            self._end(connection, 408, f"the head of a request must come within {head_s:g} s")

    def _measure(self, connection: Connection, now: float) -> None:
        size, before = connection.unread, self._unread.get(connection)
        if not size:
            self._unread.pop(connection, None)
        elif before is None or before.size - size >= self.bounds.least_read:
            self._unread[connection] = _Unread(size, now)

    def _cut_unread(self, now: float) -> None:
        """Those who do not read, and of those who read slowly the slowest while they leave too much."""
        total = sum(connection.unread for connection in self._unread)
        for connection, unread in sorted(self._unread.items(), key=lambda each: each[1].since):
            if now - unread.since >= self.bounds.unread_s:
                log.warning("%s has not read an answer for %g s: cut it off", connection.peer, self.bounds.unread_s)
            elif total > self.bounds.buffered:
                log.warning(
                    "clients leave more than %s bytes unread: cut off %s", self.bounds.buffered, connection.peer
                )
            else:
                continue
            total -= connection.unread
            self._cut(connection)


def _check_descriptors() -> None:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        # The event loop closes what it cannot accept, and says nothing.
        log.error(
            "no connection can be accepted (%s): let this process open more files (LimitNOFILE, ulimit -n)",
            error.strerror,
        )


def address(host: str) -> str:
    """Return what counts as one address: of IPv6 the network that one customer has."""
    try:
        found = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else host
