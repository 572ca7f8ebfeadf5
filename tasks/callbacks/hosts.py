"""Receivers' hosts: how many callbacks are on the way to one at once, and which are left alone for a while.

So a host that is slow or dead holds few threads, and its callbacks are put off without being tried.
Each process knows for itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

#: Callbacks that are put off are tried again no later than this (seconds).
LATER_MAX_S = 600.0

#: Callbacks that are put off come back this far apart (seconds), where nothing better is known.
_APART_S = 0.05


@dataclass(slots=True)
class _Host:
    busy: int = 0
    failures: int = 0
    shut_until: float = 0.0
    next_at: float = 0.0
    apart_s: float = _APART_S


class Hosts:
    """Who may be sent to. Safe to share between threads; `now` is in seconds.

    `at_once` to one host; after so many `failures` in a row it is left alone for `rest_s`, then one
    callback at a time is tried until one arrives.
    """

    def __init__(self, *, at_once: int = 4, failures: int = 3, rest_s: float = 30.0) -> None:
        self._at_once = at_once
        self._failures = failures
        self._rest_s = rest_s
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()

    def enter(self, name: str, now: float) -> float | None:
        """None if a callback may be sent to that host now (then `leave` must follow), else when to come again."""
        with self._lock:
            host = self._hosts.setdefault(name, _Host())
            shut = host.failures >= self._failures
            if (shut and (now < host.shut_until or host.busy)) or host.busy >= self._at_once:
                return self._come_again(host, now)
            host.busy += 1
            return None

    def leave(self, name: str, now: float, *, is_there: bool, took: float = 0.0) -> None:
        """It was sent: whether the host answers, and after how many seconds."""
        with self._lock:
            host = self._hosts[name]
            host.busy -= 1
            host.apart_s = max(_APART_S, took / self._at_once)
            if not is_there:
                host.failures += 1
                host.shut_until = now + self._rest_s
            else:
                host.failures, host.shut_until = 0, 0.0
                if not host.busy:
                    del self._hosts[name]

    def _come_again(self, host: _Host, now: float) -> float:
        """One after the other, when there is likely to be room; those for whom that is too far off, among the first."""
        earliest = max(now + _APART_S, host.shut_until)
        host.next_at = max(earliest, host.next_at + host.apart_s)
        if host.next_at > now + LATER_MAX_S + self._rest_s:
            host.next_at = earliest
        return host.next_at
