"""Guard the cells of a CSV file against evaluation as formulas by spreadsheet programs. Pure.

A program that splits at another separator than the file's ignores its quotes, so a cell may begin after each of them.
A `'` before a formula makes it a text; `unguard` removes exactly those.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import Any

from voicequeue.texts import escape_controls, terminal_safe_json

#: The characters that end a cell in a program that splits at another delimiter than the file's.
_ENDS = r";|\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029"

#: Characters after which a formula is still a formula: spaces, quotes and invisible characters. None of them ends a
#: cell, so that no text is matched twice.
_HIDDEN = r"\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_BEFORE = rf"""(?:[^\S{_ENDS}]|["'{_HIDDEN}])*"""

#: The first character of a formula: =, +, - and @, and every character that Unicode's compatibility mapping (NFKC)
#: turns into one of them (wide, small, superscript, mathematical), because some programs treat them alike.
_SIGN = r"[=+\-@\u207a-\u207c\u208a-\u208c\u2212\u2a75\u2a76\ufb29\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20]"

#: The beginning of a cell: in a comma-separated file, and in a file with any separator.
_START, _ANY_START = rf"(?<![^{_ENDS}])", rf"(?<![^,{_ENDS}])"

_FORMULA = re.compile(f"{_START}(?={_BEFORE}{_SIGN})")
_ANY_FORMULA = re.compile(f"{_ANY_START}(?={_BEFORE}{_SIGN})")
_GUARDED = re.compile(f"{_ANY_START}'(?={_BEFORE}{_SIGN})")


def guard(text: str) -> str:
    """Return `text` with a `'` before each part that a spreadsheet program would evaluate, in a file with commas."""
    return _FORMULA.sub("'", text)


def guard_for_any_separator(text: str) -> str:
    """Return `text` with a `'` before each part that a spreadsheet program would evaluate, in any file."""
    return _ANY_FORMULA.sub("'", text)


def unguard(text: str) -> str:
    """Return the original of a text that `guard_for_any_separator` returned."""
    return _GUARDED.sub("", text)


def json_cell(value: Any) -> str:
    """Return JSON that needs no guard in a cell, so that programs can parse it as it is."""
    text = terminal_safe_json(value)
    return text if guard(text) == text else text.replace(";", r"\u003b").replace("|", r"\u007c")


def _cell(value: object) -> object:
    """Return a value as a cell; a number needs no guard, and would become a text by it."""
    if value is None or isinstance(value, int | float):
        return value
    return guard(escape_controls(str(value)))


def csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield rows as lines of CSV that a spreadsheet program evaluates no part of; None is an empty cell."""
    line = StringIO()
    writer = csv.writer(line)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        yield line.getvalue()
        line.seek(0)
        line.truncate()
