"""Coordination of workers: locks for work that one of them does for all, wake-ups of dispatchers, and jobs that wait
for a process."""

from __future__ import annotations

from typing import cast

from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace

#: Admitted jobs that wait for longer than this (seconds) are left to maintenance, which hands them out again.
_ADMITTED_MAX_S = 60.0

#: The longest wait of one call (seconds): it must end before the connection times out.
_WAIT_MAX_S = 5.0


class Coordination:
    """Locks, wake-ups and waiting jobs that all workers share. Safe to share between threads."""

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

    def waiting_for_order(self, stage: Stage, now: float, *, waited_s: float, at_most: int) -> list[str]:
        """Return jobs that were admitted to the stage more than `waited_s` seconds ago, and whose orders no process
        sends yet; the oldest first."""
        index = self._space.key("in_flight")
        in_flight = self._redis.zrange(
            index, now - _ADMITTED_MAX_S, now - waited_s, byscore=True, offset=0, num=4 * at_most
        )
        ids = cast(list[str], in_flight)
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(self._space.key(f"job:{job_id}"), "state", "stage")
            records = pipe.execute()
        waits = [str(State.ADMITTED), str(stage)]
        return [job_id for job_id, record in zip(ids, records, strict=True) if record == waits][:at_most]
