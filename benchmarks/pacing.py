"""The adaptive in-flight limit against fixed ones, on an upstream with an undocumented limit of concurrent tasks.

The same jobs run with alternating settings, on a time scale at which a minute of upstream takes seconds. A minute below
is a minute of upstream, and counting starts after the first. A fixed setting is the initial and the maximum limit; one
above upstream's limit is still reduced.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from rich.table import Table

from benchmarks.load import jobs
from config.settings import Settings
from voicequeue import State, VoiceQueue
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: The number of concurrent tasks that upstream allows, and the configured maximum.
ALLOWED, CEILING = 12, 500
FIXED = (11, 12, 13)
JOBS = 120

#: Real seconds per minute of upstream: voices take a minute, songs two, polls are 5 s apart (without webhooks).
MINUTE_S = 2.0


@dataclass
class Run:
    """The result of one run."""

    limits: list[int] = field(default_factory=list)
    seconds: float = 0.0
    posts: int = 0
    refused: int = 0
    refused_later: int = 0
    posts_later: int = 0


def env(limit: int) -> dict[str, str]:
    """Return the scaled settings of a run."""
    return {
        "VOICEQUEUE_MAX_IN_FLIGHT": str(limit),
        "VOICEQUEUE_INITIAL_IN_FLIGHT": "10" if limit == CEILING else str(limit),
        "VOICEQUEUE_POLL_MIN_INTERVAL_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_POLL_MAX_INTERVAL_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_COOLDOWN_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_DISPATCH_INTERVAL_S": f"{MINUTE_S / 60}",
    }


def run(limit: int, count: int = JOBS) -> Run:
    """Run the jobs with this maximum."""
    dials = {"voice_s": MINUTE_S, "music_s": 2 * MINUTE_S, "jitter": 0.2, "credits": 10**9, "concurrency": ALLOWED}
    result = Run()
    with tempfile.TemporaryDirectory() as folder, Supervisor(print_line=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=env(limit))
        url = stack.start_valkey()
        _, control = stack.start_simulator(dials)
        stack.start_workers(2)
        with VoiceQueue(url, namespace="*") as queue:
            started = time.perf_counter()
            queue.enqueue_many(jobs(count, "pace"))
            after_a_minute = _watch(queue, control, count, result, started)
            result.seconds = time.perf_counter() - started
        end = _posts(control)
        result.posts, result.refused = end
        result.posts_later, result.refused_later = end[0] - after_a_minute[0], end[1] - after_a_minute[1]
    return result


def _watch(queue: VoiceQueue, control: str, count: int, result: Run, started: float) -> tuple[int, int]:
    after_a_minute: tuple[int, int] | None = None
    while queue.batch("pace").states[State.SUCCEEDED] < count:
        if after_a_minute is None and time.perf_counter() - started > MINUTE_S:
            after_a_minute = _posts(control)
        status = queue.status()
        if after_a_minute is not None and status.states[State.QUEUED]:
            result.limits.append(status.in_flight_limit)
        if time.perf_counter() - started > 600:
            raise RuntimeError(f"not every job succeeded: {queue.batch('pace')}")
        time.sleep(0.05)
    return after_a_minute or (0, 0)


def _posts(control: str) -> tuple[int, int]:
    """Return the number of POSTs so far, and of those answered with 429."""
    ledger: dict[str, Any] = requests.get(f"{control}/ledger?charges=0", timeout=5).json()
    return ledger["calls"]["create_voice"] + ledger["calls"]["create_music"], ledger["statuses"].get("429", 0)


def tables(count: int = JOBS) -> Iterator[Table]:
    """Yield the table of the fixed settings, and that of the adaptive runs in between."""
    fixed: dict[int, float] = {}
    adaptive: list[Run] = []
    for limit in FIXED:
        fixed[limit] = _pace(run(limit, count), count)
        adaptive.append(run(CEILING, count))
    best = max(fixed.values())
    yield _fixed_table(fixed, best)
    yield _adaptive_table(adaptive, best, count)


def _fixed_table(fixed: Mapping[int, float], best: float) -> Table:
    table = Table("fixed at", "jobs per minute", "of the best", title=f"upstream allows {ALLOWED} at once")
    for limit, pace in fixed.items():
        table.add_row(str(limit), f"{pace:.2f}", f"{100 * pace / best:.0f} %")
    return table


def _adaptive_table(runs: Sequence[Run], best: float, count: int) -> Table:
    columns = ("run", "jobs per minute", "of the best", "limit, median", "5th to 95th percentile", "429 after a minute")
    table = Table(*columns, title=f"adaptive, at most {CEILING}")
    for number, result in enumerate(runs, start=1):
        limits = f"{_percentile(result.limits, 5)} to {_percentile(result.limits, 95)}"
        slow = (
            f"{result.refused_later} of {result.posts_later} ({100 * result.refused_later / result.posts_later:.2f} %)"
        )
        pace = _pace(result, count)
        median = f"{statistics.median(result.limits):g}"
        table.add_row(str(number), f"{pace:.2f}", f"{100 * pace / best:.0f} %", median, limits, slow)
    return table


def _pace(result: Run, count: int) -> float:
    return count / result.seconds * MINUTE_S


def _percentile(values: Sequence[int], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]
