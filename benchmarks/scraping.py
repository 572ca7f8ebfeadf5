"""How long a scrape of `/metrics` takes, with a hundred jobs in the store and with a hundred thousand."""

from __future__ import annotations

import statistics
import time

import requests

from benchmarks.load import jobs
from voicequeue import VoiceQueue
from workers.local.stack import Stack

JOBS, BATCHES, SCRAPES = 100_000, 200, 60


def measure(redis_url: str, stack: Stack) -> dict[str, float]:
    """Milliseconds, the client's part included: the median and the 95th percentile."""
    found: dict[str, float] = {}
    url = f"{stack.start_web(webhooks=False)}/metrics"
    with VoiceQueue(redis_url) as queue:
        queue.enqueue_many(jobs(100, "few"))
        found |= _scraped(url, stack, "a hundred jobs")
        for batch in range(BATCHES):
            queue.enqueue_many(jobs(JOBS // BATCHES, f"batch-{batch}"))
        found |= _scraped(url, stack, f"{JOBS:,} jobs in {BATCHES} batches")
    return found


def _scraped(url: str, stack: Stack, what: str) -> dict[str, float]:
    taken = []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {stack.web_key()}"
        for _ in range(SCRAPES):
            began = time.perf_counter()
            session.get(url, timeout=10).raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
    return {
        f"a scrape with {what}, ms (median)": statistics.median(taken),
        f"a scrape with {what}, ms (p95)": statistics.quantiles(taken, n=20)[-1],
    }
