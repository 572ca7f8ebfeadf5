"""How long the job page's list, search, batches and one job take, with a hundred thousand jobs in the store."""

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
    """Milliseconds until the whole page is there, the client's part included: median and 95th percentile.

    A search by name looks at 10,000 jobs a page and goes on by itself: one page of it, and the whole until the very
    last job is found.
    """
    page = stack.start_web(webhooks=False)
    with VoiceQueue(redis_url) as queue:
        for batch in range(BATCHES):
            queue.enqueue_many(jobs(JOBS // BATCHES, f"batch-{batch}"))
        last = next(iter(queue.jobs(batch=f"batch-{BATCHES - 1}")))
    paths = {
        "the list": "/",
        "a batch": "/?batch=batch-7",
        "the batches": "/batches",
        "one job": f"/job/{last.id}",
        "a search by id": f"/?{urlencode({'q': last.id})}",
        "a search by name, a page": f"/?{urlencode({'q': 'nobody'})}",
        "how it went over time": "/trend",
    }
    found: dict[str, float] = {}
    with requests.Session() as session:
        session.get(f"{page}/?token={stack.web_key()}", timeout=30).raise_for_status()
        for what, path in paths.items():
            taken = [_loaded(session, page + path) for _ in range(LOADS)]
            found[f"{what}, ms (median)"] = statistics.median(taken)
            found[f"{what}, ms (p95)"] = statistics.quantiles(taken, n=20)[-1]
        found["a search by name, until there is nothing more to look at, ms"] = _searched(session, page, "nobody")
    return found


def _loaded(session: requests.Session, url: str) -> float:
    began = time.perf_counter()
    session.get(url, timeout=30).raise_for_status()
    return (time.perf_counter() - began) * 1000


def _searched(session: requests.Session, page: str, name: str) -> float:
    """As the page does it: from one to the next."""
    began = time.perf_counter()
    onward = f"?{urlencode({'q': name})}"
    while onward:
        text = session.get(f"{page}/{onward}", timeout=30).text
        marked = text.partition('data-search-on href="')[2]
        onward = marked.partition('"')[0].replace("&amp;", "&")
    return (time.perf_counter() - began) * 1000
