"""Growth with the number of queued jobs and of batches: the time of each operation, and memory.

Jobs are added to one Valkey up to each size, and each operation is timed repeatedly at that size. On the hot path, the
store's calls of a worker are timed for a chunk of 25 jobs, from the backlog to their voice; 25 others are enqueued, so
that the size stays the same.
"""

from __future__ import annotations

import math
import secrets
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

from redis import Redis
from rich.table import Table

from benchmarks.load import jobs
from benchmarks.peers.ground import MEMORY
from config.settings import Settings
from tasks import decisions
from tasks.musicapi import VoiceReady
from voicequeue import Filter, Limits, VoiceJob, VoiceQueue
from voicequeue.domain.claims import PollReschedule, SubmitClaim
from voicequeue.domain.job import Transition
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.job_store import JobStore
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: The numbers of jobs, up to the requested maximum.
SIZES = (1_000, 10_000, 100_000, 1_000_000, 2_000_000)
UP_TO = 100_000

#: The number of batches; for the second table the numbers of batches, and the number of jobs.
BATCHES = 10
MANY_BATCHES, IN_MANY = (10, 100, 1_000), 10_000

#: Jobs per chunk on the hot path, and how often each operation is timed.
CHUNK, TIMES = 25, 20

#: Jobs per call of enqueue_many.
SLICE = 500

#: The allowed growth of a duration from m to n items: log(n) / log(m), times this margin for noise.
LEEWAY = 1.5

#: Operations that read at most this many jobs; below that, growth is expected.
BOUNDED = {"find: none matches": 10_000, "find: one matches": 10_000}

#: Rows of the tables that are not durations; their growth is not judged.
PLAIN = (
    *("enqueue_many, jobs per second", "Redis, bytes per job", "a record, bytes"),
    *("summaries, bytes per job", "summaries, jobs per second"),
)

#: The maximum number of bytes per job in Redis.
BYTES_A_JOB = 1_500

_ENDLESS = 1e9


@dataclass(frozen=True, slots=True)
class Bench:
    """A queue in its own Valkey."""

    queue: VoiceQueue
    store: JobStore
    redis: Redis

    def used(self) -> int:
        """Return the bytes that Valkey uses."""
        return int(self.redis.info("memory")["used_memory"])


@dataclass(frozen=True, slots=True)
class Times:
    """The durations of an operation (milliseconds), or a single other figure."""

    all: Sequence[float]

    @property
    def median(self) -> float:
        """The figure in the table."""
        return statistics.median(self.all)

    @property
    def least(self) -> float:
        """The figure that is judged: noise makes an operation slower, never faster."""
        return min(self.all)


Results = Mapping[int, Mapping[str, Times]]


def tables(up_to: int = UP_TO) -> Iterator[Table]:
    """Yield the table by number of jobs, then the one by number of batches."""
    yield _table("jobs queued", _by_jobs([size for size in SIZES if size <= up_to]), BOUNDED)
    yield _table(f"batches of {IN_MANY:,} queued jobs", _by_batches(), {})


def _by_jobs(sizes: Sequence[int]) -> dict[int, dict[str, Times]]:
    results: dict[int, dict[str, Times]] = {}
    with _bench() as bench:
        new_jobs = _endless(BATCHES)
        job_count = held_bytes = 0
        for size in sizes:
            before = bench.used()  # finished jobs of earlier measurements do not count
            rates = [_rate(bench, new_jobs) for _ in range((size - job_count) // SLICE)]
            summarized_per_s = (size - job_count) / summarize(bench.store)
            job_count, held_bytes = size, held_bytes + bench.used() - before
            _wait_for_rewrite(bench)
            results[size] = {
                "enqueue_many, jobs per second": Times([statistics.harmonic_mean(rates)]),
                "Redis, bytes per job": Times([held_bytes / size]),
                "a record, bytes": Times([_of_a_record(bench)]),
                "summaries, bytes per job": Times([_of_summaries(bench) / size]),
                "summaries, jobs per second": Times([summarized_per_s]),
                **_timed(bench, new_jobs),
            }
    return results


def _by_batches() -> dict[int, dict[str, Times]]:
    results: dict[int, dict[str, Times]] = {}
    for count in MANY_BATCHES:
        with _bench() as bench:
            new_jobs = _endless(count)
            for _ in range(IN_MANY // SLICE):
                _rate(bench, new_jobs)
            summarize(bench.store)
            results[count] = _timed(bench, new_jobs)
    return results


@contextmanager
def _bench() -> Iterator[Bench]:
    """Start a fresh Valkey with `config/valkey.conf`, and a queue in it with its scripts loaded."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        Supervisor(print_line=print) as supervisor,
    ):
        url = Stack(supervisor, Settings(_env_file=None), home=Path(folder)).start_valkey()
        with _queue(url, "warm") as warm:
            _rate(warm, _endless(1))
            summarize(warm.store)
            _timed(warm, _endless(1))
            warm.redis.flushall()
        with _queue(url, DEFAULT_PREFIX) as bench:
            yield bench


@contextmanager
def _queue(url: str, prefix: str) -> Iterator[Bench]:
    with VoiceQueue(url, prefix=prefix, namespace="*") as queue:
        client = connect(url)
        yield Bench(queue, JobStore(client, prefix, limits=Limits(in_flight=10**6, initial_in_flight=10**6)), client)
        client.close()


def _wait_for_rewrite(bench: Bench) -> None:
    """Wait until Valkey has finished rewriting its append-only file in the background."""
    deadline = time.monotonic() + 120
    while any(bench.redis.info("persistence")[f"aof_rewrite_{at}"] for at in ("in_progress", "scheduled")):
        if time.monotonic() > deadline:
            raise TimeoutError("Valkey does not finish rewriting its file")
        time.sleep(0.5)


def _endless(batches: int) -> Iterator[VoiceJob]:
    """Yield jobs, evenly distributed over the batches."""
    by_batch = [jobs(int(_ENDLESS), f"batch-{number}") for number in range(batches)]
    return (job for together in zip(*by_batch, strict=True) for job in together)


def _rate(bench: Bench, new_jobs: Iterator[VoiceJob]) -> float:
    batch_of_jobs = list(islice(new_jobs, SLICE))
    started = time.perf_counter()
    bench.queue.enqueue_many(batch_of_jobs)
    return SLICE / (time.perf_counter() - started)


def summarize(store: JobStore) -> float:
    """Build the missing summaries as maintenance does, without its pauses; return how long it took (seconds)."""
    started = time.perf_counter()
    for _ in store.indexes.summaries.build(time.time, settled_s=0.0):
        pass
    return time.perf_counter() - started


def _of_summaries(bench: Bench) -> int:
    names = bench.redis.scan_iter(f"{{{DEFAULT_PREFIX}}}:summar*", count=10_000)
    return sum(cast(int, bench.redis.memory_usage(name, samples=0)) for name in names)


def _of_a_record(bench: Bench) -> float:
    job = next(iter(bench.queue.jobs(state=State.QUEUED)))
    return float(cast(int, bench.redis.memory_usage(f"{{{DEFAULT_PREFIX}}}:job:{job.id}", samples=0)))


# ── measurements ───────────────────────────────────────────────────────────────────────────────────


def _timed(bench: Bench, new_jobs: Iterator[VoiceJob]) -> dict[str, Times]:
    """Return the durations of each operation."""
    durations: dict[str, list[float]] = defaultdict(list)
    for _ in range(TIMES):
        _time_chunk(bench, new_jobs, durations)
        _time_reads(bench, durations)
    return {operation: Times([duration_s * 1000 for duration_s in seconds]) for operation, seconds in durations.items()}


def _time_chunk(bench: Bench, new_jobs: Iterator[VoiceJob], durations: dict[str, list[float]]) -> None:
    """Move 25 jobs from the backlog to their finished voice, then enqueue 25 others."""
    store, now = bench.store, time.time()

    def timed(operation: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        durations[operation].append(time.perf_counter() - started)
        return result

    admitted = timed("admit 25", lambda: store.admit(now, at_most=CHUNK)).by_stage[Stage.VOICE]
    holder = secrets.token_hex(8)
    claims: list[SubmitClaim] = timed(
        "charge 25", lambda: store.claim_submit(admitted, Stage.VOICE, holder, now, lease_s=90)
    )
    accepted = [decisions.accepted(claim, f"task-{number}", now, 0.0) for number, claim in enumerate(claims)]
    timed("apply 25: accepted", lambda: store.apply_transitions(accepted, now))
    reschedules = [PollReschedule(claim.job_id, claim.version + 1, due=now, last_not_ready_at=now) for claim in claims]
    timed("plan 25", partial(store.reschedule_polls, reschedules))
    poll_claims = timed("claim 25", lambda: store.claim_poll(admitted, now, lease_s=90))
    transitions = [
        move
        for claim in poll_claims
        if (move := decisions.transition_from_result(claim, VoiceReady("persona", "A voice"), now))
    ]
    timed("apply 25: ready", lambda: store.apply_transitions(transitions, now))
    timed("overdue, expired, release, hasten", partial(_reconcile, store, now))
    _finish(store, transitions, now)
    batch_of_jobs = list(islice(new_jobs, CHUNK))
    timed("enqueue 25", lambda: bench.queue.enqueue_many(batch_of_jobs))


def _reconcile(store: JobStore, now: float) -> None:
    store.lease_overdue(now, overdue_s=10)
    store.lease_expired(now)
    store.release_waiting(now)
    store.reassign_voice_creators(now)


def _finish(store: JobStore, transitions: Sequence[Transition], now: float) -> None:
    """Cancel the jobs, which would continue with their songs."""
    ends = [
        Transition(transition.job_id, transition.version + 1, transition.to_state, Stage.MUSIC, State.CANCELLED)
        for transition in transitions
    ]
    if store.apply_transitions(ends, now) != [True] * CHUNK:
        raise RuntimeError("not every job of the chunk was completed")


def _time_reads(bench: Bench, durations: dict[str, list[float]]) -> None:
    queue = bench.queue
    job = next(iter(queue.search(Filter(batch="batch-0"), limit=1).items))
    operations: Mapping[str, Callable[[], object]] = {
        "get": lambda: queue.get(job.id),
        "status": queue.status,
        "find: queued": lambda: queue.search(Filter(state=State.QUEUED)),
        "find: of a batch": lambda: queue.search(Filter(batch="batch-0")),
        "find: none matches": lambda: queue.search(Filter(text="no such name")),
        "find: one matches": lambda: queue.search(Filter(text=job.spec.key)),
    }
    for name, operation in operations.items():
        started = time.perf_counter()
        operation()
        durations[name].append(time.perf_counter() - started)


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────


def _table(title: str, results: Results, bounded: Mapping[str, int]) -> Table:
    sizes = list(results)
    table = Table(title, *(f"{size:,}" for size in sizes), "verdict")
    for operation in results[sizes[0]]:
        values = {size: results[size][operation] for size in sizes}
        table.add_row(
            operation if operation in PLAIN else f"{operation}, ms",
            *(f"{value.median:,.0f}" if operation in PLAIN else f"{value.median:.2f}" for value in values.values()),
            judged(operation, {size: value.least for size, value in values.items()}, bounded),
        )
    return table


def judged(operation: str, values: Mapping[int, float], bounded: Mapping[str, int]) -> str:
    """Return the verdict on the growth of an operation's time, or on the bytes per job, by the number of items; for
    `bounded` operations from that number on."""
    if operation == "Redis, bytes per job":
        largest = values[max(values)]
        return "good" if largest <= BYTES_A_JOB else f"more than {BYTES_A_JOB:,}"
    if operation in PLAIN:
        return ""
    smallest, largest = max(min(values), min(bounded.get(operation, 0), max(values))), max(values)
    growth, allowed = values[largest] / values[smallest], math.log(largest) / math.log(smallest) * LEEWAY
    return "flat" if growth <= LEEWAY else "as a logarithm" if growth <= allowed else f"GROWS {growth:.1f} times"
