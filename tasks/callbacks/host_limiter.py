"""Limits the callbacks in flight per receiver host, and pauses hosts that do not respond.

Slow and unreachable hosts hold few threads; their other callbacks are postponed without an attempt. Each process keeps
its own counts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

#: Callbacks are postponed by at most this time (seconds), beyond the pause of their host.
POSTPONE_MAX_S = 600.0

#: A host is slow if it takes longer than this (seconds) to respond.
SLOW_S = 1.0

#: Postponed callbacks are due after this time (seconds) at the earliest, with at least this time between two of them.
_MIN_DELAY_S, _MIN_GAP_S = 0.05, 0.005

#: As many namespaces may use all of their slots for slow hosts at once. Most threads are then busy, but not all.
_NAMESPACES = 3

#: Above this number of hosts, idle hosts that are not paused are removed.
_HOSTS_MAX = 1_000


@dataclass(slots=True)
class _Host:
    namespace: str = ""
    in_flight: int = 0
    failures: int = 0
    took_s: float = 0.0
    paused_until: float = 0.0
    next_at: float = 0.0

    @property
    def is_slow(self) -> bool:
        return self.failures > 0 or self.took_s > SLOW_S


class HostLimiter:
    """The limits of all hosts. Safe to share between threads; `now` is in seconds.

    A host is named `NAMESPACE/HOST`: each namespace has its own count of it. At most `max_concurrent` callbacks are
    in flight to one host, `max_concurrent_slow` to all slow and failing hosts of one namespace together, and three
    times as many to those of all namespaces. After `failure_threshold` failed attempts in a row a host is paused
    for `pause_s` seconds, then gets one callback at a time until an attempt succeeds. A callback to a busy host
    that is not slow waits up to `wait_s` seconds for a slot.
    """

    def __init__(
        self,
        *,
        max_concurrent: int = 4,
        max_concurrent_slow: int = 8,
        failure_threshold: int = 3,
        pause_s: float = 30.0,
        wait_s: float = 0.5,
    ) -> None:
        self._at_once = max_concurrent
        self._slow_at_once = max_concurrent_slow
        self._failures = failure_threshold
        self._rest_s = pause_s
        self._wait_s = wait_s
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()

    def try_acquire(self, name: str, now: float) -> float | None:
        """Acquire a slot of the host: return None (then call `release`), or the time when the callback is due again."""
        with self._changed:
            host = self._hosts.setdefault(name, _Host(name.rpartition("/")[0]))
            self._changed.wait_for(lambda: host.is_slow or self._has_slot(host, now), self._wait_s)
            host = self._hosts.setdefault(name, host)  # another thread may have removed it while this one waited
            if not self._has_slot(host, now):
                return self._postpone(host, now)
            host.in_flight += 1
            return None

    def release(self, name: str, now: float, *, is_available: bool, took_s: float = 0.0) -> None:
        """Release the slot. `is_available` says whether the host responded, `took_s` after how many seconds."""
        with self._changed:
            host = self._hosts[name]
            host.in_flight -= 1
            host.took_s = took_s
            if is_available:
                host.failures, host.paused_until = 0, 0.0
            else:
                host.failures += 1
                host.paused_until = now + self._rest_s
            self._remove_idle(now)
            self._changed.notify_all()

    def _has_slot(self, host: _Host, now: float) -> bool:
        if host.is_slow and not self._has_slow_slot(host.namespace):
            return False
        if host.failures >= self._failures:
            return now >= host.paused_until and not host.in_flight
        return host.in_flight < self._at_once

    def _has_slow_slot(self, namespace: str) -> bool:
        slow = [host for host in self._hosts.values() if host.is_slow]
        own = sum(host.in_flight for host in slow if host.namespace == namespace)
        return own < self._slow_at_once and sum(host.in_flight for host in slow) < _NAMESPACES * self._slow_at_once

    def _postpone(self, host: _Host, now: float) -> float:
        """Return when the host is likely to have a slot for the next callback in turn; beyond the limit, start over."""
        earliest = max(now + _MIN_DELAY_S, host.paused_until)
        host.next_at = max(earliest, host.next_at + max(_MIN_GAP_S, host.took_s / self._at_once))
        if host.next_at > now + POSTPONE_MAX_S + self._rest_s:
            host.next_at = earliest
        return host.next_at

    def _remove_idle(self, now: float) -> None:
        if len(self._hosts) > _HOSTS_MAX:
            self._hosts = {
                name: host for name, host in self._hosts.items() if host.in_flight or host.paused_until > now
            }
