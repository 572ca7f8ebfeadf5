"""Heartbeats: which processes are running, and with which facts (release, settings, clock)."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from voicequeue.storage.connection.keyspace import Keyspace

DAY_S = 86_400

#: A process sends a heartbeat about every second; after this many seconds without one it is considered dead.
HEARTBEAT_TIMEOUT_S = 15.0

#: The fact of a process that accepts an old value of VOICEQUEUE_SECRET: a mark of that value.
ROTATION_MARK = "old_secret"

#: The fact of a process `callbacks`: marks of the root secrets that decrypt the callback secrets of API keys.
CALLBACK_ROOTS = "callback_roots"

#: The facts of a process `archive`: why it cannot store songs (empty if it can), and since when (Unix seconds).
STORAGE_ERROR, STORAGE_FAILING_SINCE = "storage_error", "storage_failing_since"

#: The keys of the heartbeats, by kind of process.
KINDS: Mapping[str, str] = {
    "worker": "heartbeats",
    "callbacks": "callbacks:heartbeats",
    "archive": "archive:heartbeats",
    "gateway": "gateway:heartbeats",
    # Of a process that has nothing to do by its settings, and does not count as one that does the work.
    "idle": "idle:heartbeats",
}


@dataclass(frozen=True, slots=True)
class ProcessHeartbeat:
    """A process: its kind and name, the time of its last heartbeat (Unix seconds by the queue's clock), and its
    facts."""

    kind: str
    name: str
    last_heartbeat: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def storage_error(self) -> str:
        """The error that keeps a process `archive` from storing songs; empty if there is none."""
        return str(self.facts.get(STORAGE_ERROR, ""))

    def storage_failing_s(self, now: float) -> float:
        """Return for how long it cannot store songs, in seconds."""
        return max(0.0, now - float(self.facts.get(STORAGE_FAILING_SINCE, now))) if self.storage_error else 0.0

    @property
    def clock_ahead_s(self) -> float:
        """Seconds by which the clock of its host is ahead of Redis's; negative if it is behind."""
        return float(self.facts.get("ahead", 0.0))

    @property
    def host(self) -> str:
        """The name of its host; of a release that does not report it, the part of the process's name after the '@'."""
        return str(self.facts.get("host") or self.name.partition("@")[2])


class Heartbeats:
    """The heartbeats of one kind of process. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, kind: str) -> None:
        self._redis = keyspace.redis
        self._kind = kind
        self._times = keyspace.key(KINDS[kind])
        self._facts = keyspace.key(f"{KINDS[kind]}:facts")
        self._old_secrets = keyspace.key("old_secrets")
        self._recorded_mark = ""

    def record(self, name: str, now: float, facts: Mapping[str, Any] | None = None) -> None:
        """Record a heartbeat at `now`, the queue's time, with the offset of this host's clock; delete processes
        without a heartbeat for a day."""
        offset_s = round(time.time() - now, 1)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(self._times, {name: now})
            pipe.hset(self._facts, name, json.dumps({**(facts or {}), "ahead": offset_s}))
            pipe.zrange(self._times, "-inf", now - DAY_S, byscore=True)
            *_, expired = pipe.execute()
        if expired:
            self._redis.zrem(self._times, *expired)
            self._redis.hdel(self._facts, *expired)
        if (mark := (facts or {}).get(ROTATION_MARK, "")) and mark != self._recorded_mark:
            self._redis.hsetnx(self._old_secrets, mark, str(now))
            self._recorded_mark = mark

    def remove(self, name: str) -> None:
        """Delete a process that has shut down."""
        self._redis.zrem(self._times, name)
        self._redis.hdel(self._facts, name)

    def old_secrets(self) -> dict[str, float]:
        """Return when each old value of VOICEQUEUE_SECRET was first reported (Unix seconds), by its mark."""
        return {mark: float(at) for mark, at in cast(dict[str, str], self._redis.hgetall(self._old_secrets)).items()}

    def alive(self, now: float) -> list[ProcessHeartbeat]:
        """Return the processes that are running: with a heartbeat in the last `HEARTBEAT_TIMEOUT_S` seconds."""
        return self.since(now - HEARTBEAT_TIMEOUT_S)

    def since(self, at: float) -> list[ProcessHeartbeat]:
        """Return the processes with a heartbeat after that time, the oldest heartbeat first."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrange(self._times, f"({at}", "+inf", byscore=True, withscores=True)
            pipe.hgetall(self._facts)
            times, facts = cast(tuple[list[tuple[str, float]], dict[str, str]], pipe.execute())
        return [ProcessHeartbeat(self._kind, name, when, json.loads(facts.get(name, "{}"))) for name, when in times]
