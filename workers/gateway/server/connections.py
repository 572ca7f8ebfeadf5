"""Limits on the connections of one process, and which connections are closed when they are reached."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from workers.gateway.server.limit_log import log

#: The most concurrent requests of one process, and the most connections that wait for a request or its body.
MAX_CONCURRENT_REQUESTS = 1_000

#: Descriptors reserved for Redis, the broker, logs and spools; never more than a quarter of all.
RESERVED_DESCRIPTORS = 192

#: The largest backlog of the listening socket. All its connections are accepted before any of them can be closed.
MAX_BACKLOG = 1_024

#: ASGI extension of the server: a context manager in which a connection waits for the body of its request.
AWAITED_BODY = "voicequeue.awaited_body"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits for clients: `requests` concurrent requests, and as many connections that wait for one."""

    requests: int = MAX_CONCURRENT_REQUESTS
    backlog: int = MAX_BACKLOG
    #: Seconds in which the head of a request must arrive, from the connection or the previous response.
    head_timeout_s: float = 10.0
    #: A client must read this many bytes (or all there are) of a response in this many seconds.
    read_timeout_s: float = 60.0
    min_read_bytes: int = 61_440
    #: Unread bytes of all clients together. A response stays in memory until its last byte is sent.
    max_unread_bytes: int = 32 * 1024 * 1024
    #: Seconds between two checks of all connections.
    check_interval_s: float = 1.0

    @classmethod
    def for_descriptors(cls, descriptors: int) -> ServerLimits:
        """Return the limits for a number of file descriptors; a response may need a second one for its file."""
        backlog = min(max(descriptors // 8, 32), MAX_BACKLOG)
        reserved = min(descriptors // 4, RESERVED_DESCRIPTORS) + backlog
        return cls(requests=min(max((descriptors - reserved) // 3, 8), MAX_CONCURRENT_REQUESTS), backlog=backlog)

    def share_of(self, at_most: int) -> int:
        """Return the limit for one kind of long request: `at_most`, but no more than a quarter of all requests."""
        return min(at_most, self.requests // 4)


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as allowed and useful, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * (MAX_CONCURRENT_REQUESTS + MAX_BACKLOG)
    target = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    return enough if soft == resource.RLIM_INFINITY else soft


class Connection(Protocol):
    """A client connection, as far as the limits need it."""

    @property
    def peer(self) -> str:
        """Address of the client; see `client_of`."""

    @property
    def is_waiting(self) -> bool:
        """True while a request, the rest of its head, or its body is still to be received."""

    @property
    def awaits_body(self) -> bool:
        """True while it waits for a body; the reader of the body enforces the timeout."""

    @property
    def unread_bytes(self) -> int:
        """Bytes that the client has not read while writing is paused; else 0."""

    def close(self, status: int, detail: str) -> None:
        """Close it; if a request has started, answer with this error first."""

    def abort(self) -> None:
        """Close it immediately."""


@dataclass(slots=True)
class _Unread:
    """Unread bytes of a client at a point in time."""

    size: int
    since: float


class ConnectionLimiter:
    """Limits waiting connections and active requests separately, so that neither takes the other's slots.

    Waiting connections are those that wait for a request or its body. If there are too many, the one that has waited
    longest is closed: of the same address if that has half of them, else of all.
    """

    def __init__(self, bounds: ServerLimits) -> None:
        self.bounds = bounds
        self._waiting: dict[Connection, float] = {}  # by start of the wait, oldest first
        self._of_peer: dict[str, dict[Connection, None]] = {}  # the same by address
        self._others: set[Connection] = set()
        self._unread: dict[Connection, _Unread] = {}

    def update(self, connection: Connection) -> None:
        """Record the state of a connection."""
        if not connection.is_waiting:
            self._remove_waiting(connection)
            self._others.add(connection)
        elif connection not in self._waiting:
            self._others.discard(connection)
            self._make_room(connection.peer)
            self._waiting[connection] = time.monotonic()
            self._of_peer.setdefault(connection.peer, {})[connection] = None

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._remove_waiting(connection)
        self._others.discard(connection)
        self._unread.pop(connection, None)

    def has_slot(self) -> bool:
        """Return whether another request is accepted. If none is free, the connection with the longest unread response
        is closed to make room."""
        if len(self._others) <= self.bounds.requests:
            return True
        if not self._unread:
            log.warning("all %s slots for requests are taken: answered 503", self.bounds.requests)
            return False
        slowest = min(self._unread, key=lambda unread: self._unread[unread].since)
        log.warning(
            "all %s slots for requests are taken: closed a connection of %s with an unread response",
            self.bounds.requests,
            slowest.peer,
        )
        self._cut(slowest)
        return True

    def _make_room(self, peer: str) -> None:
        places, same = self.bounds.requests, self._of_peer.get(peer, {})
        if len(same) >= places // 2:
            longest = next(iter(same))
        elif len(self._waiting) >= places:
            longest = next(iter(self._waiting))
        else:
            return
        log.warning(
            "too many connections wait for a request (%s, the newest from %s): closed the oldest",
            len(self._waiting),
            peer,
        )
        self._end(longest, 503, "Too many connections wait for a request; try again later.")

    def _end(self, connection: Connection, status: int, why: str) -> None:
        connection.close(status, why)
        self.update(connection)

    def _cut(self, connection: Connection) -> None:
        connection.abort()
        self._unread.pop(connection, None)
        self._others.discard(connection)

    def _remove_waiting(self, connection: Connection) -> None:
        if self._waiting.pop(connection, None) is None:
            return
        same = self._of_peer[connection.peer]
        del same[connection]
        if not same:
            del self._of_peer[connection.peer]

    def update_unread(self, connection: Connection) -> None:
        """Record that a client has unread bytes, and close the slowest connections if that is too much in total."""
        now = time.monotonic()
        self._measure(connection, now)
        self._cut_unread(now)

    def clear_unread(self, connection: Connection) -> None:
        """Record that a client has read everything: its time starts again with the next bytes."""
        self._unread.pop(connection, None)

    # ── periodic checks ────────────────────────────────────────────────────────────────────────

    def check_all(self) -> None:
        """Check all connections now and periodically."""
        now = time.monotonic()
        _check_descriptors()
        self._close_without_head(now)
        for connection in (*self._waiting, *self._others):
            self._measure(connection, now)
        self._cut_unread(now)
        asyncio.get_running_loop().call_later(self.bounds.check_interval_s, self.check_all)

    def _close_without_head(self, now: float) -> None:
        head_s = self.bounds.head_timeout_s
        late = [
            connection
            for connection, since in self._waiting.items()
            if now - since >= head_s and not connection.awaits_body
        ]
        for connection in late:
            log.info("no complete request within %g s: closed a connection of %s", head_s, connection.peer)
            self._end(connection, 408, f"The head of a request must arrive within {head_s:g} s.")

    def _measure(self, connection: Connection, now: float) -> None:
        size, before = connection.unread_bytes, self._unread.get(connection)
        if not size:
            self._unread.pop(connection, None)
        elif before is None or before.size - size >= self.bounds.min_read_bytes:
            self._unread[connection] = _Unread(size, now)

    def _cut_unread(self, now: float) -> None:
        """Close connections that stopped reading and, while too many bytes are unread, the slowest ones."""
        total = sum(connection.unread_bytes for connection in self._unread)
        for connection, unread in sorted(self._unread.items(), key=lambda item: item[1].since):
            if now - unread.since >= self.bounds.read_timeout_s:
                log.warning(
                    "a response was not read for %g s: closed a connection of %s",
                    self.bounds.read_timeout_s,
                    connection.peer,
                )
            elif total > self.bounds.max_unread_bytes:
                log.warning(
                    "more than %s bytes are unread: closed a connection of %s",
                    self.bounds.max_unread_bytes,
                    connection.peer,
                )
            else:
                continue
            total -= connection.unread_bytes
            self._cut(connection)


def _check_descriptors() -> None:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        # The event loop drops connections that it cannot accept, without logging it.
        log.error(
            "connections cannot be accepted (%s): raise LimitNOFILE or ulimit -n",
            error.strerror,
        )


def client_of(host: str) -> str:
    """Return the unit that counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        ip = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((ip, 64), strict=False)) if isinstance(ip, IPv6Address) else host
