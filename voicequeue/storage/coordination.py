"""Coordination of workers: locks for work that one of them does for all, and wake-ups of dispatchers."""

from __future__ import annotations

from voicequeue.storage.connection.keyspace import Keyspace

#: The longest wait of one call (seconds): it must end before the connection times out.
_WAIT_MAX_S = 5.0


class Coordination:
    """Locks and wake-ups that all workers share. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def try_acquire(self, name: str, *, ttl_s: float) -> bool:
        """Acquire the lock `name`, which is released by expiring after `ttl_s` seconds; False if it is held."""
        ttl_ms = max(1, round(ttl_s * 1000))
        return bool(self._redis.set(self._space.key(f"lock:{name}"), "held", nx=True, px=ttl_ms))

    def wait_for_wakeup(self, timeout_s: float) -> bool:
        """Wait until there may be a job to admit, for at most `timeout_s` and 5 seconds; False after a timeout. Of
        several waiting dispatchers one is woken."""
        return self._redis.blpop([self._space.key("wake")], timeout=min(timeout_s, _WAIT_MAX_S)) is not None
