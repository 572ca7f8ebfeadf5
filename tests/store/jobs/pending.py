"""Jobs whose orders upstream works on, and clients that call at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from tests.store.life import NOW, accept_order, claim_admitted, enqueue_jobs
from tests.support.jobs import numbered_voices
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

#: When the jobs of `pending` are due.
DUE = NOW + 20


def pending(store: JobStore, count: int = 1, **fields: object) -> list[str]:
    """Return jobs whose voices upstream works on, due in 20 s."""
    job_ids = enqueue_jobs(store, *numbered_voices(count, **fields))
    store.admit(NOW, at_most=count)
    for job_id in job_ids:
        claim_admitted(store, job_id)
        accept_order(store, job_id, due=DUE)
    return job_ids


def both(url: str, prefix: str, work: Callable[[JobStore, int], list[str]]) -> list[list[str]]:
    """Return the results of two clients that call at the same moment."""
    together = Barrier(2)

    def alone(number: int) -> list[str]:
        client = connect(url)
        together.wait()
        result = work(JobStore(client, prefix), number)
        client.close()
        return result

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(alone, range(2)))
