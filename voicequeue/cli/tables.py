"""Tables: as wide as the terminal, and complete in files and pipes.

On a terminal a row is one line: columns are shortened, and the least important ones are left out, so that ids are
never cut.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import typer

from voicequeue.cli.terminal import styled
from voicequeue.texts import escape_controls

#: Rows whose widths are measured together. Further rows have a layout of their own, so that memory stays bounded.
ROWS_MEASURED = 1_000

#: The width that every shortened column gets before any gets more.
FAIR_WIDTH = 24

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and its width on a narrow terminal.

    A column is shortened to `min_width` characters (None: never), and left out if that does not suffice, the one with
    the highest `rank` first; those with rank 0 are always shown. `style` returns the style of a cell.
    """

    name: str
    rank: int = 0
    min_width: int | None = None
    is_number: bool = False
    style: Callable[[str], str] | None = None


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Print the rows under their headings; nothing if there are none. Cells may contain untrusted text."""
    cells = ([escape_controls(str(cell)) for cell in row] for row in rows)
    headings = [column.name for column in columns]
    is_first = True
    while chunk := list(islice(cells, ROWS_MEASURED)):
        contents = [max(map(_width, column)) for column in zip(*chunk, strict=True)]
        widths = fitted(columns, contents, _columns_of_terminal())
        if is_first:
            typer.echo(_line(columns, headings, widths, is_heading=True))
        for row in chunk:
            typer.echo(_line(columns, row, widths))
        is_first = False


def _columns_of_terminal() -> int | None:
    """Return the width of the terminal; None if the output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitted(columns: Sequence[Column], contents: Sequence[int], available: int | None) -> list[int]:
    """Return the width of each column, 0 for one that is left out, given the widths of their contents. Pure.

    `available`: the width of the terminal, on which empty columns are left out; None: all columns are shown.
    """
    natural = [max(width, len(column.name)) for column, width in zip(columns, contents, strict=True)]
    if available is None:
        return natural
    shown = [bool(width or not column.rank) for column, width in zip(columns, contents, strict=True)]
    least = [_least(column, width) for column, width in zip(columns, natural, strict=True)]
    for index in sorted(range(len(columns)), key=lambda index: -columns[index].rank):
        if _total(least, shown) <= available or not columns[index].rank:
            break
        shown[index] = False
    return _widened(columns, least, natural, shown, available)


def _widened(
    columns: Sequence[Column], least: Sequence[int], natural: Sequence[int], shown: Sequence[bool], available: int
) -> list[int]:
    """Return the widths when the rest of the line is given to shortened columns: at first a fair part to each."""
    widths = [width if is_shown else 0 for width, is_shown in zip(least, shown, strict=True)]
    spare = max(0, available - _total(least, shown))
    by_rank = [index for index in sorted(range(len(columns)), key=lambda index: columns[index].rank) if shown[index]]
    for most in (FAIR_WIDTH, available):
        for index in by_rank:
            added = min(max(0, min(natural[index], most) - widths[index]), spare)
            widths[index] += added
            spare -= added
    return widths


def _least(column: Column, natural: int) -> int:
    return natural if column.min_width is None else min(natural, max(column.min_width, len(column.name)))


def _total(widths: Sequence[int], shown: Sequence[bool]) -> int:
    used = [width for width, is_shown in zip(widths, shown, strict=True) if is_shown]
    return sum(used) + len(_GAP) * (len(used) - 1)


def _line(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], *, is_heading: bool = False) -> str:
    return _GAP.join(_padded(columns, cells, widths, is_heading=is_heading)).rstrip()


def _padded(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], *, is_heading: bool
) -> Iterator[str]:
    for column, cell, width in zip(columns, cells, widths, strict=True):
        if not width:
            continue
        text = _shortened(cell, width)
        padding = " " * (width - _width(text))
        style = "bold" if is_heading else column.style(cell) if column.style else ""
        yield padding + styled(text, style) if column.is_number else styled(text, style) + padding


def _shortened(text: str, width: int) -> str:
    """Return the text, cut to its width on the terminal, with an ellipsis in place of the rest."""
    if _width(text) <= width:
        return text
    kept, used = "", 0
    for character in text:
        used += _width(character)
        if used > width - 1:
            break
        kept += character
    return f"{kept}…"


def _width(text: str) -> int:
    """Return the columns that the text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
