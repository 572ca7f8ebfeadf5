"""Duration of a scrape of `/metrics`, with a hundred and with a hundred thousand jobs."""

from __future__ import annotations

import statistics
import time

import requests

from benchmarks.load import jobs
from voicequeue import VoiceQueue
from workers.local.stack import Stack

JOBS, BATCHES, SCRAPES = 100_000, 200, 60


def measure(redis_url: str, stack: Stack) -> dict[str, float]:
    """Return the milliseconds per scrape, client included: median and 95th percentile."""
    figures: dict[str, float] = {}
    url = f"{stack.start_gateway(webhooks=False)}/metrics"
    with VoiceQueue(redis_url, namespace="*") as queue:
        queue.enqueue_many(jobs(100, "few"))
        figures |= _scraped(url, stack, "a hundred jobs")
        for batch in range(BATCHES):
            queue.enqueue_many(jobs(JOBS // BATCHES, f"batch-{batch}"))
        figures |= _scraped(url, stack, f"{JOBS:,} jobs in {BATCHES} batches")
    return figures


def _scraped(url: str, stack: Stack, label: str) -> dict[str, float]:
    durations_ms = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {stack.gateway_token()}"
        for _ in range(SCRAPES):
            started = time.perf_counter()
            session.get(url, timeout=10).raise_for_status()
            durations_ms.append((time.perf_counter() - started) * 1000)
    return {
        f"a scrape with {label}, ms (median)": statistics.median(durations_ms),
        f"a scrape with {label}, ms (p95)": statistics.quantiles(durations_ms, n=20)[-1],
    }
