"""Receivers' hosts: how many callbacks are on the way to one at once, and which are left alone for a while.

So hosts that are slow or dead hold few threads, and their callbacks are put off without being tried.
Each process knows for itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

#: Callbacks that are put off are tried again no later than this (seconds).
LATER_MAX_S = 600.0

#: A host is slow that takes longer than this (seconds) to answer.
SLOW_S = 1.0

#: Callbacks that are put off come back after this time (seconds) at the earliest, and so far apart at the least.
_SOON_S, _APART_S = 0.05, 0.005

#: So many hosts are known at once; of more, those that are to be left alone no longer are forgotten.
_KNOWN = 1_000


@dataclass(slots=True)
class _Host:
    busy: int = 0
    failures: int = 0
    took_s: float = 0.0
    shut_until: float = 0.0
    next_at: float = 0.0

    @property
    def is_slow(self) -> bool:
        return self.failures > 0 or self.took_s > SLOW_S


class Hosts:
    """Who may be sent to. Safe to share between threads; `now` is in seconds.

    `at_once` to one host, `slow_at_once` to all together that are slow or do not answer; after so many
    `failures` in a row a host is left alone for `rest_s`, then one callback at a time is tried until one
    arrives. Who finds no room at a host that is not slow waits `wait_s` for it: there soon is.
    """

    def __init__(
        self,
        *,
        at_once: int = 4,
        slow_at_once: int = 8,
        failures: int = 3,
        rest_s: float = 30.0,
        wait_s: float = 0.5,
    ) -> None:
        self._at_once = at_once
        self._slow_at_once = slow_at_once
        self._failures = failures
        self._rest_s = rest_s
        self._wait_s = wait_s
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()

    def enter(self, name: str, now: float) -> float | None:
        """None if a callback may be sent to that host now (then `leave` must follow), else when to come again."""
        with self._changed:
            host = self._hosts.setdefault(name, _Host())
            self._changed.wait_for(lambda: host.is_slow or self._has_room(host, now), self._wait_s)
            host = self._hosts.setdefault(name, host)  # it may have been forgotten meanwhile
            if not self._has_room(host, now):
                return self._come_again(host, now)
            host.busy += 1
            return None

    def leave(self, name: str, now: float, *, is_there: bool, took: float = 0.0) -> None:
        """It was sent: whether the host answers, and after how many seconds."""
        with self._changed:
            host = self._hosts[name]
            host.busy -= 1
            host.took_s = took
            if is_there:
                host.failures, host.shut_until = 0, 0.0
            else:
                host.failures += 1
                host.shut_until = now + self._rest_s
            self._forget(now)
            self._changed.notify_all()

    def _has_room(self, host: _Host, now: float) -> bool:
        if host.is_slow and sum(each.busy for each in self._hosts.values() if each.is_slow) >= self._slow_at_once:
            return False
        if host.failures >= self._failures:
            return now >= host.shut_until and not host.busy
        return host.busy < self._at_once

    def _come_again(self, host: _Host, now: float) -> float:
        """One after the other, when there is likely to be room; those for whom that is too far off, among the first."""
        earliest = max(now + _SOON_S, host.shut_until)
        host.next_at = max(earliest, host.next_at + max(_APART_S, host.took_s / self._at_once))
        if host.next_at > now + LATER_MAX_S + self._rest_s:
            host.next_at = earliest
        return host.next_at

    def _forget(self, now: float) -> None:
        if len(self._hosts) > _KNOWN:
            self._hosts = {name: host for name, host in self._hosts.items() if host.busy or host.shut_until > now}
