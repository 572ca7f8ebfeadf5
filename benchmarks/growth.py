"""What grows with the number of queued jobs, and with the number of their batches: time of each operation, memory.

Jobs are added to one Valkey until there are so many, and there each operation is timed again and again. What is timed
on the hot path is the store's calls as workers make them, for a chunk of 25 jobs that go from the backlog to their
voice; as many others are enqueued for them, so that the backlog stays as long as it was.
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
from voicequeue.domain.claims import Charged, Planned
from voicequeue.domain.job import Move, State
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from voicequeue.storage.job_store import Store
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: So many jobs, up to what was asked for.
SIZES = (1_000, 10_000, 100_000, 1_000_000)
UP_TO = 100_000

#: The jobs stand in so many batches; for the second table in so many each time, and there are so many jobs.
BATCHES = 10
MANY_BATCHES, IN_MANY = (10, 100, 1_000), 10_000

#: Jobs that go together on the hot path, and how often each operation is timed.
CHUNK, TIMES = 25, 20

#: Jobs in one call that enqueues many.
SLICE = 500

#: What an operation on n things may take longer than on m: log(n) / log(m), and this for what else the machine does.
LEEWAY = 1.5

#: These look at 10,000 jobs at most: where there are fewer they take less.
BOUNDED = {"find: none matches": 10_000}

#: Rows of the tables that are not milliseconds: how they are written, and that nothing follows from their growth.
PLAIN = ("enqueue_many, jobs a second", "Redis, bytes a job", "a record, bytes")

#: A job may hold this many bytes of Redis.
BYTES_A_JOB = 1_500

_NOBODY = 1e9


@dataclass(frozen=True, slots=True)
class Bench:
    """A queue in a Valkey of its own, and its parts."""

    queue: VoiceQueue
    store: Store
    redis: Redis

    def used(self) -> int:
        """Bytes that Valkey holds."""
        return int(self.redis.info("memory")["used_memory"])


@dataclass(frozen=True, slots=True)
class Times:
    """How long an operation took each time (milliseconds), or else one figure."""

    all: Sequence[float]

    @property
    def median(self) -> float:
        """What is told."""
        return statistics.median(self.all)

    @property
    def least(self) -> float:
        """What is judged: whatever else the machine does makes an operation slower, never faster."""
        return min(self.all)


Found = Mapping[int, Mapping[str, Times]]


def tables(up_to: int = UP_TO) -> Iterator[Table]:
    """What was measured with more and more jobs, then with more and more batches."""
    yield _table("jobs queued", _by_jobs([size for size in SIZES if size <= up_to]), BOUNDED)
    yield _table(f"batches of {IN_MANY:,} queued jobs", _by_batches(), {})


def _by_jobs(sizes: Sequence[int]) -> dict[int, dict[str, Times]]:
    found: dict[int, dict[str, Times]] = {}
    with _bench() as bench:
        coming = _endless(BATCHES)
        there = held = 0
        for size in sizes:
            before = bench.used()  # what was timed has left finished jobs behind: they do not count
            rates = [_rate(bench, coming) for _ in range((size - there) // SLICE)]
            there, held = size, held + bench.used() - before
            _come_to_rest(bench)
            found[size] = {
                "enqueue_many, jobs a second": Times(rates[-TIMES:]),
                "Redis, bytes a job": Times([held / size]),
                "a record, bytes": Times([_of_a_record(bench)]),
                **_timed(bench, coming),
            }
    return found


def _by_batches() -> dict[int, dict[str, Times]]:
    found: dict[int, dict[str, Times]] = {}
    for count in MANY_BATCHES:
        with _bench() as bench:
            coming = _endless(count)
            for _ in range(IN_MANY // SLICE):
                _rate(bench, coming)
            found[count] = _timed(bench, coming)
    return found


@contextmanager
def _bench() -> Iterator[Bench]:
    """A fresh Valkey with `config/valkey.conf`, and a queue in it; scripts are loaded."""
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        Supervisor(say=print) as supervisor,
    ):
        url = Stack(supervisor, Settings(_env_file=None), home=Path(folder)).start_valkey()
        with _queue(url, "warm") as warm:
            _rate(warm, _endless(1))
            _timed(warm, _endless(1))
            warm.redis.flushall()
        with _queue(url, DEFAULT_PREFIX) as found:
            yield found


@contextmanager
def _queue(url: str, prefix: str) -> Iterator[Bench]:
    with VoiceQueue(url, prefix=prefix) as queue:
        client = connect(url)
        yield Bench(queue, Store(client, prefix, limits=Limits(in_flight=10**6, first_in_flight=10**6)), client)
        client.close()


def _come_to_rest(bench: Bench) -> None:
    """Wait until Valkey has written its file anew, which it does beside its work while there are more and more jobs."""
    give_up = time.monotonic() + 120
    while any(bench.redis.info("persistence")[f"aof_rewrite_{at}"] for at in ("in_progress", "scheduled")):
        if time.monotonic() > give_up:
            raise TimeoutError("Valkey does not come to an end with its file")
        time.sleep(0.5)


def _endless(batches: int) -> Iterator[VoiceJob]:
    """Jobs, evenly in so many batches."""
    each = [jobs(int(_NOBODY), f"batch-{number}") for number in range(batches)]
    return (job for together in zip(*each, strict=True) for job in together)


def _rate(bench: Bench, coming: Iterator[VoiceJob]) -> float:
    some = list(islice(coming, SLICE))
    began = time.perf_counter()
    bench.queue.enqueue_many(some)
    return SLICE / (time.perf_counter() - began)


def _of_a_record(bench: Bench) -> float:
    job = next(iter(bench.queue.jobs(state=State.QUEUED)))
    return float(cast(int, bench.redis.memory_usage(f"{{{DEFAULT_PREFIX}}}:job:{job.id}", samples=0)))


# ── what is timed ──────────────────────────────────────────────────────────────────────────────────


def _timed(bench: Bench, coming: Iterator[VoiceJob]) -> dict[str, Times]:
    """How long each operation takes."""
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(TIMES):
        _a_chunk(bench, coming, taken)
        _look_around(bench, taken)
    return {what: Times([each * 1000 for each in seconds]) for what, seconds in taken.items()}


def _a_chunk(bench: Bench, coming: Iterator[VoiceJob], taken: dict[str, list[float]]) -> None:
    """25 jobs from the backlog to their voice, which is all that they wanted; then 25 others behind them."""
    store, now = bench.store, time.time()

    def timed(what: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        done = work()
        taken[what].append(time.perf_counter() - began)
        return done

    admitted = timed("admit 25", lambda: store.admit(now, at_most=CHUNK)).by_stage[Stage.VOICE]
    holder = secrets.token_hex(8)
    claims: list[Charged] = timed("charge 25", lambda: store.charge(admitted, Stage.VOICE, holder, now, lease=90))
    accepted = [decisions.accepted(claim, f"task-{number}", now, 0.0) for number, claim in enumerate(claims)]
    timed("apply 25: accepted", lambda: store.apply(accepted, now))
    looks = [Planned(claim.job_id, claim.version + 1, due=now, asked=now) for claim in claims]
    timed("plan 25", partial(store.plan, looks))
    asked = timed("claim 25", lambda: store.claim(admitted, Stage.VOICE, now, lease=90))
    moves = [move for each in asked if (move := decisions.polled(each, VoiceReady("persona", "A voice"), now))]
    timed("apply 25: ready", lambda: store.apply(moves, now))
    timed("overdue, expired, release, hasten", partial(_reconcile, store, now))
    _over(store, moves, now)
    some = list(islice(coming, CHUNK))
    timed("enqueue 25", lambda: bench.queue.enqueue_many(some))


def _reconcile(store: Store, now: float) -> None:
    store.overdue(now, patience=10)
    store.expired(now)
    store.release(now)
    store.hasten(now)


def _over(store: Store, moves: Sequence[Move], now: float) -> None:
    """Make an end of jobs that would go on to their songs."""
    ends = [Move(each.job_id, each.version + 1, each.to, Stage.MUSIC, State.CANCELLED) for each in moves]
    if store.apply(ends, now) != [True] * CHUNK:
        raise RuntimeError("not every job of the chunk went all the way")


def _look_around(bench: Bench, taken: dict[str, list[float]]) -> None:
    queue = bench.queue
    some = next(iter(queue.find(Filter(batch="batch-0"), limit=1).items))
    looks: Mapping[str, Callable[[], object]] = {
        "get": lambda: queue.get(some.id),
        "status": queue.status,
        "find: queued": lambda: queue.find(Filter(state=State.QUEUED)),
        "find: of a batch": lambda: queue.find(Filter(batch="batch-0")),
        "find: none matches": lambda: queue.find(Filter(called="nobody")),
    }
    for what, look in looks.items():
        began = time.perf_counter()
        look()
        taken[what].append(time.perf_counter() - began)


# ── how it is told ─────────────────────────────────────────────────────────────────────────────────


def _table(title: str, found: Found, bounded: Mapping[str, int]) -> Table:
    sizes = list(found)
    table = Table(title, *(f"{size:,}" for size in sizes), "judged")
    for what in found[sizes[0]]:
        values = {size: found[size][what] for size in sizes}
        table.add_row(
            what if what in PLAIN else f"{what}, ms",
            *(f"{value.median:,.0f}" if what in PLAIN else f"{value.median:.2f}" for value in values.values()),
            judged(what, {size: value.least for size, value in values.items()}, bounded),
        )
    return table


def judged(what: str, values: Mapping[int, float], bounded: Mapping[str, int]) -> str:
    """What is to be said of an operation's time (or of what a job holds) by the number of things; of those that are
    `bounded`, from that number on."""
    if what == "Redis, bytes a job":
        most = values[max(values)]
        return "well" if most <= BYTES_A_JOB else f"more than {BYTES_A_JOB:,}"
    if what in PLAIN:
        return ""
    least, most = max(min(values), min(bounded.get(what, 0), max(values))), max(values)
    grew, may = values[most] / values[least], math.log(most) / math.log(least) * LEEWAY
    return "flat" if grew <= LEEWAY else "as a logarithm" if grew <= may else f"GROWS {grew:.1f} times"
