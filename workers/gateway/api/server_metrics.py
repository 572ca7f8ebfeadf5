"""Prometheus metrics of Redis, and of the processes by their heartbeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import Metric

from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.heartbeats import HEARTBEAT_TIMEOUT_S, ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import consumed_queues, stalled_consumers
from voicequeue.storage.monitoring.server_state import ServerState
from workers.gateway.api.metric_families import gauge

#: Processes whose last heartbeat is older (seconds) are omitted: others have replaced them.
PROCESS_MAX_AGE_S = 3600.0


def process_metrics(store: JobStore, now: float) -> Iterator[Metric]:
    """Yield the metrics of all processes."""
    processes = [
        process for heartbeats in store.heartbeats.values() for process in heartbeats.since(now - PROCESS_MAX_AGE_S)
    ]
    yield gauge(
        "heartbeat_age_seconds",
        "Time since the last heartbeat of each process seen in the last hour.",
        (
            ({"kind": process.kind, "worker": process.name}, max(0.0, now - process.last_heartbeat))
            for process in processes
        ),
    )
    running = [process for process in processes if process.last_heartbeat > now - HEARTBEAT_TIMEOUT_S]
    yield from _consumption(running)
    yield gauge(
        "clock_ahead_seconds",
        "Time by which the clock of a running process's host is ahead of Redis's; negative if it is behind.",
        (({"kind": process.kind, "worker": process.name}, process.clock_ahead_s) for process in running),
    )
    yield gauge(
        "archive_storage_failing_seconds",
        "Time for which a running process `archive` cannot store songs; 0 if it can.",
        (
            ({"worker": process.name}, process.storage_failing_s(now))
            for process in running
            if process.kind == "archive"
        ),
    )


def _consumption(running: Sequence[ProcessHeartbeat]) -> Iterator[Metric]:
    yield gauge(
        "consumer_idle_seconds",
        "Time since each running process last consumed each of its queues, by its last heartbeat.",
        (
            ({"kind": process.kind, "worker": process.name, "queue": queue}, idle_s)
            for process in running
            for queue, idle_s in consumed_queues(process).items()
        ),
    )
    stalled = Counter(consumer.queue for consumer in stalled_consumers(running))
    yield gauge(
        "stalled_consumers",
        "Running processes that do not consume this queue, although they were started for it.",
        (({"queue": queue}, stalled[queue]) for queue in QUEUE_NAMES),
    )


def redis_metrics(store: JobStore) -> Iterator[Metric]:
    """Yield the metrics of Redis; without the right to INFO only whether it accepts writes."""
    state = store.server_state()
    yield gauge("redis_accepts_writes", "1 if Redis accepts writes, else 0.", [({}, int(_accepts_writes(store)))])
    yield gauge(
        "redis_info_permitted",
        "1 if Redis permits INFO to the gateway; if 0, memory and persistence are unknown.",
        [({}, int(state is not None))],
    )
    facts: tuple[tuple[str, str, Callable[[ServerState], float]], ...] = (
        ("redis_memory_used_bytes", "Memory that Redis uses.", lambda server: server.used_bytes),
        (
            "redis_memory_max_bytes",
            "Limit of Redis's memory, or the memory of its host.",
            lambda server: server.max_bytes,
        ),
        ("redis_evicts_keys", "1 if Redis deletes keys when it is full, else 0.", lambda server: server.evicts_keys),
        (
            "redis_persistent",
            "1 if Redis keeps an append-only file and could write it last, else 0.",
            lambda server: server.has_append_only_file and server.can_write_file,
        ),
    )
    for name, description, value_of in facts:
        yield gauge(name, description, [] if state is None else [({}, float(value_of(state)))])


def _accepts_writes(store: JobStore) -> bool:
    try:
        store.check_writable()
    except RedisRefusalError:
        return False
    return True
