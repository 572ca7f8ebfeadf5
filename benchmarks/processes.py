"""How much more a worker does with more processes: jobs with songs, against an upstream that is ready at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping

from rich.table import Table

from benchmarks.load import jobs
from benchmarks.standing import Standing, standing
from voicequeue import State, VoiceQueue

#: Children of one worker, which do what messages say; its main process takes them and has the pulse.
CHILDREN = (1, 2, 4)

#: As many as one beat of the pulse admits, and how often; warmed up by fewer.
JOBS, ROUNDS, WARM = 1_000, 5, 200

#: There is no "at once": polls are this far apart (seconds).
_ENV = {"VOICEQUEUE_POLL_MIN_S": "0.01", "VOICEQUEUE_POLL_MAX_S": "0.01"}

Figures = Mapping[str, float]


def tables() -> Iterator[Table]:
    """Medians of rounds, by the number of children."""
    found = {count: measured(count) for count in CHILDREN}
    table = Table("children", *(str(count) for count in CHILDREN))
    for what in found[CHILDREN[0]]:
        table.add_row(what, *(f"{found[count][what]:,.2f}" for count in CHILDREN))
    yield table


def measured(children: int) -> Figures:
    """Jobs a second, and the CPU of each part (ms) for each job."""
    with standing((0.0, 0.0), children=children, env=_ENV) as stack, VoiceQueue(stack.redis) as queue:
        _round(stack, queue, "warm", WARM)
        rounds = [_round(stack, queue, f"round-{number}", JOBS) for number in range(ROUNDS)]
        report = stack.report()
    orders = WARM + ROUNDS * JOBS
    if (report["voices"], report["songs"]) != (orders, orders) or report["doubles"] or report["unseen"]:
        raise RuntimeError(f"{orders} jobs did not do just what they should: {report | {'lateness': '…'}}")
    return {what: statistics.median(each[what] for each in rounds) for what in rounds[0]}


def _round(stack: Standing, queue: VoiceQueue, batch: str, count: int) -> Figures:
    queue.pause()
    queue.enqueue_many(jobs(count, batch))
    cpu = stack.cpu()
    queue.resume()
    _wait_for(queue, batch, State.QUEUED, at_most=count - 1)
    began = time.perf_counter()
    _wait_for(queue, batch, State.SUCCEEDED, at_least=count)
    seconds = time.perf_counter() - began
    taken = {f"CPU of {what}, ms a job": (after - cpu[what]) * 1000 / count for what, after in stack.cpu().items()}
    return {"jobs finished a second": count / seconds, **taken}


def _wait_for(queue: VoiceQueue, batch: str, state: State, *, at_least: int = 0, at_most: int | None = None) -> None:
    give_up = time.monotonic() + 120
    while not at_least <= (count := queue.batch(batch).states[state]) <= (count if at_most is None else at_most):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{count} jobs are {state}")
        time.sleep(0.01)
