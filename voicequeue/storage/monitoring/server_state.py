"""The state of the Redis server: memory, persistence, and whether it accepts writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError


@dataclass(frozen=True, slots=True)
class ServerState:
    """A Redis server as `INFO` shows it.

    `max_bytes` is its limit of memory, or the memory of its host if it has none; 0 if neither is known.
    """

    used_bytes: int
    max_bytes: int
    evicts_keys: bool
    has_append_only_file: bool
    can_write_file: bool

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> ServerState:
        """Return the state from the reply to `INFO`."""
        return cls(
            used_bytes=int(info.get("used_memory", 0)),
            max_bytes=int(info.get("maxmemory", 0)) or int(info.get("total_system_memory", 0)),
            evicts_keys=info.get("maxmemory_policy", "noeviction") != "noeviction",
            has_append_only_file=bool(int(info.get("aof_enabled", 0))),
            can_write_file=all(
                info.get(name, "ok") == "ok" for name in ("aof_last_write_status", "aof_last_bgrewrite_status")
            ),
        )


def read_server_state(redis: Redis) -> ServerState | None:
    """Return the state of the server; None if the user has no right to `INFO`. Raises RedisError."""
    try:
        return ServerState.from_info(redis.info())
    except NoPermissionError:
        return None
