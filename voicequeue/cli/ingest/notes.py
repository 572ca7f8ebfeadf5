"""Rows that the terminal shows as examples: rejected rows, and rows with a warning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from voicequeue.cli.ingest.intake import Item
from voicequeue.cli.terminal import escape_untrusted, out, print_reasons
from voicequeue.ingest.checkpoint import IngestCounts
from voicequeue.ingest.row import Row

#: Rows that are shown with their reason, from the first row on.
SHOWN_MAX = 5


def place(row: Row) -> str:
    """Return the place of a row: as a spreadsheet program numbers it, and its line where that is another number.

    A row of a file of rejected rows also has a place in the original file.
    """
    own = _place(row.number, row.line)
    if row.origin is None or not any(row.origin):
        return own
    return f"{own}, which is {_place(*row.origin)} of the original file"


def _place(number: int, line: int) -> str:
    if not number:
        return f"line {line}"
    return f"row {number}" + (f" (line {line})" if line not in (0, number) else "")


@dataclass(frozen=True, slots=True)
class Note:
    """A row, and the reason why it is rejected or doubtful."""

    row: Row
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON representation."""
        source_row = self.row.source.number or None
        return {"row": self.row.number or None, "line": self.row.line, "source_row": source_row, "reason": self.reason}


@dataclass(slots=True)
class Notes:
    """The first rejected rows, and the first rows with a warning."""

    problems: list[Note] = field(default_factory=list)
    warnings: list[Note] = field(default_factory=list)

    def reject(self, row: Row, reason: str) -> None:
        """Keep a rejected row, if it is one of the first."""
        if len(self.problems) < SHOWN_MAX:
            self.problems.append(Note(row, reason))

    def warn(self, item: Item, counts: IngestCounts) -> None:
        """Count the warnings of a row that is not rejected, and keep the first."""
        for kind, text in item.warnings:
            counts.warn(kind)
            if len(self.warnings) < SHOWN_MAX:
                self.warnings.append(Note(item.row, text))


def print_notes(counts: IngestCounts, notes: Notes) -> None:
    """Print how many rows were rejected and how many are doubtful, by reason, and the first of them."""
    print_reasons(counts.reasons)
    _print(notes.problems)
    if counts.warnings:
        out.print(f"[yellow]doubtful rows: {sum(counts.warnings.values()):,}[/]; they are not rejected")
        print_reasons(counts.warnings)
        _print(notes.warnings)


def _print(notes: list[Note]) -> None:
    for note in notes:
        out.print(f"  {place(note.row)}: {escape_untrusted(note.reason)}")
