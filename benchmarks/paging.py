"""Load times of the job page with a hundred thousand jobs: list, search, batches, one job."""

from __future__ import annotations

import statistics
import time
from urllib.parse import urlencode

import requests

from benchmarks.load import jobs
from voicequeue import VoiceQueue
from workers.local.stack import Stack

JOBS, BATCHES, LOADS = 100_000, 200, 40


def measure(redis_url: str, stack: Stack) -> dict[str, float]:
    """Return the milliseconds until the whole page is loaded, client included: median and 95th percentile.

    A search by name reads 10,000 jobs per page and continues automatically: one page and the whole search are timed.
    """
    page = stack.start_gateway(webhooks=False)
    with VoiceQueue(redis_url, namespace="*") as queue:
        for batch in range(BATCHES):
            queue.enqueue_many(jobs(JOBS // BATCHES, f"batch-{batch}"))
        last = next(iter(queue.jobs(batch=f"batch-{BATCHES - 1}")))
    paths = {
        "the list": "/",
        "a batch": "/?batch=batch-7",
        "the batches": "/batches",
        "one job": f"/job/{last.id}",
        "a search by id": f"/?{urlencode({'q': last.id})}",
        "a search by name, a page": f"/?{urlencode({'q': 'no such name'})}",
        "the trends": "/trends",
    }
    figures: dict[str, float] = {}
    with requests.Session() as session:
        session.get(f"{page}/?token={stack.gateway_token()}", timeout=30).raise_for_status()
        for label, path in paths.items():
            durations_ms = [_loaded(session, page + path) for _ in range(LOADS)]
            figures[f"{label}, ms (median)"] = statistics.median(durations_ms)
            figures[f"{label}, ms (p95)"] = statistics.quantiles(durations_ms, n=20)[-1]
        figures["a search by name through all jobs, ms"] = _searched(session, page, "no such name")
    return figures


def _loaded(session: requests.Session, url: str) -> float:
    started = time.perf_counter()
    session.get(url, timeout=30).raise_for_status()
    return (time.perf_counter() - started) * 1000


def _searched(session: requests.Session, page: str, name: str) -> float:
    """Search as the page does, page by page, and return the milliseconds."""
    started = time.perf_counter()
    next_page = f"?{urlencode({'q': name})}"
    while next_page:
        text = session.get(f"{page}/{next_page}", timeout=30).text
        link = text.partition('data-search-on href="')[2]
        next_page = link.partition('"')[0].replace("&amp;", "&")
    return (time.perf_counter() - started) * 1000
