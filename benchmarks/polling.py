"""Planned polls against fixed intervals: polls per order, and lateness of detected results.

`replayed` simulates thousands of orders with `voicequeue.domain.poll_schedule`, in seconds. `measured` uses workers and
a simulator on a time scale at which a minute of upstream takes three seconds. Both run without webhooks, and count only
orders submitted after enough durations were known to plan polls.
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
from voicequeue.domain.poll_schedule import MAX_DURATIONS, DurationInterval, LogNormal, PollSchedulePolicy
from voicequeue.domain.stage import Stage
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: The median duration of each stage in seconds, and the spreads (sigma of the logarithm).
MEDIANS: Mapping[Stage, float] = {Stage.VOICE: 60.0, Stage.MUSIC: 120.0}
SIGMAS = (0.2, 0.3)

#: The polling methods by their minimum and maximum interval (seconds); equal values mean a fixed interval.
METHODS: Mapping[str, tuple[float, float]] = {
    "every 15 s": (15.0, 15.0),
    "every 20 s": (20.0, 20.0),
    "every 25 s": (25.0, 25.0),
    "planned": (15.0, 25.0),
}

#: Replayed orders per stage, orders between two schedules, and first orders that are not counted.
ORDERS, RELEARN, UNCOUNTED = 4000, 20, 120

#: The measured run: its time scale, jobs, and jobs in flight.
SCALE, JOBS, IN_FLIGHT = 20.0, 300, 40


@dataclass(frozen=True, slots=True)
class PolledOrder:
    """One order: its number of polls, and the delay until its result was detected (seconds)."""

    stage: Stage
    polls: int
    late: float


def tables() -> Iterator[Table]:
    """Yield the replayed results for each spread, then the measured ones for the first."""
    for sigma in SIGMAS:
        yield _table(f"replayed, sigma {sigma:g}", {method: replayed(method, sigma) for method in METHODS})
    title = f"workers and simulator, {SCALE:g} times as fast, sigma {SIGMAS[0]:g}"
    yield _table(title, {method: measured(method, SIGMAS[0]) for method in METHODS})


def _table(title: str, results: Mapping[str, Sequence[PolledOrder]]) -> Table:
    table = Table("polls", "voice", "music", "per order", "late p50", "p95", "max", title=title)
    for method, orders in results.items():
        by_stage = [_polls([order for order in orders if order.stage is stage]) for stage in Stage]
        late = sorted(order.late for order in orders)
        waits = [_percentile(late, percent) for percent in (50, 95, 100)]
        table.add_row(
            method, *(f"{value:.2f}" for value in (*by_stage, _polls(orders))), *(f"{s:.1f} s" for s in waits)
        )
    return table


def _polls(orders: Sequence[PolledOrder]) -> float:
    return fmean(order.polls for order in orders)


def _percentile(values: Sequence[float], percent: int) -> float:
    return values[min(len(values) - 1, len(values) * percent // 100)]


# ── replayed ───────────────────────────────────────────────────────────────────────────────────────


def replayed(method: str, sigma: float, count: int = ORDERS) -> list[PolledOrder]:
    """Poll orders of both stages as a worker would, and learn from their durations."""
    plan = PollSchedulePolicy(*METHODS[method], random.Random(7))
    return [order for stage in Stage for order in _stage(plan, stage, sigma, count)]


def _stage(plan: PollSchedulePolicy, stage: Stage, sigma: float, count: int) -> list[PolledOrder]:
    rng = random.Random(str(stage))  # the same durations for every method
    takes = LogNormal(math.log(MEDIANS[stage]), sigma)
    spans: list[DurationInterval] = []
    ages: list[float] = []
    orders = []
    for number in range(count):
        if number % RELEARN == 0:
            ages = plan.schedule(spans[-MAX_DURATIONS:])
        duration_s = takes.quantile(rng.random())
        polls, previous_age, age = 1, 0.0, plan.delay_from_schedule(0.0, ages, plan.jitter())
        while age < duration_s:
            polls, previous_age, age = polls + 1, age, age + plan.delay_from_schedule(age, ages, plan.jitter())
        spans.append(DurationInterval(previous_age, age))
        orders.append(PolledOrder(stage, polls, age - duration_s))
    return orders[UNCOUNTED:]


# ── measured ───────────────────────────────────────────────────────────────────────────────────────


def measured(method: str, sigma: float, count: int = JOBS) -> list[PolledOrder]:
    """Run the jobs through two workers; return their orders with times in seconds of upstream."""
    with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=_env(method))
        url = stack.start_valkey()
        _, control = stack.start_simulator(_dials(sigma))
        stack.start_workers(2)
        with VoiceQueue(url, namespace="*") as queue:
            queue.enqueue_many(jobs(count, "polls"))
            _finish(queue, count)
            seen_at = _result_times(queue)
        charges = requests.get(f"{control}/ledger", timeout=30).json()["charges"]
    late = {charge["task_id"]: seen_at[charge["task_id"]] - charge["ready_at"] for charge in charges}
    of_kind = [[charge for charge in charges if charge["kind"] == stage] for stage in Stage]
    counted = [
        charge for kind in of_kind for charge in sorted(kind, key=lambda charge: float(charge["at"]))[UNCOUNTED:]
    ]
    return [PolledOrder(Stage(charge["kind"]), charge["polls"], late[charge["task_id"]] * SCALE) for charge in counted]


def _env(method: str) -> dict[str, str]:
    minimum, maximum = METHODS[method]
    return {
        "VOICEQUEUE_MAX_IN_FLIGHT": str(IN_FLIGHT),
        "VOICEQUEUE_INITIAL_IN_FLIGHT": str(IN_FLIGHT),
        "VOICEQUEUE_POLL_MIN_INTERVAL_S": f"{minimum / SCALE}",
        "VOICEQUEUE_POLL_MAX_INTERVAL_S": f"{maximum / SCALE}",
        "VOICEQUEUE_DISPATCH_INTERVAL_S": f"{1 / SCALE}",
        "VOICEQUEUE_MAINTENANCE_INTERVAL_S": f"{5 / SCALE}",
    }


def _dials(sigma: float) -> dict[str, object]:
    medians = {f"{stage}_s": median / SCALE for stage, median in MEDIANS.items()}
    return {**medians, "jitter": sigma, "seed": 7, "credits": 10**9}


def _finish(queue: VoiceQueue, count: int) -> None:
    deadline = time.monotonic() + 600
    while queue.batch("polls").states[State.SUCCEEDED] < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not every job succeeded: {queue.batch('polls')}")
        time.sleep(0.2)


def _result_times(queue: VoiceQueue) -> dict[str, float]:
    """Return the times at which results were detected, by task id."""
    return {task: at for job in queue.jobs(batch="polls") for task, at in _result_times_of(queue, job)}


def _result_times_of(queue: VoiceQueue, job: Job) -> Iterator[tuple[str, float]]:
    steps = queue.timeline(job.id)
    for ordered, after in pairwise(steps):
        if ordered.state is State.PENDING and ordered.task_id:
            yield ordered.task_id, after.at
