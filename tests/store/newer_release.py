"""Records as a newer release writes them: with fields and values that this release does not know."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis import Redis

from tests.store.life import NOW, job_with_song
from voicequeue.storage.job_store import JobStore

#: A field of a newer release.
NEWER = {"newer": {"text": "kept", "list": [1, 2.5, None]}}


@dataclass(frozen=True)
class NewerRelease:
    """Writes what this release does not know into the records of a store."""

    store: JobStore

    def redis(self) -> Redis:
        """Return the client."""
        return self.store._redis

    def extend(self, name: str, field: str) -> None:
        """Add a field to the JSON object, or to each one of the JSON list, in a field of a hash."""
        key = self.store._space.key(name)
        value = json.loads(str(self.redis().hget(key, field)))
        extended = [{**line, **NEWER} for line in value] if isinstance(value, list) else {**value, **NEWER}
        self.redis().hset(key, field, json.dumps(extended, separators=(",", ":")))

    def read(self, name: str, field: str) -> Any:
        """Return the JSON in a field of a hash."""
        return json.loads(str(self.redis().hget(self.store._space.key(name), field)))

    def set(self, name: str, **fields: str) -> None:
        """Set fields of a hash."""
        self.redis().hset(self.store._space.key(name), mapping=fields)  # type: ignore[arg-type]  # its types want bytes

    def has_kept(self, name: str) -> bool:
        """Return whether a hash has the field that `set` gave it."""
        return self.redis().hget(self.store._space.key(name), "newer") == "kept"


def in_newer_state(store: JobStore, newer: NewerRelease) -> str:
    """Return the id of a job whose values this release does not know, in its batch, its lists and its timeline."""
    job = job_with_song(store, batch="b")
    failure = {"code": "eclipsed", "stage": "video", "message": "why", **NEWER}
    newer.set(f"job:{job.id}", state="paused", stage="video", archive="cold", failure=json.dumps(failure))
    entry = {"at": NOW, "state": "paused", "stage": "video", "reason": "r", **NEWER}
    store._redis.rpush(store._space.key(f"timeline:{job.id}"), json.dumps(entry))
    event = {"id": job.id, "batch": "b", "state": "paused", "stage": "video", "reason": "r", "newer": "x"}
    store._redis.xadd(store._space.key("events"), event)  # type: ignore[arg-type]  # as above
    hold = {"since": NOW, "detail": "d", **NEWER}
    newer.set("gate", moon_phase=json.dumps(hold))
    return job.id
