"""Listings that `archive` and `callbacks` share: entries of an outbox, and the workers that process them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from voicequeue.cli.terminal import escape_untrusted, format_time, out, plain_table, print_json
from voicequeue.domain.status import ArchiveCounts, CallbackCounts
from voicequeue.storage.archive import ArchiveEntry
from voicequeue.storage.callbacks import Callback

#: Entries of each kind that a terminal shows; `--json` lists all.
SHOWN = 50

Entries = Iterable[Callback] | Iterable[ArchiveEntry]


def print_outbox_json(counts: ArchiveCounts | CallbackCounts, **entries: Entries) -> None:
    """Print the counts, and every entry by its kind, as one JSON document."""
    listed = {kind: [entry.as_dict() for entry in group] for kind, group in entries.items()}
    print_json({"counts": {name: getattr(counts, name) for name in counts.__slots__}, **listed})


def print_entries(title: str, columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table of the first rows; nothing if there are none. The last columns are those of `attempt_cells`."""
    first = list(islice(rows, SHOWN + 1))
    if not first:
        return
    table = plain_table(*columns, "attempts", "next attempt", "last error")
    for row in first[:SHOWN]:
        table.add_row(*row)
    out.print(f"[bold]{title}[/]")
    out.print(table)
    if len(first) > SHOWN:
        out.print("… and more; list all with --json")
    out.print("")


def attempt_cells(entry: Callback | ArchiveEntry, *, not_due: str = "-") -> tuple[str, str, str]:
    """Return the number of failed attempts, the time of the next one (or `not_due`), and the last error."""
    return (
        str(entry.attempts),
        format_time(entry.due_at) if entry.due_at else not_due,
        escape_untrusted(entry.last_error),
    )


def print_workers(count: int, process: str) -> None:
    """Print the number of workers, or that `process` must be started."""
    workers = f"{count} alive" if count else f"[red]none alive[/]; start the process `{process}`"
    out.print(f"workers    {workers}")
