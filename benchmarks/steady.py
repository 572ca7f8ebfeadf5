"""Jobs that come one by one, day in, day out: what a job costs then, and how late its results are seen.

Real workers, and an upstream whose orders take about as long as in production; polls are as the settings have them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.load import jobs
from benchmarks.standing import standing
from voicequeue import VoiceQueue

#: Jobs a second, and for how long they come (seconds); so many come before, which warm the workers up.
RATES, LASTING_S, WARM = (1, 5, 25), 60.0, 20

#: An order takes so long (seconds).
READY_S = (20.0, 40.0)

#: A run that is not over so long after the last job came has failed (seconds).
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """So many jobs a second: CPU of each crew in milliseconds a job, upstream calls a job, lateness in seconds."""

    rate: int
    cpu_ms: dict[str, float]
    calls: float
    late: Sequence[float]


def tables() -> Iterator[Table]:
    """What was measured."""
    found = [measured(rate) for rate in RATES]
    told = Table("jobs a second", *(str(each.rate) for each in found))
    for of in found[0].cpu_ms:
        told.add_row(f"CPU of {of}, ms a job", *(f"{each.cpu_ms[of]:.1f}" for each in found))
    told.add_row("calls a job", *(f"{each.calls:.1f}" for each in found))
    for name, percent in (("p50", 50), ("p95", 95)):
        told.add_row(
            f"late {name}, s", *(f"{sorted(each.late)[len(each.late) * percent // 100]:.1f}" for each in found)
        )
    yield told


def measured(rate: int) -> Measured:
    """Have jobs come at that rate, and wait for the last one's song."""
    count = int(rate * LASTING_S)
    with standing(READY_S) as stack, VoiceQueue(stack.redis) as queue:
        queue.enqueue_many(jobs(WARM, "warm"))
        _wait_for(queue, "warm")
        cpu, before = stack.cpu(), stack.report()
        began = time.monotonic()
        for number, job in enumerate(jobs(count, "steady")):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            queue.enqueue(job)
        _wait_for(queue, "steady")
        after = stack.report()
        return Measured(
            rate,
            cpu_ms={of: (spent - cpu[of]) * 1000 / count for of, spent in stack.cpu().items()},
            calls=2 + (after["polls"] - before["polls"]) / count,
            late=after["lateness"][len(before["lateness"]) :],
        )


def _wait_for(queue: VoiceQueue, batch: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not (found := queue.batch(batch)).is_settled:
        if time.monotonic() > give_up:
            raise RuntimeError(f"not every job is over: {found}")
        time.sleep(0.5)
