"""`watch`: a live view of batches until they have settled."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    Timeout,
    coloured,
    escape_untrusted,
    open_queue,
    option,
    out,
    print_json,
    style_of_state,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.states import INACTIVE, State
from voicequeue.domain.status import Batch
from voicequeue.domain.stop_loss import failures_text
from voicequeue.storage.connection.retry import retry_until
from voicequeue.texts import pluralize

if TYPE_CHECKING:
    from rich.console import RenderableType

#: The rate is the average over this many seconds.
WINDOW_S = 60.0

#: States that are shown even if no job is in them.
ALWAYS_SHOWN = (State.QUEUED, State.PENDING, State.UNSURE, State.SUCCEEDED, State.FAILED)


@dataclass(slots=True)
class SettleRate:
    """The rate at which jobs settle, over the last minute."""

    samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add_sample(self, now: float, settled: int) -> None:
        """Add a sample: the number of settled jobs."""
        self.samples.append((now, settled))
        while len(self.samples) > 2 and now - self.samples[0][0] > WINDOW_S:
            self.samples.popleft()

    @property
    def per_s(self) -> float:
        """Jobs settled per second; 0 until there are two samples."""
        (start, settled_at_start), (end, settled_at_end) = self.samples[0], self.samples[-1]
        return (settled_at_end - settled_at_start) / (end - start) if end > start else 0.0


#: The batches at some time, and the rate of each by its name.
Updates = Iterator[tuple[list[Batch], dict[str, SettleRate]]]


def watch(
    batch: BatchOption = None,
    interval: Annotated[float, option("SECONDS", min=0.05, help="Time between two updates.")] = 0.5,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Watch a batch, or all jobs, until they have settled.

    Exits with 0 if every job succeeded, with 4 after --timeout, else with 1. With --json, prints a line for every
    change.
    """
    with open_queue() as jobs:
        batches = follow(jobs, batch, interval_s=interval, timeout_s=timeout, as_json=as_json)
    if unsettled := sum(batch.total - _settled(batch) for batch in batches):
        raise TimeoutError(f"{pluralize(unsettled, 'job')} had not settled when --timeout was over")
    has_succeeded = all(batch.states[State.SUCCEEDED] == batch.total for batch in batches)
    raise typer.Exit(0 if has_succeeded else 1)


def follow(
    jobs: VoiceQueue, batch: str | None, *, interval_s: float, timeout_s: float | None = None, as_json: bool = False
) -> list[Batch]:
    """Show the batches until they have settled or the time is over, and return them as they are then."""
    live_view = out.is_terminal and not as_json
    updates = _updates(jobs, batch, interval_s, timeout_s, unchanged_too=live_view)
    batches: list[Batch] = []
    if not live_view:
        for batches, _ in updates:
            if as_json:
                print_json([batch.as_dict() for batch in batches])
            else:
                out.print("; ".join(map(_line, batches)))
        return batches
    return _show_live(updates)


def _show_live(updates: Updates) -> list[Batch]:
    """Redraw the batches in place at every update, and return the last ones."""
    from rich.console import Group  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    batches: list[Batch] = []
    with Live(console=out.console, auto_refresh=False) as live:
        for batches, paces in updates:
            live.update(Group(*(_view(batch, paces[batch.qualified_name]) for batch in batches)), refresh=True)
    return batches


def _updates(
    jobs: VoiceQueue, batch: str | None, interval_s: float, timeout_s: float | None, *, unchanged_too: bool
) -> Updates:
    """Yield the batches when they have changed (or every time), until they have settled or the time is over."""
    paces: dict[str, SettleRate] = {}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    previous: list[Batch] | None = None
    while True:
        with retry_until(deadline):
            batches = [jobs.batch(batch)] if batch is not None else _all(jobs)
        for current in batches:
            paces.setdefault(current.qualified_name, SettleRate()).add_sample(time.monotonic(), _settled(current))
        if batches != previous or unchanged_too:
            yield batches, paces
        previous = batches
        if all(current.is_settled for current in batches) or (deadline is not None and time.monotonic() > deadline):
            return
        time.sleep(interval_s)


def _all(jobs: VoiceQueue) -> list[Batch]:
    """Return every batch, and a pseudo-batch of the jobs that are in none."""
    batches, status = jobs.batches(), jobs.status()
    # The batches were read first: jobs that changed between the two reads must not make a count negative.
    counts = {
        state: max(0, count - sum(batch.states[state] for batch in batches)) for state, count in status.states.items()
    }
    credits = max(0, status.credits - sum(batch.credits for batch in batches))
    rest = Batch("(no batch)", counts, credits)
    return [*batches, rest] if rest.total else batches


def _settled(batch: Batch) -> int:
    return sum(batch.states[state] for state in INACTIVE)


def _line(batch: Batch) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in batch.states.items() if count)
    failed = f" ({failures_text(batch.failures)})" if batch.failures else ""
    stop = f"; {batch.stop.reason}" if batch.stop else ""
    return f"{escape_untrusted(batch.qualified_name)}: {counts}{failed}, {pluralize(batch.credits, 'credit')}{stop}"


def _view(batch: Batch, pace: SettleRate) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    settled, total = _settled(batch), batch.total
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(batch.qualified_name, style="bold"),
        ProgressBar(total=max(total, 1), completed=settled, width=40),
        f"{settled:,} of {total:,}",
        _pace_text(pace, total - settled),
        pluralize(batch.credits, "credit"),
    )
    table = Table.grid(padding=(0, 2))
    widest = max(1, *batch.states.values())
    for state, count in batch.states.items():
        if not count and state not in ALWAYS_SHOWN:
            continue
        bar = Text("█" * round(30 * count / widest) or ("▏" if count else ""), style=style_of_state(state))
        table.add_row(coloured(state), f"{count:>7,}" if count else f"{'·':>7}", bar)
    failed = [f"failed: {failures_text(batch.failures)}"] if batch.failures else []
    stop = [Text(batch.stop.reason, style="red")] if batch.stop else []
    return Group(head, table, *failed, *stop, "")


def _pace_text(pace: SettleRate, remaining: int) -> str:
    if not pace.per_s:
        return "…"
    minutes, seconds = divmod(round(remaining / pace.per_s), 60)
    return f"{pace.per_s * 60:,.0f} jobs/min, {minutes}:{seconds:02} left"
