"""One run of one contestant, then all of them in turns, and the medians.

A run has three heats, each on a Valkey and an upstream of its own:

    enqueue   nobody works: jobs go in one by one, then many at once
    drain     upstream is ready at once; workers are held still until every job is queued
    trickle   an order takes about a second, and a job comes every tenth of one
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

#: Jobs that are drained; `enqueue` takes as many one by one, and four times as many at once.
JOBS = 1000
MANY = 4

#: Jobs that warm up connections and imports.
WARM_DRAIN, WARM_TRICKLE = 40, 8

#: Jobs that trickle in, and the seconds between two of them.
TRICKLING, APART_S = 100, 0.1

DRAIN = Heat(ready=(0.0, 0.0), first_s=0.0, again_s=0.05, ours_s=0.01)
TRICKLE = Heat(ready=(0.75, 1.25), first_s=0.5, again_s=0.5, ours_s=0.5)

#: Workers have this long (seconds) to come up before there is work, so that nobody's start is measured. A sweep at the
#: start of one that takes a job for lost which another has just begun would do harm; it is suspected, not shown.
START_S = 1.5

#: Between warming up and what is measured (seconds): whatever follows a job has been done by then.
SETTLED_S = 1.0

#: Nobody needs longer than this (seconds) for what a run asks of it.
PATIENCE_S = 60.0

Figures = dict[str, float]


@dataclass
class Standing:
    """What is known about one contestant: a figure for each round, or why there is none."""

    contestant: Contestant
    rounds: list[Figures] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    is_installed: bool = True

    def medians(self) -> Figures:
        """The median of each figure; lateness is that of all rounds together."""
        if not self.rounds:
            return {}
        found = {name: statistics.median(each[name] for each in self.rounds) for name in self.rounds[0]}
        if len(self.lateness) > 1:
            cuts = statistics.quantiles(self.lateness, n=20)
            found |= {"late_p50_s": statistics.median(self.lateness), "late_p95_s": cuts[-1]}
        return found


def run(rounds: int, jobs: int, only: Sequence[str], say: Callable[[str], None]) -> tuple[list[Standing], Figures]:
    """Let all contestants, or those named, take turns; gives their standings and the floor."""
    chosen = [each for each in CONTESTANTS if not only or each.name in only]
    standings = [Standing(each) for each in chosen]
    for standing in standings:
        _install(standing, say)
    floors = []
    for number in range(rounds):
        # Who begins differs from round to round.
        for standing in standings[number % len(standings) :] + standings[: number % len(standings)]:
            if standing.is_installed:
                say(f"round {number + 1}: {standing.contestant.name}")
                _take_turn(standing, jobs, number + 1)
        floors.append(_floor(jobs))
    return standings, {name: statistics.median(each[name] for each in floors) for name in floors[0]}


def _install(standing: Standing, say: Callable[[str], None]) -> None:
    try:
        install(standing.contestant)
    except NotInstalled as error:
        standing.is_installed = False
        standing.troubles.append(f"not installed: {error}")
        say(f"{standing.contestant.name} is not installed: {error}")


def _take_turn(standing: Standing, jobs: int, number: int) -> None:
    contestant = standing.contestant
    try:
        trickled, lateness = _trickle(contestant)
        standing.rounds.append({**_enqueue(contestant, jobs), **_drain(contestant, jobs), **trickled})
        standing.lateness += lateness
    except (RuntimeError, TimeoutError) as error:
        standing.troubles.append(f"round {number} failed: {error}")


def _enqueue(contestant: Contestant, jobs: int) -> Figures:
    with on_ground(contestant, DRAIN) as ground, producing(contestant, ground) as producer:
        producer.tell("one", 10, "warm")
        one = producer.tell("one", jobs, "one")["seconds"]
        many = producer.tell("many", MANY * jobs, "many")["seconds"]
    return {"enqueued_one_s": jobs / one, "enqueued_many_s": MANY * jobs / many}


def _drain(contestant: Contestant, jobs: int) -> Figures:
    with (
        on_ground(contestant, DRAIN) as ground,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        _warm_up(contestant, ground, crew, producer, WARM_DRAIN, DRAIN)
        crew.hold()
        producer.tell("many", jobs, "drain")
        cpu, began = crew.cpu(), time.perf_counter()
        crew.let_go()
        memory = _wait(contestant, ground, crew, "drain", jobs)
        seconds, cpu = time.perf_counter() - began, crew.cpu() - cpu
        report = _checked(ground, jobs)
        if report["polls"] != 2 * jobs:
            raise RuntimeError(f"{report['polls']} polls for {jobs} jobs whose orders were ready at once")
        return {
            "drained_s": jobs / seconds,
            "drain_cpu_ms": cpu * 1000 / jobs,
            "memory_mb": memory / 1e6,
            "drain_calls": _calls(report) / jobs,
        }


def _trickle(contestant: Contestant) -> tuple[Figures, list[float]]:
    with (
        on_ground(contestant, TRICKLE) as ground,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        _warm_up(contestant, ground, crew, producer, WARM_TRICKLE, TRICKLE)
        cpu, began = crew.cpu(), time.perf_counter()
        producer.tell("one", TRICKLING, "trickle", APART_S)
        _wait(contestant, ground, crew, "trickle", TRICKLING)
        seconds, cpu = time.perf_counter() - began, crew.cpu() - cpu
        report = _checked(ground, TRICKLING)
        figures = {
            "trickle_cpu_ms": cpu * 1000 / TRICKLING,
            "trickle_calls": _calls(report) / TRICKLING,
            "trickle_s": seconds,
        }
        return figures, report["lateness"]


def _floor(jobs: int) -> Figures:
    """What nobody can go below: the calls alone, and the bytes alone."""
    ours = next(each for each in CONTESTANTS if each.name == OURS)
    with on_ground(ours, DRAIN) as ground, producing(ours, ground) as producer:
        producer.tell("calls", 20, "warm")
        calls = producer.tell("calls", jobs, "floor")
        sent = producer.tell("bytes", MANY * jobs, "floor")
    return {
        "drain_cpu_ms": calls["cpu"] * 1000 / jobs,
        "drained_s": jobs / calls["seconds"],
        "enqueued_many_s": MANY * jobs / sent["seconds"],
        "drain_calls": 4.0,
    }


def _warm_up(contestant: Contestant, ground: Ground, crew: Crew, producer: Producer, count: int, heat: Heat) -> None:
    ground.reset((0.0, 0.0))
    time.sleep(START_S)
    producer.tell("many", count, "warm")
    _wait(contestant, ground, crew, "warm", count)
    time.sleep(SETTLED_S)
    ground.reset(heat.ready)


def _wait(contestant: Contestant, ground: Ground, crew: Crew, batch: str, count: int) -> int:
    """Wait until every job of the batch has its result in Redis; gives the most memory that was seen (bytes)."""
    give_up, look, memory = time.monotonic() + PATIENCE_S, 0.0, 0
    with _done(contestant, ground, batch) as done:
        while done() < count:
            if not crew.is_alive():
                raise RuntimeError(f"a worker has died: {ground.last_words()}")
            if time.monotonic() > give_up:
                raise TimeoutError(f"{done()} of {count} jobs after {PATIENCE_S:g} s")
            if time.monotonic() > look:
                memory, look = max(memory, crew.memory()), time.monotonic() + 0.5
            time.sleep(0.02)
    return max(memory, crew.memory())


@contextmanager
def _done(contestant: Contestant, ground: Ground, batch: str) -> Iterator[Callable[[], int]]:
    """Tells how many jobs of a batch have their result in Redis."""
    if contestant.is_ours:
        with VoiceQueue(ground.redis) as queue:
            yield lambda: queue.batch(batch).states[State.SUCCEEDED]
    else:
        with Redis.from_url(ground.redis) as client:
            yield lambda: int(client.hlen(f"race:{batch}"))


def _checked(ground: Ground, jobs: int) -> dict[str, Any]:
    """Upstream's report. Raises RuntimeError where jobs did not do just what they should."""
    report = ground.report()
    if (report["voices"], report["songs"]) != (jobs, jobs):
        raise RuntimeError(f"{jobs} jobs ordered {report['voices']} voices and {report['songs']} songs")
    if report["doubles"] or report["unseen"] or report["strays"]:
        raise RuntimeError(f"{jobs} jobs: {_told(report)}")
    return report


def _told(report: dict[str, Any]) -> str:
    return ", ".join(f"{name} {report[name]}" for name in ("doubles", "unseen", "strays"))


def _calls(report: dict[str, Any]) -> float:
    return float(sum(report[name] for name in ("voices", "songs", "polls", "credits")))
