"""`watch`: a live view that ends when everything has settled."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from voicequeue.cli.terminal import (
    COLOURS,
    AsJson,
    BatchArgument,
    BatchToo,
    coloured,
    one_batch,
    out,
    plain_table,
    print_json,
    queue,
    safe,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.job import INACTIVE, State
from voicequeue.domain.status import Batch
from voicequeue.storage.connection.retry import no_later_than

#: Throughput is told over this many seconds.
WINDOW_S = 60.0

#: Shown although no job stands there.
ALWAYS_SHOWN = (State.QUEUED, State.PENDING, State.UNSURE, State.SUCCEEDED, State.FAILED)


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(watch)


@dataclass(slots=True)
class Pace:
    """How fast jobs settle, over the last minute."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, now: float, settled: int) -> None:
        """Take down how many have settled by now."""
        self.seen.append((now, settled))
        while len(self.seen) > 2 and now - self.seen[0][0] > WINDOW_S:
            self.seen.popleft()

    @property
    def per_s(self) -> float:
        """Jobs settled a second; 0 before there is anything to tell."""
        (start, before), (end, after) = self.seen[0], self.seen[-1]
        return (after - before) / (end - start) if end > start else 0.0


def watch(
    batch: BatchArgument = None,
    of: BatchToo = None,
    every: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 0.5,
    timeout: Annotated[float | None, typer.Option(help="Give up after this many seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Watch a batch (or all jobs) until it has settled.

    Ends with 0 if every job succeeded, else with 1. With --json: a line for every change.
    """
    with queue() as jobs:
        last = follow(jobs, one_batch(batch, of), every=every, timeout=timeout, as_json=as_json)
    succeeded = all(found.states[State.SUCCEEDED] == found.total for found in last)
    raise typer.Exit(0 if succeeded else 1)


def follow(
    jobs: VoiceQueue, batch: str | None, *, every: float, timeout: float | None = None, as_json: bool = False
) -> list[Batch]:
    """Show the batches live until they have settled; gives them as they stood at the end."""
    live_view = out.is_terminal and not as_json
    views = _looks(jobs, batch, every, timeout, each_time=live_view)
    found: list[Batch] = []
    if not live_view:
        for found, _ in views:
            if as_json:
                print_json([each.as_dict() for each in found])
            else:
                out.print("; ".join(_line(each) for each in found), soft_wrap=True)
        return found
    with Live(console=out, auto_refresh=False) as live:
        for found, paces in views:
            live.update(Group(*(_view(each, paces[each.name]) for each in found)), refresh=True)
    return found


def _looks(
    jobs: VoiceQueue, batch: str | None, every: float, timeout: float | None, *, each_time: bool
) -> Iterator[tuple[list[Batch], dict[str, Pace]]]:
    """The batches when they have changed (or `each_time`), up to when they have settled."""
    paces: dict[str, Pace] = {}
    end = None if timeout is None else time.monotonic() + timeout
    before: list[Batch] | None = None
    while True:
        with no_later_than(end):
            found = [jobs.batch(batch)] if batch is not None else _all(jobs)
        for each in found:
            paces.setdefault(each.name, Pace()).note(time.monotonic(), _settled(each))
        if found != before or each_time:
            yield found, paces
        before = found
        if all(each.is_settled for each in found) or (end is not None and time.monotonic() > end):
            return
        time.sleep(every)


def _all(jobs: VoiceQueue) -> list[Batch]:
    """Every batch, and the jobs that are in none as if they were one."""
    batches, whole = jobs.batches(), jobs.status()
    # The batches were read a moment before: what moved meanwhile must not count below nothing.
    alone = {
        state: max(0, count - sum(batch.states[state] for batch in batches)) for state, count in whole.states.items()
    }
    spent = max(0, whole.credits - sum(batch.credits for batch in batches))
    rest = Batch("(no batch)", alone, spent)
    return [*batches, rest] if rest.total else batches


def _settled(batch: Batch) -> int:
    return sum(batch.states[state] for state in INACTIVE)


def _line(batch: Batch) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in batch.states.items() if count)
    return f"{safe(batch.name)}: {counts}, {batch.credits:,} credits"


def _view(batch: Batch, pace: Pace) -> RenderableType:
    settled, total = _settled(batch), batch.total
    head = Table.grid(padding=(0, 2))
    head.add_row(
        Text(batch.name, style="bold"),
        ProgressBar(total=max(total, 1), completed=settled, width=40),
        f"{settled:,} of {total:,}",
        _pace_text(pace, total - settled),
        f"{batch.credits:,} credits",
    )
    table = plain_table("", "", "")
    table.show_header = False
    widest = max(1, *batch.states.values())
    for state, count in batch.states.items():
        if not count and state not in ALWAYS_SHOWN:
            continue
        bar = Text("█" * round(30 * count / widest) or ("▏" if count else ""), style=COLOURS[state])
        table.add_row(coloured(state), f"{count:>7,}" if count else f"{'·':>7}", bar)
    return Group(head, table, "")


def _pace_text(pace: Pace, left: int) -> str:
    if not pace.per_s:
        return "…"
    minutes, seconds = divmod(round(left / pace.per_s), 60)
    return f"{pace.per_s * 60:,.0f} a minute, {minutes}:{seconds:02} left"
