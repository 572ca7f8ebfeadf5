"""How fast one process puts jobs into the local Valkey, and what a job takes there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.load import jobs
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect

ROUNDS = 3
BULK = 50_000
SINGLE = 2_000


def measure(url: str) -> dict[str, float]:
    """Jobs a second and bytes a job in Redis: medians of rounds in which all ways take turns."""
    client = connect(url)
    with VoiceQueue(url) as queue:
        rounds = [_round(queue, client) for _ in range(ROUNDS)]
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def _round(queue: VoiceQueue, client: Any) -> dict[str, float]:
    many, few = list(jobs(BULK, "bulk")), list(jobs(SINGLE, "single"))
    client.flushall()
    before = _used(client)
    found = {"enqueue_many, jobs a second": _rate(BULK, lambda: queue.enqueue_many(many))}
    found["Redis, bytes a job"] = (_used(client) - before) / BULK
    found["enqueue, jobs a second"] = _rate(SINGLE, lambda: [queue.enqueue(job) for job in few])
    found["raw pipelined SET of the same bytes, a second"] = _rate(BULK, lambda: _raw(client, many))
    client.flushall()
    return found


def _raw(client: Any, many: list[Any]) -> None:
    """What redis-py can do at best: one SET a job, nothing checked, nothing indexed."""
    for start in range(0, len(many), 500):
        with client.pipeline(transaction=False) as pipe:
            for number, job in enumerate(many[start : start + 500], start=start):
                pipe.set(f"raw:{number}", job.content())
            pipe.execute()


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
