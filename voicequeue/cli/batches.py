"""`batches`: the batches, with their progress and limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import AsJson, format_time, open_queue, option, out, print_json_list
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.states import State
from voicequeue.domain.status import Batch
from voicequeue.domain.stop_loss import percent
from voicequeue.texts import pluralize

_STYLES = {"stopped": "red", "paused": "yellow", "running": "blue", "settled": "green"}

_COLUMNS = (
    Column("batch"),
    Column("state", rank=1, style=lambda text: _STYLES.get(text, "")),
    Column("jobs", rank=1, is_number=True),
    Column("done", rank=2, is_number=True),
    Column("failed", rank=2, is_number=True, style=lambda text: "" if text == "0" else "red"),
    Column("unsure", rank=4, is_number=True, style=lambda text: "" if text == "0" else "bold magenta"),
    Column("credits", rank=3, is_number=True),
    Column("created", rank=5),
    Column("limits", rank=6, min_width=12),
)

#: Batches that are read at once.
_CHUNK = 500


def batches(
    search: Annotated[str | None, option("TEXT", help="Only batches whose names contain this text.")] = None,
    limit: Limit = None,
    all: All = False,
    as_json: AsJson = False,
) -> None:
    """List batches with their states, credits and limits, the newest first."""
    count = limit_of(limit, is_all=all)
    with open_queue() as queue:
        listing = Listing(_matching(queue, search, min(_CHUNK, (count or _CHUNK) + 1)), count)
        if as_json:
            print_json_list(batch.full_dict() for batch in listing)
        else:
            print_table(_COLUMNS, map(_row, listing))
            if not listing.count:
                out.print("no batches" if search is None else "no batch has this text in its name")
        listing.note_rest("batch", lambda: queue.count_batches(search=search), plural="batches")


def _matching(queue: VoiceQueue, search: str | None, page_size: int) -> Iterator[Batch]:
    cursor: str | None = None
    while True:
        page = queue.list_batches(search=search, limit=page_size, cursor=cursor)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _row(batch: Batch) -> tuple[str, ...]:
    done, failed, unsure = (batch.states[state] for state in (State.SUCCEEDED, State.FAILED, State.UNSURE))
    numbers = (f"{number:,}" for number in (batch.total, done, failed, unsure, batch.credits))
    return (batch.qualified_name, _state(batch), *numbers, format_time(batch.created_at), _limits(batch))


def _state(batch: Batch) -> str:
    """Return the progress of a batch in one word."""
    if batch.is_settled:
        return "settled"
    if batch.stop is not None:
        return "stopped"
    return "paused" if batch.is_paused else "running"


def _limits(batch: Batch) -> str:
    limits = {
        f"{pluralize(batch.max_credits or 0, 'credit')}": batch.max_credits is not None,
        f"{batch.max_in_flight or 0:,} in flight": batch.max_in_flight is not None,
        f"stops at {percent(batch.stop_after or 0)}": batch.stop_after is not None,
    }
    return ", ".join(text for text, applies in limits.items() if applies)
