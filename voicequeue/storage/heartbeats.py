"""Which processes live: each is heard every second or so, and says what it runs with."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from voicequeue.storage.connection.keyspace import Keyspace

DAY_S = 86_400

#: Where each kind of process is heard.
KINDS: Mapping[str, str] = {
    "worker": "pulses",
    "callbacks": "callbacks:pulses",
    "archive": "archive:pulses",
    "gateway": "gateway:pulses",
}


@dataclass(frozen=True, slots=True)
class Heard:
    """A process of that kind and name, when it was heard last (Unix seconds, the queue's time), and its facts."""

    kind: str
    name: str
    at: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ahead(self) -> float:
        """Return by how many seconds its host's clock is ahead of Redis's; negative where it is behind."""
        return float(self.facts.get("ahead", 0.0))


class Pulses:
    """The processes of one kind. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace, kind: str) -> None:
        self._redis = keyspace.redis
        self._kind = kind
        self._heard = keyspace.key(KINDS[kind])
        self._facts = keyspace.key(f"{KINDS[kind]}:facts")

    def heard(self, name: str, now: float, facts: Mapping[str, Any] | None = None) -> None:
        """Note that a process lives, and by how many seconds the clock of its host is ahead of the queue's time, which
        is `now`; those not heard for a day are forgotten."""
        told = {**(facts or {}), "ahead": round(time.time() - now, 1)}
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(self._heard, {name: now})
            pipe.hset(self._facts, name, json.dumps(told))
            pipe.zrange(self._heard, "-inf", now - DAY_S, byscore=True)
            *_, gone = pipe.execute()
        if gone:
            self._redis.zrem(self._heard, *gone)
            self._redis.hdel(self._facts, *gone)

    def gone(self, name: str) -> None:
        """Note that a process has ended by itself: nobody need wait for it."""
        self._redis.zrem(self._heard, name)
        self._redis.hdel(self._facts, name)

    def since(self, at: float) -> list[Heard]:
        """Those that were heard after that, whoever is silent longest first."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zrange(self._heard, f"({at}", "+inf", byscore=True, withscores=True)
            pipe.hgetall(self._facts)
            found, facts = cast(tuple[list[tuple[str, float]], dict[str, str]], pipe.execute())
        return [Heard(self._kind, name, when, json.loads(facts.get(name, "{}"))) for name, when in found]
