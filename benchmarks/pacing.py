"""An upstream that allows so many tasks at once and tells nobody: the limit that finds itself, against fixed ones.

The same jobs, the settings taking turns, at a scale that makes a minute of upstream's take seconds. A minute below
is upstream's, and what is counted begins after the first. "Fixed" is where the search begins and what it may not
pass: a setting above what upstream allows is cut as ever.
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

#: Tasks that upstream allows at once, and what the setting says.
ALLOWED, CEILING = 12, 500
FIXED = (11, 12, 13)
JOBS = 120

#: Seconds here for a minute there: voices take a minute, songs two, polls are 5 s apart (webhooks would be quicker).
MINUTE_S = 2.0


@dataclass
class Run:
    """What one setting led to."""

    limits: list[int] = field(default_factory=list)
    seconds: float = 0.0
    posts: int = 0
    refused: int = 0
    refused_later: int = 0
    posts_later: int = 0


def env(most: int) -> dict[str, str]:
    """The settings of a run, at scale."""
    return {
        "VOICEQUEUE_MAX_IN_FLIGHT": str(most),
        "VOICEQUEUE_FIRST_IN_FLIGHT": "10" if most == CEILING else str(most),
        "VOICEQUEUE_POLL_MIN_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_POLL_MAX_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_COOLDOWN_S": f"{MINUTE_S / 12}",
        "VOICEQUEUE_PULSE_S": f"{MINUTE_S / 60}",
    }


def run(most: int, count: int = JOBS) -> Run:
    """So many jobs at this setting, alone on the machine."""
    dials = {"voice_s": MINUTE_S, "music_s": 2 * MINUTE_S, "jitter": 0.2, "credits": 10**9, "concurrency": ALLOWED}
    found = Run()
    with tempfile.TemporaryDirectory() as folder, Supervisor(say=print) as supervisor:
        stack = Stack(supervisor, Settings(_env_file=None), home=Path(folder), env=env(most))
        url = stack.start_valkey()
        _, control = stack.start_simulator(dials)
        stack.start_workers(2)
        with VoiceQueue(url) as queue:
            began = time.perf_counter()
            queue.enqueue_many(jobs(count, "pace"))
            after_a_minute = _watch(queue, control, count, found, began)
            found.seconds = time.perf_counter() - began
        end = _posts(control)
        found.posts, found.refused = end
        found.posts_later, found.refused_later = end[0] - after_a_minute[0], end[1] - after_a_minute[1]
    return found


def _watch(queue: VoiceQueue, control: str, count: int, found: Run, began: float) -> tuple[int, int]:
    first: tuple[int, int] | None = None
    while queue.batch("pace").states[State.SUCCEEDED] < count:
        if first is None and time.perf_counter() - began > MINUTE_S:
            first = _posts(control)
        status = queue.status()
        if first is not None and status.states[State.QUEUED]:
            found.limits.append(status.limit)
        if time.perf_counter() - began > 600:
            raise RuntimeError(f"not every job succeeded: {queue.batch('pace')}")
        time.sleep(0.05)
    return first or (0, 0)


def _posts(control: str) -> tuple[int, int]:
    """POSTs so far, and those that were answered with 429."""
    ledger: dict[str, Any] = requests.get(f"{control}/ledger?charges=0", timeout=5).json()
    return ledger["calls"]["create_voice"] + ledger["calls"]["create_music"], ledger["statuses"].get("429", 0)


def tables(count: int = JOBS) -> Iterator[Table]:
    """Each fixed setting, and the one that finds itself as often in between; and how that one behaves."""
    fixed: dict[int, float] = {}
    found: list[Run] = []
    for most in FIXED:
        fixed[most] = _pace(run(most, count), count)
        found.append(run(CEILING, count))
    best = max(fixed.values())
    yield _fixed_table(fixed, best)
    yield _found_table(found, best, count)


def _fixed_table(fixed: Mapping[int, float], best: float) -> Table:
    table = Table("fixed at", "jobs a minute", "of the best", title=f"upstream allows {ALLOWED} at once")
    for most, pace in fixed.items():
        table.add_row(str(most), f"{pace:.2f}", f"{100 * pace / best:.0f} %")
    return table


def _found_table(found: Sequence[Run], best: float, count: int) -> Table:
    columns = ("run", "jobs a minute", "of the best", "limit, median", "5th to 95th percentile", "429 after a minute")
    table = Table(*columns, title=f"it finds itself, at most {CEILING}")
    for number, made in enumerate(found, start=1):
        limits = f"{_percentile(made.limits, 5)} to {_percentile(made.limits, 95)}"
        slow = f"{made.refused_later} of {made.posts_later} ({100 * made.refused_later / made.posts_later:.2f} %)"
        pace = _pace(made, count)
        median = f"{statistics.median(made.limits):g}"
        table.add_row(str(number), f"{pace:.2f}", f"{100 * pace / best:.0f} %", median, limits, slow)
    return table


def _pace(made: Run, count: int) -> float:
    return count / made.seconds * MINUTE_S


def _percentile(values: Sequence[int], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]
