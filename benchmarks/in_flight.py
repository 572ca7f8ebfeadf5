"""Tens of thousands of jobs in flight, none of them ready: memory of workers and Redis, and lateness of polls.

Real workers order a voice for each job and poll it every 15 to 25 s, as in production. The lateness of a poll is read
from the records of sampled jobs twice a second: from its planned time until upstream's answer was stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rich.table import Table

from benchmarks.load import jobs
from benchmarks.running_stack import running_stack
from voicequeue import VoiceQueue
from voicequeue.domain.states import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import Keyspace

#: The numbers of jobs, up to the requested maximum, and the number of workers.
SIZES, WORKERS = (10_000, 100_000), 2

#: Jobs that warm up the workers; the memory used then is the baseline.
WARM = 1_000

#: Duration of orders and deadline of jobs in seconds: both after the end of the benchmark.
NEVER_S = 100_000.0

#: Seconds from all jobs being in flight until each was polled, and seconds of sampling.
SETTLE_S, SAMPLING_S = 45.0, 60.0

#: The number of sampled jobs, and the seconds between samples.
SAMPLED, SAMPLE_INTERVAL_S = 400, 0.5

#: Targets: additional megabytes of all workers and of Redis, and seconds of lateness.
WORKERS_MB, REDIS_MB, LATE_S = 50, 250, 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The result for a number of jobs: memory in MB before and with all jobs, lateness in seconds, CPU shares."""

    count: int
    ordered_in_s: float
    workers_mb: tuple[float, float]
    redis_mb: tuple[float, float]
    polls_a_second: float
    late: Sequence[float]
    cpu: dict[str, float]


def tables(up_to: int) -> Iterator[Table]:
    """Yield the table of results, in which missed targets are marked."""
    yield table([measured(count) for count in SIZES if count <= up_to])


def table(runs: Sequence[Measured]) -> Table:
    """Return the table with one row per figure."""
    result_table = Table("in flight", *(f"{run.count:,}" for run in runs), "at most")

    def row(label: str, values: Sequence[float], aim: float | None = None, form: str = ",.0f") -> None:
        cells = [f"{value:{form}}" + ("" if aim is None or value <= aim else " (!)") for value in values]
        result_table.add_row(label, *cells, "" if aim is None else f"{aim:g}")

    row("all workers, additional MB", [run.workers_mb[1] - run.workers_mb[0] for run in runs], WORKERS_MB)
    row("all workers, MB", [run.workers_mb[1] for run in runs])
    row("Redis, additional MB", [run.redis_mb[1] - run.redis_mb[0] for run in runs], REDIS_MB)
    row("Redis, bytes per job", [(run.redis_mb[1] - run.redis_mb[0]) * 1e6 / (run.count - WARM) for run in runs])
    row("polls per second, planned", [run.count / 20 for run in runs])
    row("polls per second, measured", [run.polls_a_second for run in runs])
    for name, percent in (("p50", 50), ("p95", 95)):
        row(f"a poll's lateness {name}, s", [_percentile(run.late, percent) for run in runs], LATE_S, ".2f")
    row("orders per second, while polling", [run.count / run.ordered_in_s for run in runs])
    for part in runs[0].cpu:
        row(f"processors used by {part}", [run.cpu[part] for run in runs], None, ".2f")
    return result_table


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


def measured(count: int) -> Measured:
    """Measure with this many jobs in flight and real workers."""
    env = {"VOICEQUEUE_VOICE_DEADLINE_S": f"{NEVER_S:g}"}
    with (
        running_stack((NEVER_S, NEVER_S), workers=WORKERS, env=env) as stack,
        VoiceQueue(stack.redis, namespace="*") as queue,
        connect(stack.redis) as redis,
    ):
        workers = stack.crews["the workers"]
        _have_in_flight(queue, "few", WARM)
        time.sleep(SETTLE_S)
        idle_bytes, redis_bytes = workers.memory(), _used(redis)
        started = time.monotonic()
        _have_in_flight(queue, "many", count - WARM)
        ordered_in_s = time.monotonic() - started
        time.sleep(SETTLE_S)
        lateness = Lateness(redis, count)
        cpu, polls, started = stack.cpu(), stack.report()["polls"], time.monotonic()
        while time.monotonic() < started + SAMPLING_S:
            lateness.look()
            time.sleep(SAMPLE_INTERVAL_S)
        seconds = time.monotonic() - started
        return Measured(
            count=count,
            ordered_in_s=ordered_in_s,
            workers_mb=(idle_bytes / 1e6, workers.memory() / 1e6),
            redis_mb=(redis_bytes / 1e6, _used(redis) / 1e6),
            polls_a_second=(stack.report()["polls"] - polls) / seconds,
            late=lateness.seen,
            cpu={label: (after - cpu[label]) / seconds for label, after in stack.cpu().items()},
        )


def _have_in_flight(queue: VoiceQueue, batch: str, count: int) -> None:
    queue.enqueue_many(jobs(count, batch))
    deadline = time.monotonic() + 600
    while (batch_counts := queue.batch(batch)).states[State.PENDING] < count:
        if time.monotonic() > deadline or batch_counts.states[State.FAILED] or batch_counts.states[State.UNSURE]:
            raise RuntimeError(f"not every order was accepted: {batch_counts}")
        time.sleep(0.2)


def _used(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


class Lateness:
    """Samples the lateness of polls of some jobs: `seen`, in seconds."""

    def __init__(self, redis: Redis, count: int) -> None:
        self._redis = redis
        self._space = Keyspace(redis)
        job_ids = cast(list[str], redis.zrandmember(self._space.key("in_flight"), min(SAMPLED, count)))
        self._planned: dict[str, tuple[str | None, float]] = dict.fromkeys(job_ids, (None, 0.0))
        self.seen: list[float] = []

    def look(self) -> None:
        """Record the polls since the last sample, and the times of the next planned ones."""
        with self._redis.pipeline(transaction=True) as pipe:
            for job_id in self._planned:
                pipe.zscore(self._space.key("in_flight"), job_id)
                pipe.hget(self._space.key(f"job:{job_id}"), "not_ready_at")
            replies = iter(pipe.execute())
        for job_id, (due_at, polled_at) in zip(list(self._planned), zip(replies, replies, strict=True), strict=True):
            polled_before, due_before = self._planned[job_id]
            if polled_at != polled_before:
                if polled_before is not None and due_before:
                    self.seen.append(float(polled_at) - due_before)
                self._planned[job_id] = (polled_at, due_at)  # after a poll this is the plan of the next one
