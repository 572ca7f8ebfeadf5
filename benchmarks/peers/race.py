"""One run of one contestant, then all of them in turns, and the medians.

A run has three heats, each with its own Valkey and upstream:

    enqueue   without workers: jobs are enqueued one by one, then many at once
    drain     upstream is ready at once; workers are suspended until every job is queued
    trickle   an order takes about a second, and a job arrives every tenth of a second
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from benchmarks.peers.contestants import CONTESTANTS, OURS, Contestant, NotInstalled, install
from benchmarks.peers.crew import Crew, Producer
from benchmarks.peers.ground import Ground, Heat, on_ground, producing, working
from voicequeue import State, VoiceQueue

ROUNDS = 3

#: Jobs to drain; `enqueue` enqueues as many one by one, and MANY times as many at once.
JOBS = 1000
MANY = 4

#: Jobs that warm up every process: connections, imports, and the memory that it shares with its parent until it writes.
#: Those of `trickle` arrive as the others do, or one process would get all of them.
WARM_DRAIN, WARM_TRICKLE = 40, 30

#: Jobs of `trickle`, and the seconds between two of them.
TRICKLING, APART_S = 100, 0.1

DRAIN = Heat(ready=(0.0, 0.0), first_s=0.0, again_s=0.05, ours_s=(0.01, 0.01))
TRICKLE = Heat(ready=(0.75, 1.25), first_s=0.5, again_s=0.5, ours_s=(0.5, 0.5))

#: Seconds for workers to start before there is work, so that startup is not measured. (A sweep at the start of a worker
#: might also treat a job that another one has just started as lost; suspected, not shown.)
START_S = 1.5

#: Seconds between the warm-up and the measurement, so that follow-up work is finished.
SETTLED_S = 1.0

#: The timeout of each step of a run, in seconds.
TIMEOUT_S = 60.0

Figures = dict[str, float]


@dataclass
class ContestantResult:
    """The result of one contestant: the figures of each round, or errors."""

    contestant: Contestant
    rounds: list[Figures] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_installed: bool = True

    def medians(self) -> Figures:
        """Return the median of each figure; lateness is pooled over all rounds."""
        if not self.rounds:
            return {}
        result = {name: statistics.median(figures[name] for figures in self.rounds) for name in self.rounds[0]}
        if len(self.lateness) > 1:
            cuts = statistics.quantiles(self.lateness, n=20)
            result |= {"late_p50_s": statistics.median(self.lateness), "late_p95_s": cuts[-1]}
        return result


def run(
    rounds: int, jobs: int, only: Sequence[str], say: Callable[[str], None]
) -> tuple[list[ContestantResult], Figures]:
    """Run all contestants, or the named ones, in turns; return their results and the floor."""
    contestants = [contestant for contestant in CONTESTANTS if not only or contestant.name in only]
    results = [ContestantResult(contestant) for contestant in contestants]
    for result in results:
        _install(result, say)
    floors = []
    for number in range(rounds):
        # Rotate the order, so that each round starts with another contestant.
        for result in results[number % len(results) :] + results[: number % len(results)]:
            if result.is_installed:
                say(f"round {number + 1}: {result.contestant.name}")
                _take_turn(result, jobs, number + 1)
        floors.append(_floor(jobs))
    return results, {name: statistics.median(floor[name] for floor in floors) for name in floors[0]}


def _install(result: ContestantResult, say: Callable[[str], None]) -> None:
    try:
        install(result.contestant)
    except NotInstalled as error:
        result.is_installed = False
        result.errors.append(f"not installed: {error}")
        say(f"{result.contestant.name} is not installed: {error}")


def _take_turn(result: ContestantResult, jobs: int, number: int) -> None:
    contestant = result.contestant
    try:
        trickled, lateness = _trickle(contestant)
        result.rounds.append({**_enqueue(contestant, jobs), **_drain(contestant, jobs), **trickled})
        result.lateness += lateness
    except (RuntimeError, TimeoutError) as error:
        result.errors.append(f"round {number} failed: {error}")


def _enqueue(contestant: Contestant, jobs: int) -> Figures:
    with on_ground(contestant, DRAIN) as ground, producing(contestant, ground) as producer:
        producer.enqueue("one", 10, "warm")
        one = producer.enqueue("one", jobs, "one")["seconds"]
        many = producer.enqueue("many", MANY * jobs, "many")["seconds"]
    return {"enqueued_one_s": jobs / one, "enqueued_many_s": MANY * jobs / many}


def _drain(contestant: Contestant, jobs: int) -> Figures:
    with (
        on_ground(contestant, DRAIN) as ground,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        warm_up(contestant, ground, crew, producer, WARM_DRAIN, DRAIN)
        crew.suspend()
        producer.enqueue("many", jobs, "drain")
        cpu, started = crew.cpu(), time.perf_counter()
        crew.resume()
        memory = wait_until_done(contestant, ground, crew, "drain", jobs)
        seconds, cpu = time.perf_counter() - started, crew.cpu() - cpu
        report = checked(ground, jobs)
        if report["polls"] != 2 * jobs:
            raise RuntimeError(f"{report['polls']} polls for {jobs} jobs whose orders were ready at once")
        return {
            "drained_s": jobs / seconds,
            "drain_cpu_ms": cpu * 1000 / jobs,
            "memory_mb": memory / 1e6,
            "drain_calls": calls(report) / jobs,
        }


def _trickle(contestant: Contestant) -> tuple[Figures, list[float]]:
    with (
        on_ground(contestant, TRICKLE) as ground,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        warm_up(contestant, ground, crew, producer, WARM_TRICKLE, TRICKLE, apart_s=APART_S)
        cpu, started = crew.cpu(), time.perf_counter()
        producer.enqueue("one", TRICKLING, "trickle", APART_S)
        wait_until_done(contestant, ground, crew, "trickle", TRICKLING)
        seconds, cpu = time.perf_counter() - started, crew.cpu() - cpu
        report = checked(ground, TRICKLING)
        figures = {
            "trickle_cpu_ms": cpu * 1000 / TRICKLING,
            "trickle_calls": calls(report) / TRICKLING,
            "trickle_s": seconds,
        }
        return figures, report["lateness"]


def _floor(jobs: int) -> Figures:
    """Return the floor for every queue: the requests alone, and the bytes alone."""
    contestant = next(contestant for contestant in CONTESTANTS if contestant.name == OURS)
    with on_ground(contestant, DRAIN) as ground, producing(contestant, ground) as producer:
        producer.enqueue("calls", 20, "warm")
        calls = producer.enqueue("calls", jobs, "floor")
        sent = producer.enqueue("bytes", MANY * jobs, "floor")
    return {
        "drain_cpu_ms": calls["cpu"] * 1000 / jobs,
        "drained_s": jobs / calls["seconds"],
        "enqueued_many_s": MANY * jobs / sent["seconds"],
        "drain_calls": 4.0,
    }


def warm_up(
    contestant: Contestant,
    ground: Ground,
    crew: Crew,
    producer: Producer,
    count: int,
    heat: Heat,
    *,
    apart_s: float = 0.0,
) -> None:
    ground.reset((0.0, 0.0))
    time.sleep(START_S)
    producer.enqueue("one" if apart_s else "many", count, "warm", apart_s)
    wait_until_done(contestant, ground, crew, "warm", count)
    time.sleep(SETTLED_S)
    ground.reset(heat.ready)


def wait_until_done(
    contestant: Contestant, ground: Ground, crew: Crew, batch: str, count: int, *, interval_s: float = 0.02
) -> int:
    """Wait until every job of the batch has its result in Redis; return the peak memory (bytes)."""
    deadline, look, memory = time.monotonic() + TIMEOUT_S, 0.0, 0
    with _done(contestant, ground, batch) as done:
        while done() < count:
            if not crew.is_alive():
                raise RuntimeError(f"a worker has exited: {ground.last_log_line()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{done()} of {count} jobs after {TIMEOUT_S:g} s")
            if time.monotonic() > look:
                memory, look = max(memory, crew.memory()), time.monotonic() + 0.5
            time.sleep(interval_s)
    return max(memory, crew.memory())


@contextmanager
def _done(contestant: Contestant, ground: Ground, batch: str) -> Iterator[Callable[[], int]]:
    """Yield a function that counts the jobs of a batch with a result in Redis."""
    if contestant.is_ours:
        with VoiceQueue(ground.redis, namespace="*") as queue:
            yield lambda: queue.batch(batch).states[State.SUCCEEDED]
    else:
        with Redis.from_url(ground.redis) as client:
            yield lambda: int(client.hlen(f"race:{batch}"))


def checked(ground: Ground, jobs: int) -> dict[str, Any]:
    """Return upstream's report. Raises RuntimeError if jobs did not make exactly the expected requests."""
    report = ground.report()
    if (report["voices"], report["songs"]) != (jobs, jobs):
        raise RuntimeError(f"{jobs} jobs ordered {report['voices']} voices and {report['songs']} songs")
    if report["doubles"] or report["unseen"] or report["strays"]:
        raise RuntimeError(f"{jobs} jobs: {_describe_faults(report)}")
    return report


def _describe_faults(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {report[name]}" for name in ("doubles", "unseen", "strays"))


def calls(report: dict[str, Any]) -> float:
    return float(sum(report[name] for name in ("voices", "songs", "polls", "credits")))
