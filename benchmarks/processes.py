"""Throughput by the number of worker processes: jobs with songs, on an upstream that is ready at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping

from rich.table import Table

from benchmarks.load import jobs
from benchmarks.running_stack import RunningStack, running_stack
from voicequeue import State, VoiceQueue

#: Children of one worker, which run tasks; its main process receives messages and dispatches jobs.
CHILDREN = (1, 2, 4)

#: Jobs per round (as many as the dispatcher admits at once), rounds, and warm-up jobs.
JOBS, ROUNDS, WARM = 1_000, 5, 200

#: The shortest interval of polls, in seconds.
_ENV = {"VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.01", "VOICEQUEUE_POLL_MAX_INTERVAL_S": "0.01"}

Figures = Mapping[str, float]


def tables() -> Iterator[Table]:
    """Yield the medians over rounds, by the number of children."""
    results = {count: measured(count) for count in CHILDREN}
    table = Table("children", *(str(count) for count in CHILDREN))
    for label in results[CHILDREN[0]]:
        table.add_row(label, *(f"{results[count][label]:,.2f}" for count in CHILDREN))
    yield table


def measured(children: int) -> Figures:
    """Return jobs per second, and the CPU of each part per job (ms)."""
    with (
        running_stack((0.0, 0.0), children=children, env=_ENV) as stack,
        VoiceQueue(stack.redis, namespace="*") as queue,
    ):
        _round(stack, queue, "warm", WARM)
        rounds = [_round(stack, queue, f"round-{number}", JOBS) for number in range(ROUNDS)]
        report = stack.report()
    orders = WARM + ROUNDS * JOBS
    if (report["voices"], report["songs"]) != (orders, orders) or report["doubles"] or report["unseen"]:
        raise RuntimeError(f"{orders} jobs did not make exactly the expected requests: {report | {'lateness': '…'}}")
    return {label: statistics.median(figures[label] for figures in rounds) for label in rounds[0]}


def _round(stack: RunningStack, queue: VoiceQueue, batch: str, count: int) -> Figures:
    queue.pause()
    queue.enqueue_many(jobs(count, batch))
    cpu = stack.cpu()
    queue.resume()
    _wait_for(queue, batch, State.QUEUED, at_most=count - 1)
    started = time.perf_counter()
    _wait_for(queue, batch, State.SUCCEEDED, at_least=count)
    seconds = time.perf_counter() - started
    cpu_figures = {
        f"CPU of {label}, ms per job": (after - cpu[label]) * 1000 / count for label, after in stack.cpu().items()
    }
    return {"jobs finished per second": count / seconds, **cpu_figures}


def _wait_for(queue: VoiceQueue, batch: str, state: State, *, at_least: int = 0, at_most: int | None = None) -> None:
    deadline = time.monotonic() + 120
    while not at_least <= (count := queue.batch(batch).states[state]) <= (count if at_most is None else at_most):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} jobs are {state}")
        time.sleep(0.01)
