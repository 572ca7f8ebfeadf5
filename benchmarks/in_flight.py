"""Tens of thousands of jobs in flight, none of which is ready: the workers' memory, Redis's, and how late polls are.

Real workers order a voice for each job and go on to ask about it every 15 to 25 s, as in production. A poll's lateness
is told by the records of some of the jobs, looked at twice a second: from the time that was planned for it until
upstream's answer was written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rich.table import Table

from benchmarks.load import jobs
from benchmarks.standing import standing
from voicequeue import VoiceQueue
from voicequeue.domain.job import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.keyspace import Keyspace

#: So many jobs, up to what was asked for; and the workers that they are in flight with.
SIZES, WORKERS = (10_000, 100_000), 2

#: So many warm the workers up first: memory is compared with what they had then.
WARM = 1_000

#: Nothing is ready before the end, and no deadline ends it either (seconds).
NEVER_S = 100_000.0

#: When all are in flight this long passes (seconds), so that each has been asked about; then polls are looked at.
SETTLE_S, LOOK_S = 45.0, 60.0

#: Of so many jobs, drawn by lot, and so often (seconds).
LOTS, EVERY_S = 400, 0.5

#: What is aimed at: megabytes more for all workers, and for Redis; seconds of lateness.
WORKERS_MB, REDIS_MB, LATE_S = 50, 250, 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """So many jobs in flight: megabytes with a few and with all; seconds; polls and orders a second; shares of CPU."""

    count: int
    ordered_in_s: float
    workers_mb: tuple[float, float]
    redis_mb: tuple[float, float]
    polls_a_second: float
    late: Sequence[float]
    cpu: dict[str, float]


def tables(up_to: int) -> Iterator[Table]:
    """What was measured, and what of it is as it should be."""
    yield table([measured(count) for count in SIZES if count <= up_to])


def table(found: Sequence[Measured]) -> Table:
    """A row for each thing that was measured."""
    told = Table("in flight", *(f"{each.count:,}" for each in found), "at most")

    def row(what: str, values: Sequence[float], aim: float | None = None, form: str = ",.0f") -> None:
        cells = [f"{value:{form}}" + ("" if aim is None or value <= aim else " (!)") for value in values]
        told.add_row(what, *cells, "" if aim is None else f"{aim:g}")

    row("all workers, MB more than with a few", [each.workers_mb[1] - each.workers_mb[0] for each in found], WORKERS_MB)
    row("all workers, MB", [each.workers_mb[1] for each in found])
    row("Redis, MB more", [each.redis_mb[1] - each.redis_mb[0] for each in found], REDIS_MB)
    row("Redis, bytes a job", [(each.redis_mb[1] - each.redis_mb[0]) * 1e6 / (each.count - WARM) for each in found])
    row("polls a second, due by their plans", [each.count / 20 for each in found])
    row("polls a second, made", [each.polls_a_second for each in found])
    for name, percent in (("p50", 50), ("p95", 95)):
        row(f"a poll's lateness {name}, s", [_percentile(each.late, percent) for each in found], LATE_S, ".2f")
    row("orders a second, while polls go on", [each.count / each.ordered_in_s for each in found])
    for of in found[0].cpu:
        row(f"processors that {of} took", [each.cpu[of] for each in found], None, ".2f")
    return told


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


def measured(count: int) -> Measured:
    """Have so many jobs in flight with real workers."""
    env = {"VOICEQUEUE_VOICE_DEADLINE_S": f"{NEVER_S:g}"}
    with (
        standing((NEVER_S, NEVER_S), workers=WORKERS, env=env) as stack,
        VoiceQueue(stack.redis) as queue,
        connect(stack.redis) as redis,
    ):
        workers = stack.crews["the workers"]
        _have_in_flight(queue, "few", WARM)
        time.sleep(SETTLE_S)
        few, held = workers.memory(), _used(redis)
        began = time.monotonic()
        _have_in_flight(queue, "many", count - WARM)
        ordered_in_s = time.monotonic() - began
        time.sleep(SETTLE_S)
        lateness = Lateness(redis, count)
        cpu, polls, began = stack.cpu(), stack.report()["polls"], time.monotonic()
        while time.monotonic() < began + LOOK_S:
            lateness.look()
            time.sleep(EVERY_S)
        seconds = time.monotonic() - began
        return Measured(
            count=count,
            ordered_in_s=ordered_in_s,
            workers_mb=(few / 1e6, workers.memory() / 1e6),
            redis_mb=(held / 1e6, _used(redis) / 1e6),
            polls_a_second=(stack.report()["polls"] - polls) / seconds,
            late=lateness.seen,
            cpu={what: (after - cpu[what]) / seconds for what, after in stack.cpu().items()},
        )


def _have_in_flight(queue: VoiceQueue, batch: str, count: int) -> None:
    queue.enqueue_many(jobs(count, batch))
    give_up = time.monotonic() + 600
    while (found := queue.batch(batch)).states[State.PENDING] < count:
        if time.monotonic() > give_up or found.states[State.FAILED] or found.states[State.UNSURE]:
            raise RuntimeError(f"not every order was taken: {found}")
        time.sleep(0.2)


def _used(redis: Redis) -> int:
    return int(redis.info("memory")["used_memory"])


class Lateness:
    """How late some jobs' polls are: `seen`, in seconds."""

    def __init__(self, redis: Redis, count: int) -> None:
        self._redis = redis
        self._space = Keyspace(redis)
        found = cast(list[str], redis.zrandmember(self._space.key("in_flight"), min(LOTS, count)))
        self._planned: dict[str, tuple[str | None, float]] = dict.fromkeys(found, (None, 0.0))
        self.seen: list[float] = []

    def look(self) -> None:
        """See which of them were asked about since the last look, and what is planned for them now."""
        with self._redis.pipeline(transaction=True) as pipe:
            for job_id in self._planned:
                pipe.zscore(self._space.key("in_flight"), job_id)
                pipe.hget(self._space.key(f"job:{job_id}"), "asked")
            found = iter(pipe.execute())
        for job_id, (due, asked) in zip(list(self._planned), zip(found, found, strict=True), strict=True):
            before, planned = self._planned[job_id]
            if asked != before:
                if before is not None and planned:
                    self.seen.append(float(asked) - planned)
                self._planned[job_id] = (asked, due)  # what is planned when it was just asked about is the plan
