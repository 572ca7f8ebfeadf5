"""How fast one process puts jobs into the local Valkey, and what a job takes there."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.load import jobs
from voicequeue import VoiceQueue
from voicequeue.store import connect

ROUNDS = 3
BULK = 50_000
SINGLE = 2_000


def measure(url: str) -> dict[str, float]:
    """Jobs a second (medians of interleaved rounds) and bytes a job in Redis."""
    client = connect(url)
    rates: dict[str, list[float]] = {}
    sizes: list[float] = []
    with VoiceQueue(url) as queue:
        for _ in range(ROUNDS):
            many = list(jobs(BULK, "bulk"))
            before = _used(client)
            rates.setdefault("enqueue_many, jobs a second", []).append(_rate(BULK, lambda: queue.enqueue_many(many)))
            sizes.append((_used(client) - before) / BULK)
            few = list(jobs(SINGLE, "single"))
            rates.setdefault("enqueue, jobs a second", []).append(
                _rate(SINGLE, lambda: [queue.enqueue(job) for job in few])
            )
            client.flushall()
            rates.setdefault("raw pipelined SET of the same bytes, a second", []).append(
                _rate(BULK, lambda: _raw(client, many))
            )
            client.flushall()
    return {**{name: statistics.median(each) for name, each in rates.items()}, "Redis, bytes a job": min(sizes)}


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
