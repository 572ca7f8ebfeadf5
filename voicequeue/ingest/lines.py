"""Read the lines of a text, each row in bounded memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

#: The most characters of one row, so that no file can exhaust the memory.
ROW_MAX = 1_048_576

LINE_ENDS = ("\n", "\r")

_PIECE = 65_536
_LINE_MAX = ROW_MAX + 1


class RowTooLong(csv.Error):
    """A row with more than ROW_MAX characters."""

    def __str__(self) -> str:
        return f"a row has more than {ROW_MAX:,} characters"


class Lines:
    """The lines of a text, of which each row may take up to ROW_MAX characters. Call `start_row` before each row.

    `number`: the lines read. Raises RowTooLong instead of returning further lines of a row that is too long, and skips
    the rest of the line.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self._last = ""
        self._read = text.readline
        self._returned: list[str] = []
        self.start_row()

    @property
    def is_complete(self) -> bool:
        """True if the last line has a line end."""
        return not self._last or self._last.endswith(LINE_ENDS)

    def start_row(self) -> None:
        """Start a new row."""
        self._remaining = ROW_MAX

    def skip(self, count: int) -> None:
        """Skip lines without parsing them."""
        for _ in range(count):
            line = self._next()
            while len(line) > ROW_MAX and not line.endswith(LINE_ENDS):
                line = self._read(_LINE_MAX)
        self.number += count

    def read_piece(self) -> str:
        """Return the next part of a line, whose size is bounded; '' at the end of the file."""
        piece = self._returned.pop(0) if self._returned else self._read(_PIECE)
        self.number += self.is_complete and bool(piece)
        self._last = piece
        return piece

    def rewind(self, text: str) -> None:
        """Return all that was read from the beginning of the file; it is read again."""
        self._returned = io.StringIO(text, newline="").readlines()
        self.number = 0
        self._last = ""

    def _next(self) -> str:
        if not self._returned:
            return self._read(_LINE_MAX)
        line = self._returned.pop(0)
        return line if line.endswith(LINE_ENDS) else line + self._read(max(0, _LINE_MAX - len(line)))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._next() if self._returned else self._read(_LINE_MAX)
        if not line:
            raise StopIteration
        self.number += 1
        self._last = line
        self._remaining -= len(line)
        if self._remaining < 0:
            while line and not line.endswith(LINE_ENDS):
                self._last = line = self._read(ROW_MAX)
            raise RowTooLong
        return line
