"""The time limit of an exchange, and a socket that keeps it.

Every read and write gets the time that is left. A fixed timeout would start again with each byte that arrives.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any

from voicequeue.net.http_types import HttpTimeouts, RequestFailed, ResponseTooSlow


class Deadline:
    """The time that is left for an exchange."""

    def __init__(self, times: HttpTimeouts) -> None:
        self._times = times
        self._has_headers = False
        now = time.monotonic()
        self._end = now + times.total_s
        self._until = min(self._end, now + (times.response_s or times.total_s))
        self._connected_until = min(self._until, now + times.connect_s)

    def connect_s(self) -> float:
        """Return the seconds left for connecting."""
        return max(0.01, self._connected_until - time.monotonic())

    def remaining_s(self) -> float:
        """Return the seconds that the next read or write may take. Raises TimeoutError when none are left."""
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining if self._times.idle_s is None else min(remaining, self._times.idle_s)

    def headers_received(self) -> None:
        """Start the time of the body."""
        self._has_headers = True
        self._until = self._end
        if self._times.min_speed:
            self._until = min(self._end, time.monotonic() + self._times.min_speed_window_s)

    def body_received(self, size: int) -> None:
        """Extend the time by what `size` bytes take at the minimum speed, to at most `min_speed_window_s` from now."""
        if self._times.min_speed:
            until = min(time.monotonic() + self._times.min_speed_window_s, self._until + size / self._times.min_speed)
            self._until = min(self._end, until)

    def exceeded(self) -> RequestFailed:
        """Return the error for a read or write that timed out."""
        times = self._times
        if times.idle_s is not None and time.monotonic() < self._until:
            return RequestFailed(f"no answer within {min(times.total_s, times.idle_s):.3g} s")
        if self._has_headers and self._until < self._end:
            return ResponseTooSlow(
                f"slower than {times.min_speed / 1000:g} kB a second for {times.min_speed_window_s:g} s"
            )
        return RequestFailed(f"no answer within {(not self._has_headers and times.response_s) or times.total_s:g} s")


class DeadlineSocket:
    """The part of a socket that http.client uses. Each read and write has the time that is left."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Raises TimeoutError."""
        self._sock.settimeout(self._deadline.remaining_s())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a file that reads from the socket, and keeps it open."""
        return io.BufferedReader(_DeadlineReader(self._sock, self._deadline))

    def close(self) -> None:
        """Close the socket, as soon as no file reads from it."""
        self._sock.close()


class _DeadlineReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.remaining_s())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()
