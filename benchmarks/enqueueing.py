"""Enqueue rate of one process on the local Valkey, and the memory per job."""

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
    """Return jobs per second and bytes per job in Redis: medians over rounds."""
    client = connect(url)
    with VoiceQueue(url, namespace="*") as queue:
        rounds = [_round(queue, client) for _ in range(ROUNDS)]
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def _round(queue: VoiceQueue, client: Any) -> dict[str, float]:
    bulk_jobs, single_jobs = list(jobs(BULK, "bulk")), list(jobs(SINGLE, "single"))
    client.flushall()
    before = _used(client)
    figures = {"enqueue_many, jobs per second": _rate(BULK, lambda: queue.enqueue_many(bulk_jobs))}
    figures["Redis, bytes per job"] = (_used(client) - before) / BULK
    figures["enqueue, jobs per second"] = _rate(SINGLE, lambda: [queue.enqueue(job) for job in single_jobs])
    figures["raw pipelined SET of the same bytes, per second"] = _rate(BULK, lambda: _raw(client, bulk_jobs))
    client.flushall()
    return figures


def _raw(client: Any, bulk_jobs: list[Any]) -> None:
    """Send one SET per job, without validation and indexes: the limit of redis-py."""
    for start in range(0, len(bulk_jobs), 500):
        with client.pipeline(transaction=False) as pipe:
            for number, job in enumerate(bulk_jobs[start : start + 500], start=start):
                pipe.set(f"raw:{number}", job.content())
            pipe.execute()


def _rate(count: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def _used(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
