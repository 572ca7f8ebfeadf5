"""Growth with the number of finished jobs: the time of `status`, of lists and of the job page.

The jobs are cancelled instead of being ordered, which also ends them. A million takes several minutes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import requests
from rich.table import Table

from benchmarks.growth import TIMES, Times, judged, summarize
from benchmarks.load import jobs
from benchmarks.peers.ground import MEMORY
from config.settings import Settings
from voicequeue import Filter, Limits, Sort, VoiceQueue
from voicequeue.domain.job import Transition
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.job_store import JobStore
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: The numbers of finished jobs, up to the requested maximum, and of batches.
SIZES, BATCHES = (10_000, 100_000, 1_000_000), 10

#: Jobs that one call ends.
CHUNK = 500

#: Operations that read at most this many jobs.
BOUNDED = dict.fromkeys(("search: none matches", "search: one matches", "job page: a search"), 10000)


def tables(up_to: int) -> Iterator[Table]:
    """Yield the table by number of finished jobs."""
    results = _by_jobs([size for size in SIZES if size <= up_to])
    table = Table("jobs finished", *(f"{size:,}" for size in results), "verdict")
    for operation in next(iter(results.values())):
        times = {size: of_size[operation] for size, of_size in results.items()}
        verdict = judged(operation, {size: time_.least for size, time_ in times.items()}, BOUNDED)
        table.add_row(f"{operation}, ms", *(f"{time_.median:.2f}" for time_ in times.values()), verdict)
    yield table


def _by_jobs(sizes: list[int]) -> dict[int, dict[str, Times]]:
    results: dict[int, dict[str, Times]] = {}
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        Supervisor(print_line=print) as supervisor,
    ):
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder))
        url = stack.start_valkey()
        page = stack.start_gateway(webhooks=False)
        with VoiceQueue(url, namespace="*") as queue, connect(url) as client, requests.Session() as session:
            session.get(f"{page}/?token={stack.gateway_token()}", timeout=30).raise_for_status()
            store, count = JobStore(client, DEFAULT_PREFIX, limits=Limits()), 0
            for size in sizes:
                for number in range(BATCHES):
                    queue.enqueue_many(jobs((size - count) // BATCHES, f"of-{size}-{number}"))
                _end_all(store)
                summarize(store)
                count = size
                results[size] = _timed(queue, session, page)
    return results


def _end_all(store: JobStore) -> None:
    """Cancel all queued jobs."""
    for priority, batch in store.indexes.lanes():
        lane = f"lane:{priority.rank}:{batch}"
        while entries := store.indexes.read_page(lane, None, CHUNK):
            ends = [Transition(job_id, 1, State.QUEUED, Stage.VOICE, State.CANCELLED) for job_id, _ in entries]
            if not all(store.apply_transitions(ends, time.time())):
                raise RuntimeError("not every job was cancelled")


def _timed(queue: VoiceQueue, session: requests.Session, page: str) -> dict[str, Times]:
    last = queue.search(Filter(), sort=Sort.CHANGED_DESC, limit=1).items[0]

    def loaded(path: str) -> Callable[[], object]:
        return lambda: session.get(page + path, timeout=60).raise_for_status()

    operations: Mapping[str, Callable[[], object]] = {
        "status": queue.status,
        "the latest 50": lambda: queue.search(Filter(), sort=Sort.CHANGED_DESC, limit=50),
        "search: none matches": lambda: queue.search(Filter(text="no such name")),
        "search: one matches": lambda: queue.search(Filter(text=last.spec.key)),
        "job page: the list": loaded("/"),
        "job page: a search": loaded("/?q=no+such+name"),
        "job page: a batch": loaded(f"/?batch={last.spec.batch}"),
        "job page: the batches": loaded("/batches"),
        "job page: one job": loaded(f"/job/{last.id}"),
        "job page: the trends": loaded("/trends"),
    }
    return {name: Times([_milliseconds(operation) for _ in range(TIMES)]) for name, operation in operations.items()}


def _milliseconds(operation: Callable[[], object]) -> float:
    started = time.perf_counter()
    operation()
    return (time.perf_counter() - started) * 1000
