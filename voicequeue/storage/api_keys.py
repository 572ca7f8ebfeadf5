"""API keys that were created at run time. Only hashes of their secrets are stored."""

from __future__ import annotations

import logging
from typing import cast

from voicequeue.domain.api_keys import TIME_MAX, ApiKey, from_record
from voicequeue.domain.budgets import budget_text
from voicequeue.storage.budgets import require_complete_counters
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.texts import parse_float, replace_unencodable

log = logging.getLogger("voicequeue")


class ApiKeys:
    """The API keys of one queue. Safe to share between threads."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._space = keyspace
        self._redis = keyspace.redis

    def version(self) -> str:
        """Return a text that changes with every change of a key."""
        return str(self._redis.get(self._space.key("api_keys:version")) or "")

    def list_all(self) -> list[ApiKey]:
        """Return all keys by name, also expired and revoked ones.

        A record that cannot be read is left out, because a later release wrote it or it is damaged: its key is refused,
        others are not, and its name is logged.
        """
        with self._redis.pipeline() as pipe:
            pipe.hgetall(self._space.key("api_keys"))
            pipe.hgetall(self._space.key("api_keys:last_used"))
            records, used = pipe.execute()
        keys = {name: from_record(name, records[name], _time(used.get(name))) for name in sorted(records)}
        if unreadable := [name for name, key in keys.items() if key is None]:
            log.warning("API keys whose records cannot be read are refused: %s", ", ".join(map(repr, unreadable)))
        return [key for key in keys.values() if key is not None]

    def record(self, name: str) -> str:
        """Return the record of the key with this name, also of an expired or revoked one; '' if there is none."""
        return cast(str | None, self._redis.hget(self._space.key("api_keys"), replace_unencodable(name))) or ""

    def write(self, key: ApiKey, *, before: str) -> bool:
        """Store a key in place of the record `before`; return False if another change came first.

        '' requires that the name is new. Raises InvalidStateError.
        """
        limits = key.limits.budget()
        if any(value is not None for value in limits.values()):
            require_complete_counters(self._space)
        fields = [text for limit, value in limits.items() for text in (limit, budget_text(limit, value))]
        return bool(self._space.run_change("write_api_key", key.name, before, key.to_record(before), *fields))

    def dropped_limits(self, key: ApiKey) -> list[str]:
        """Return the limits of the budget that the owner of this name has already and that the key does not set."""
        limits = key.limits.budget()
        stored = self._redis.hmget(self._space.key(f"budget:key/{key.name}"), list(limits))
        return [name for name, text in zip(limits, stored, strict=True) if text and limits[name] is None]

    def count_requests(self, name: str, requests_per_s: float, now: float, *, at_most: int = 1) -> tuple[int, float]:
        """Count up to `at_most` requests; return how many, and the seconds to wait if the key has used its requests."""
        count, wait = self._space.run_script("count_request", name, requests_per_s, at_most, f"{now:.6f}")
        return int(count), float(wait or 0)

    def note_use(self, name: str, now: float) -> None:
        """Store the time of a request."""
        self._redis.hset(self._space.key("api_keys:last_used"), name, f"{now:.3f}")


def _time(text: str | None) -> float | None:
    """Return the time; None if there is none, or it cannot be read."""
    at = parse_float(text or "")
    return at if at is not None and 0 <= at < TIME_MAX else None
