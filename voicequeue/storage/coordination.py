"""Coordination of workers: locks for work that one of them does for all, wake-ups of dispatchers, and jobs that wait
for a process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import cast

from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.keyspace import Keyspace

#: Admitted jobs that wait for longer than this (seconds) are left to maintenance, which hands them out again.
_ADMITTED_MAX_S = 60.0

#: The number of jobs in flight that are read at once.
_PAGE = 100

#: The longest wait of one call (seconds): it must end before the connection times out.
_WAIT_MAX_S = 5.0


@dataclass(frozen=True, slots=True)
class DuePoll:
    """A poll that is due at `due` (Unix seconds)."""

    job_id: str
    due: float
    stage: Stage


class Coordination:
    """Locks, wake-ups and waiting jobs that all workers share. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis
        #: When all jobs that waited for the order of a stage were returned, by stage.
        self._emptied_at: dict[Stage, float] = {}

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
        sends yet; the oldest first. After it has returned all of them, it returns none for as long."""
        if 0 <= now - self._emptied_at.get(stage, -math.inf) < waited_s:
            return []
        waits = (str(State.ADMITTED), str(stage))
        jobs = self._in_flight(now - _ADMITTED_MAX_S, now - waited_s, at_most=4 * at_most)
        waiting = [job_id for job_id, _, *record in jobs if tuple(record) == waits][:at_most]
        if len(waiting) < at_most:
            self._emptied_at[stage] = now
        return waiting

    def due_polls(self, since: float, until: float, *, at_most: int) -> list[DuePoll]:
        """Return the polls of pending jobs that are due between these times, the soonest first."""
        polls: list[DuePoll] = []
        page = min(_PAGE, at_most)
        for start in count(step=page):  # jobs that wait for a process have earlier times
            jobs = self._in_flight(since, until, start=start, at_most=page)
            polls += [
                DuePoll(job_id, due, Stage(stage)) for job_id, due, state, stage in jobs if state == State.PENDING
            ]
            if len(jobs) < page or len(polls) >= at_most:
                break
        return polls[:at_most]

    def _in_flight(
        self, since: float, until: float, *, at_most: int, start: int = 0
    ) -> list[tuple[str, float, str, str]]:
        """Return the id, due time, state and stage of the jobs in flight that are due between these times."""
        index = self._space.key("in_flight")
        scores = self._redis.zrange(index, since, until, byscore=True, offset=start, num=at_most, withscores=True)
        due_times = cast(list[tuple[str, float]], scores)
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id, _ in due_times:
                pipe.hmget(self._space.key(f"job:{job_id}"), "state", "stage")
            records = pipe.execute()
        return [(job_id, due, *record) for (job_id, due), record in zip(due_times, records, strict=True)]
