"""Jobs that arrive one by one at a steady rate: CPU per job, and lateness of detected results.

Real workers, the default polling, and an upstream with durations as in production.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.load import jobs
from benchmarks.running_stack import running_stack
from voicequeue import VoiceQueue

#: Jobs per second, the duration of each run in seconds, and warm-up jobs.
RATES, LASTING_S, WARM = (1, 5, 25), 60.0, 20

#: The shortest and the longest duration of an order, in seconds.
READY_S = (20.0, 40.0)

#: A run fails if jobs are unfinished this long after the last one was enqueued (seconds).
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The result for a rate: CPU of each role in ms per job, upstream requests per job, lateness in seconds."""

    rate: int
    cpu_ms: dict[str, float]
    calls: float
    late: Sequence[float]


def tables() -> Iterator[Table]:
    """Yield the table of results."""
    runs = [measured(rate) for rate in RATES]
    result_table = Table("jobs per second", *(str(run.rate) for run in runs))
    for part in runs[0].cpu_ms:
        result_table.add_row(f"CPU of {part}, ms per job", *(f"{run.cpu_ms[part]:.1f}" for run in runs))
    result_table.add_row("requests per job", *(f"{run.calls:.1f}" for run in runs))
    for name, percent in (("p50", 50), ("p95", 95)):
        result_table.add_row(
            f"late {name}, s", *(f"{sorted(run.late)[len(run.late) * percent // 100]:.1f}" for run in runs)
        )
    yield result_table


def measured(rate: int) -> Measured:
    """Enqueue jobs at this rate, and wait until the last one has settled."""
    count = int(rate * LASTING_S)
    with running_stack(READY_S) as stack, VoiceQueue(stack.redis, namespace="*") as queue:
        queue.enqueue_many(jobs(WARM, "warm"))
        _wait_for(queue, "warm")
        cpu, before = stack.cpu(), stack.report()
        started = time.monotonic()
        for number, job in enumerate(jobs(count, "steady")):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            queue.enqueue(job)
        _wait_for(queue, "steady")
        after = stack.report()
        return Measured(
            rate,
            cpu_ms={part: (spent - cpu[part]) * 1000 / count for part, spent in stack.cpu().items()},
            calls=2 + (after["polls"] - before["polls"]) / count,
            late=after["lateness"][len(before["lateness"]) :],
        )


def _wait_for(queue: VoiceQueue, batch: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not (batch_counts := queue.batch(batch)).is_settled:
        if time.monotonic() > deadline:
            raise RuntimeError(f"not every job has settled: {batch_counts}")
        time.sleep(0.5)
