"""Check the Redis server of a queue: its version, persistence and memory, and the rights of the user.

`read` collects the facts; `results` evaluates them and is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.storage.connection.refusals import RedisRefusalError

#: The oldest versions that the scripts and kombu support.
MIN_VERSIONS = {"Redis": (6, 2), "Valkey": (7, 2)}


@dataclass(frozen=True, slots=True)
class RedisServer:
    """The state and the configuration of a server, each empty if it does not reveal it to `user`."""

    info: Mapping[str, Any]
    config: Mapping[str, str]
    user: str


def read(redis: Redis) -> RedisServer:
    """Read the facts. Raises RedisError."""
    user = redis.connection_pool.connection_kwargs.get("username") or "default"
    return RedisServer(_info(redis), _config(redis), str(user))


def _info(redis: Redis) -> dict[str, Any]:
    """Return the server's state, empty if the user has no right to it."""
    try:
        return redis.info()
    except ResponseError:  # no right, or a managed Redis without the command
        return {}


def _config(redis: Redis) -> dict[str, str]:
    """Return the configuration, empty if a managed Redis does not reveal it."""
    try:
        return cast(dict[str, str], redis.config_get("appendonly", "appendfsync", "min-replicas-to-write"))
    except ResponseError:
        return {}


def results(server: RedisServer, write_refusal: RedisRefusalError | None) -> Iterator[CheckResult]:
    """Evaluate the facts. `write_refusal`: the error with which the server rejects writes."""
    if server.info:
        yield _server(server.info, write_refusal)
        yield from _persistence(server)
        yield from _memory(server.info)
        return
    what = f"Redis does not permit INFO to the user {server.user}: version, persistence and memory were not checked"
    todo = f"ACL SETUSER {server.user} +info +config|get (docs/guides/secure.md#redis-users), or use another user"
    yield CheckResult("redis rights", Level.WARNING, what, todo)
    if write_refusal is not None:
        yield CheckResult("redis", Level.ERROR, f"Redis refuses writes: {write_refusal}", write_refusal.cure)


def _server(info: Mapping[str, Any], refusal: RedisRefusalError | None) -> CheckResult:
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version", "0"))
    min_version = MIN_VERSIONS[product]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < min_version:
        required = ".".join(map(str, min_version))
        return CheckResult(
            "redis", Level.ERROR, f"{product} {version} is too old", f"upgrade it to {required} or newer"
        )
    if info.get("role", "master") != "master":
        todo = "set REDIS_URL to the primary"
        return CheckResult("redis", Level.ERROR, f"{product} {version} is a replica, which accepts no writes", todo)
    if refusal is not None:
        return CheckResult("redis", Level.ERROR, f"{product} {version} refuses writes: {refusal}", refusal.cure)
    return passed("redis", f"{product} {version}")


def _persistence(server: RedisServer) -> Iterator[CheckResult]:
    info, fsync = server.info, server.config.get("appendfsync")
    if not int(info.get("aof_enabled", 0)):
        yield CheckResult(
            "persistence",
            Level.ERROR,
            "Redis keeps no append-only file: a restart loses jobs, and orders that were paid",
            "appendonly yes and appendfsync always (config/valkey.conf), or the equivalent of a managed Redis",
        )
    elif info.get("aof_last_write_status", "ok") != "ok" or info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield CheckResult(
            "persistence", Level.ERROR, "Redis cannot write its append-only file", "check its log: is the disk full?"
        )
    elif fsync is None:
        what = "Redis does not reveal how often it writes its append-only file to disk"
        yield CheckResult("persistence", Level.NOTE, what, "make sure that it is appendfsync always")
    elif fsync != "always":
        yield CheckResult(
            "persistence",
            Level.WARNING,
            f"appendfsync {fsync}: if Redis is killed, the last second or two are lost, possibly with the fact that an "
            "order was paid",
            "appendfsync always (config/valkey.conf)",
        )
    else:
        yield passed("persistence", "append-only file, written to disk before each reply")


_MORE_MEMORY = (
    "give Redis more memory, or shorten the retention of settled jobs (VOICEQUEUE_RETENTION_DAYS): a full Redis "
    "accepts neither jobs nor task ids"
)


def _memory(info: Mapping[str, Any]) -> Iterator[CheckResult]:
    policy, max_bytes = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        what = f"maxmemory-policy {policy}: Redis deletes keys when it is full, including job records"
        yield CheckResult("eviction", Level.ERROR, what, "maxmemory-policy noeviction (config/valkey.conf)")
    else:
        yield passed("eviction", "keys are never evicted")
    used, total = int(info.get("used_memory", 0)), max_bytes or int(info.get("total_system_memory", 0))
    share = used / total if total else 0.0
    usage = f"{used / 1e6:,.0f} MB of {total / 1e6:,.0f} MB are used"
    if share > 0.8:
        level = Level.ERROR if share > 0.95 else Level.WARNING
        yield CheckResult("memory", level, usage, _MORE_MEMORY)
    else:
        yield passed("memory", usage)
