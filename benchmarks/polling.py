"""How often upstream is asked about an order, and how late its result is seen: planned polls against fixed ones.

`replayed` plays thousands of orders through `voicequeue.domain.poll_schedule`, in seconds. `measured` is the real
thing: workers, and a simulator at a scale at which upstream's minute takes three seconds. Both without webhooks,
and both count orders that came when enough was known to plan.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import requests
from rich.table import Table

from benchmarks.load import jobs
from config.settings import Settings
from voicequeue import Job, State, VoiceQueue
from voicequeue.domain.poll_schedule import REMEMBERED, LogNormal, PollPlan, Span
from voicequeue.domain.stage import Stage
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: How long upstream takes, in seconds: the middle of each stage; and how far it spreads (sigma).
MEDIANS: Mapping[Stage, float] = {Stage.VOICE: 60.0, Stage.MUSIC: 120.0}
SIGMAS = (0.2, 0.3)

#: The ways to ask, by their settings (seconds): where both are the same, nothing is planned.
WAYS: Mapping[str, tuple[float, float]] = {
    "every 15 s": (15.0, 15.0),
    "every 20 s": (20.0, 20.0),
    "every 25 s": (25.0, 25.0),
    "planned": (15.0, 25.0),
}

#: Orders of each stage that are replayed; a new schedule is made after so many; and so many do not count.
ORDERS, RELEARN, UNCOUNTED = 4000, 20, 120

#: The real thing: so many times as fast, with so many jobs, of which so many are in flight.
SCALE, JOBS, IN_FLIGHT = 20.0, 300, 40


@dataclass(frozen=True, slots=True)
class Seen:
    """One order: how many polls it took, and how long its result had waited (seconds)."""

    stage: Stage
    polls: int
    late: float


def tables() -> Iterator[Table]:
    """What was replayed, for each spread; then what was measured, for the first."""
    for sigma in SIGMAS:
        yield _table(f"replayed, sigma {sigma:g}", {way: replayed(way, sigma) for way in WAYS})
    title = f"workers and simulator, {SCALE:g} times as fast, sigma {SIGMAS[0]:g}"
    yield _table(title, {way: measured(way, SIGMAS[0]) for way in WAYS})


def _table(title: str, found: Mapping[str, Sequence[Seen]]) -> Table:
    table = Table("polls", "voice", "music", "an order", "late p50", "p95", "max", title=title)
    for way, seen in found.items():
        by_stage = [_polls([each for each in seen if each.stage is stage]) for stage in Stage]
        late = sorted(each.late for each in seen)
        waits = [_percentile(late, percent) for percent in (50, 95, 100)]
        table.add_row(way, *(f"{value:.2f}" for value in (*by_stage, _polls(seen))), *(f"{s:.1f} s" for s in waits))
    return table


def _polls(seen: Sequence[Seen]) -> float:
    return fmean(each.polls for each in seen)


def _percentile(values: Sequence[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


# ── replayed ───────────────────────────────────────────────────────────────────────────────────────


def replayed(way: str, sigma: float, count: int = ORDERS) -> list[Seen]:
    """Ask about orders of both stages as a worker would, and learn from them as it goes."""
    plan = PollPlan(*WAYS[way], random.Random(7))
    return [seen for stage in Stage for seen in _stage(plan, stage, sigma, count)]


def _stage(plan: PollPlan, stage: Stage, sigma: float, count: int) -> list[Seen]:
    chance = random.Random(str(stage))  # the same durations for every way to ask
    takes = LogNormal(math.log(MEDIANS[stage]), sigma)
    spans: list[Span] = []
    ages: list[float] = []
    seen = []
    for number in range(count):
        if number % RELEARN == 0:
            ages = plan.schedule(spans[-REMEMBERED:])
        took = takes.quantile(chance.random())
        polls, over, age = 1, 0.0, plan.after(0.0, ages, plan.luck())
        while age < took:
            polls, over, age = polls + 1, age, age + plan.after(age, ages, plan.luck())
        spans.append(Span(over, age))
        seen.append(Seen(stage, polls, age - took))
    return seen[UNCOUNTED:]


# ── measured ───────────────────────────────────────────────────────────────────────────────────────


def measured(way: str, sigma: float, count: int = JOBS) -> list[Seen]:
    """So many jobs through two workers; times as they were, in upstream's seconds."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(say=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=_env(way))
        url = stack.start_valkey()
        _, control = stack.start_simulator(_dials(sigma))
        stack.start_workers(2)
        with VoiceQueue(url) as queue:
            queue.enqueue_many(jobs(count, "polls"))
            _finish(queue, count)
            found = _found(queue)
        charges = requests.get(f"{control}/ledger", timeout=30).json()["charges"]
    late = {charge["task_id"]: found[charge["task_id"]] - charge["ready_at"] for charge in charges}
    of_kind = [[charge for charge in charges if charge["kind"] == stage] for stage in Stage]
    counted = [charge for kind in of_kind for charge in sorted(kind, key=lambda each: float(each["at"]))[UNCOUNTED:]]
    return [Seen(Stage(each["kind"]), each["polls"], late[each["task_id"]] * SCALE) for each in counted]


def _env(way: str) -> dict[str, str]:
    least, most = WAYS[way]
    return {
        "VOICEQUEUE_MAX_IN_FLIGHT": str(IN_FLIGHT),
        "VOICEQUEUE_FIRST_IN_FLIGHT": str(IN_FLIGHT),
        "VOICEQUEUE_POLL_MIN_S": f"{least / SCALE}",
        "VOICEQUEUE_POLL_MAX_S": f"{most / SCALE}",
        "VOICEQUEUE_PULSE_S": f"{1 / SCALE}",
        "VOICEQUEUE_RECONCILE_S": f"{5 / SCALE}",
    }


def _dials(sigma: float) -> dict[str, object]:
    medians = {f"{stage}_s": median / SCALE for stage, median in MEDIANS.items()}
    return {**medians, "jitter": sigma, "seed": 7, "credits": 10**9}


def _finish(queue: VoiceQueue, count: int) -> None:
    give_up = time.monotonic() + 600
    while queue.batch("polls").states[State.SUCCEEDED] < count:
        if time.monotonic() > give_up:
            raise RuntimeError(f"not every job succeeded: {queue.batch('polls')}")
        time.sleep(0.2)


def _found(queue: VoiceQueue) -> dict[str, float]:
    """When the result of each order was seen, by its task id."""
    return {task: at for job in queue.jobs(batch="polls") for task, at in _found_of(queue, job)}


def _found_of(queue: VoiceQueue, job: Job) -> Iterator[tuple[str, float]]:
    steps = queue.timeline(job.id)
    for ordered, after in pairwise(steps):
        if ordered.state is State.PENDING and ordered.task_id:
            yield ordered.task_id, after.at
