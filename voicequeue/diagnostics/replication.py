"""Check that a Redis that fails over keeps what it acknowledged: its sentinels, its replicas, and their settings.

`read_sentinels` and `read_replicas` collect the facts; `sentinel_results` and `replica_results` evaluate them and are
pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from voicequeue.diagnostics.check_result import CheckResult, Level, passed
from voicequeue.diagnostics.redis_server import RedisServer
from voicequeue.storage.connection.sentinels import Sentinels

#: Sentinels that are needed so that a majority remains when one fails.
SENTINELS_MIN = 3

#: A replica that has not acknowledged for longer (seconds) is not in sync.
LAG_MAX_S = 10

_MAJORITY = "until a majority of the sentinels agrees, no primary that fails is replaced"


@dataclass(frozen=True, slots=True)
class SentinelState:
    """The answers of one sentinel.

    `problem`: why it names no primary. `primary`: its host and port. `others`: how many other sentinels it knows.
    `quorum_problem`: why it could not start a failover. `priorities`: the priority of each replica; a lower one is
    preferred.
    """

    name: str
    problem: str = ""
    primary: str = ""
    others: int = 0
    quorum_problem: str = ""
    priorities: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of a primary.

    `in_sync` of `connected` replicas have acknowledged recently. `required`: VOICEQUEUE_REPLICAS_ACK. `min_to_write`:
    min-replicas-to-write, None if the server does not reveal it.
    """

    in_sync: int
    connected: int
    required: int
    min_to_write: int | None
    has_sentinels: bool


def read_sentinels(redis: Redis) -> list[SentinelState]:
    """Ask each sentinel that the URL of this client names; empty without sentinels."""
    sentinels = getattr(redis.connection_pool, "sentinel_manager", None)
    if not isinstance(sentinels, Sentinels):
        return []
    name = redis.connection_pool.service_name
    return [_state(sentinel, client, name) for sentinel, client in sentinels.clients.items()]


def _state(sentinel: str, client: Redis, name: str) -> SentinelState:
    try:
        primary = client.sentinel_masters().get(name)
        if primary is None:
            return SentinelState(sentinel, f"does not know a primary {name!r}")
        return SentinelState(
            sentinel,
            primary=f"{primary['ip']}:{primary['port']}",
            others=int(primary["num-other-sentinels"]),
            quorum_problem=_quorum_problem(client, name),
            priorities=[int(replica["slave-priority"]) for replica in client.sentinel_slaves(name)],
        )
    except RedisError as error:
        return SentinelState(sentinel, f"does not answer: {error}")


def _quorum_problem(client: Redis, name: str) -> str:
    try:
        client.sentinel_ckquorum(name)
    except ResponseError as error:
        return str(error)
    return ""


def read_replicas(redis: Redis, server: RedisServer, *, required: int) -> Replicas | None:
    """Return the replicas of a server, None if it reveals nothing or is a replica itself."""
    info = server.info
    if info.get("role") != "master":
        return None
    count = int(info.get("connected_slaves", 0))
    replicas = [value for number in range(count) if isinstance(value := info.get(f"slave{number}"), Mapping)]
    in_sync = sum(value.get("state") == "online" and int(value.get("lag", 0)) <= LAG_MAX_S for value in replicas)
    min_to_write = server.config.get("min-replicas-to-write") or server.config.get("min-slaves-to-write")
    has_sentinels = isinstance(getattr(redis.connection_pool, "sentinel_manager", None), Sentinels)
    return Replicas(in_sync, count, required, None if min_to_write is None else int(min_to_write), has_sentinels)


def sentinel_results(states: Sequence[SentinelState]) -> Iterator[CheckResult]:
    """Evaluate the answers of the sentinels."""
    if not states:
        return
    answering = [state for state in states if not state.problem]
    for state in states:
        if state.problem:
            level = Level.WARNING if 2 * len(answering) > len(states) else Level.ERROR
            yield CheckResult("sentinels", level, f"the sentinel {state.name} {state.problem}", _MAJORITY)
    yield from _agreement(answering)
    for problem in sorted({state.quorum_problem for state in answering} - {""}):
        yield CheckResult("sentinels", Level.ERROR, f"no failover is possible: {problem}", _MAJORITY)
    known = max((state.others + 1 for state in answering), default=SENTINELS_MIN)
    if known < SENTINELS_MIN:
        what = f"only {known} sentinels watch the primary: if one fails, no majority is left"
        yield CheckResult("sentinels", Level.WARNING, what, f"run {SENTINELS_MIN}, on different hosts")
    if any(len(set(state.priorities)) > 1 for state in answering):
        what = "replicas have different priorities, so one that has recorded less may become the primary"
        yield CheckResult("sentinels", Level.WARNING, what, "give all of them the same replica-priority")


def _agreement(answering: Sequence[SentinelState]) -> Iterator[CheckResult]:
    primaries: dict[str, list[str]] = {}
    for state in answering:
        primaries.setdefault(state.primary, []).append(state.name)
    if len(primaries) > 1:
        names = "; ".join(f"{primary} by {', '.join(names)}" for primary, names in sorted(primaries.items()))
        todo = "wait for the end of a failover; if it remains, restore the network between the sentinels"
        yield CheckResult("sentinels", Level.ERROR, f"the sentinels name different primaries: {names}", todo)
    elif primaries:
        yield passed("sentinels", f"{len(answering)} agree on the primary {next(iter(primaries))}")


def _ack_of_all(replicas: Replicas) -> str:
    return f"VOICEQUEUE_REPLICAS_ACK={max(replicas.connected, 1)} for every process: the number of replicas"


def replica_results(replicas: Replicas | None) -> Iterator[CheckResult]:
    """Evaluate the replicas."""
    if replicas is None or not (replicas.has_sentinels or replicas.required):
        return
    counted = f"{replicas.in_sync} of {replicas.connected} connected replicas are in sync"
    if replicas.in_sync < max(replicas.required, 1):
        required = f"VOICEQUEUE_REPLICAS_ACK requires {replicas.required}, so no order is sent"
        what = f"{counted}; {required if replicas.required else 'a failover would lose jobs, or find no server'}"
        yield CheckResult("replicas", Level.ERROR, what, "connect the replicas (replicaof); their logs say what fails")
    elif not replicas.required:
        what = f"{counted}, and VOICEQUEUE_REPLICAS_ACK is 0: after a failover, an order may be sent and paid again"
        yield CheckResult("replicas", Level.WARNING, what, _ack_of_all(replicas))
    elif replicas.has_sentinels and replicas.required < replicas.connected:
        what = (
            f"{counted}, and VOICEQUEUE_REPLICAS_ACK is {replicas.required}: a primary that is replaced while it runs "
            "continues with the replicas that still follow it, and their orders are sent and paid again"
        )
        yield CheckResult("replicas", Level.WARNING, what, _ack_of_all(replicas))
    else:
        yield passed("replicas", f"{counted}; {replicas.required} must record an order before it is sent")
    if replicas.has_sentinels and replicas.min_to_write == 0:
        what = "min-replicas-to-write is 0: a primary that is cut off accepts jobs, which are lost when it is replaced"
        yield CheckResult("replicas", Level.WARNING, what, "min-replicas-to-write 1, on each server")
