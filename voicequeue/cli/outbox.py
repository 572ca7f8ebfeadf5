"""Listings that `archive` and `callbacks` share: entries of an outbox, and the workers that process them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from voicequeue.cli.listing import Listing
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import format_time, out, print_json
from voicequeue.domain.status import ArchiveCounts, CallbackCounts
from voicequeue.storage.archive import ArchiveEntry
from voicequeue.storage.callbacks import Callback

Entry = TypeVar("Entry", Callback, ArchiveEntry)

#: The columns of `attempt_cells`.
ATTEMPT_COLUMNS = (
    Column("attempts", rank=4, is_number=True),
    Column("next attempt", rank=2),
    Column("last error", rank=1, min_width=16),
)


def print_outbox_json(counts: ArchiveCounts | CallbackCounts, **entries: Listing[Entry]) -> None:
    """Print the counts, and the entries by their kind, as one JSON document."""
    listed = {kind: [entry.as_dict() for entry in group] for kind, group in entries.items()}
    print_json({"counts": {name: getattr(counts, name) for name in counts.__slots__}, **listed})


def print_entries(
    title: str, columns: Sequence[Column], entries: Listing[Entry], row: Callable[[Entry], Sequence[str]]
) -> None:
    """Print a table of entries; nothing if there are none. The last columns are those of `attempt_cells`."""
    rows = [row(entry) for entry in entries]
    if rows:
        out.print(f"[bold]{title}[/]")
        print_table((*columns, *ATTEMPT_COLUMNS), rows)
        out.print()


def attempt_cells(entry: Callback | ArchiveEntry, *, not_due: str = "-") -> tuple[str, str, str]:
    """Return the number of failed attempts, the time of the next one (or `not_due`), and the last error."""
    next_attempt = format_time(entry.due_at) if entry.due_at else not_due
    return (str(entry.attempts), next_attempt, entry.last_error or "")


def print_workers(count: int, process: str) -> None:
    """Print the number of workers, or that `process` must be started."""
    workers = f"{count:,} alive" if count else f"[red]none alive[/]; start the process `{process}`"
    out.print(f"workers    {workers}")
