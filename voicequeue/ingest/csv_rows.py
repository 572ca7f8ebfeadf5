"""Read rows from CSV with any usual delimiter."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from voicequeue.ingest.header import (
    TITLE_ROWS_MAX,
    Header,
    delimiter_of,
    looks_like_header,
    misplaced,
    read_header,
    split_cells,
)
from voicequeue.ingest.lines import Lines, RowTooLong
from voicequeue.ingest.row import FileFormat, FileKind, Position, ReadOptions, Row, UnreadableFileError
from voicequeue.ingest.table_rows import Table

#: The first line that Excel reads as the delimiter. It is not a row.
_SEP = re.compile(r"""\s*"?sep=([^\w\s"']|\t)"?[,;\t|]*\s*""", re.IGNORECASE)

_BLANK = ' \t\r\n,;|"'
_HEADER_MAX = 65_536


class CsvRows:
    """The rows of a CSV file, of which `lines` are the lines. Raises UnreadableFileError for an invalid header."""

    def __init__(self, lines: Lines, options: ReadOptions, *, has_bom: bool = False) -> None:
        self._lines = lines
        self._options = options
        header, delimiter, self._rows_before = _read_header(lines, options)
        self._lines_before = lines.number
        self._number = 0
        self._table = Table(header, options)
        self.columns = header.columns
        self.format = FileFormat(FileKind.CSV, delimiter, has_bom)
        # Strict: an unclosed quote must not take all following rows as one cell.
        self._reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)

    @property
    def position(self) -> Position:
        """The place after the last row, counted from the header."""
        return Position(self._lines.number - self._lines_before, self._number)

    def skip_to(self, position: Position) -> None:
        """Skip the rows before a former `position` without parsing them."""
        self._lines.skip(position.lines - self.position.lines)
        self._number = position.rows

    def __iter__(self) -> Iterator[Row]:
        lines = self._lines
        while True:
            line = lines.number + 1
            lines.start_row()
            try:
                values = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._number += 1
                yield Row(line, {}, None, _csv_error(error, line, lines.number), (), self._rows_before + self._number)
                continue
            self._number += 1
            if any(value.strip() for value in values):
                yield self._table.row(line, self._rows_before + self._number, values, self._cut())

    def _cut(self) -> str:
        """Return why the last row may be cut off; '' if it ends with a line end."""
        if self._lines.is_complete or self._options.accept_incomplete:
            return ""
        return (
            "the last line has no line end, so the file may be cut off here; if it is complete, add a line break at "
            "its end, or pass --accept-incomplete"
        )


def _read_header(lines: Lines, options: ReadOptions) -> tuple[Header, str, int]:
    """Return the header, the delimiter, and the rows up to the header as a spreadsheet program counts."""
    line, blank = _first_record(lines)
    delimiter = ""
    if lines.number == 1 and (sep := _SEP.fullmatch(line)):
        delimiter = sep[1]
        line, blank = _first_record(lines)
    if not line:
        raise UnreadableFileError("the file is empty: its first line must name the columns")
    delimiter = delimiter or delimiter_of(line)
    cells = _cells(line, delimiter)
    if not looks_like_header(cells):
        _check_title(lines)
    return read_header(cells, options.extra_columns), delimiter, blank + 1


def _first_record(lines: Lines) -> tuple[str, int]:
    """Return the first line that is not blank, '' if there is none, and the number of blank ones before it.

    A quoted cell may continue it on further lines.
    """
    blank = 0
    try:
        for line in lines:
            lines.start_row()
            if not line.strip(_BLANK):
                blank += 1
                continue
            record = line
            while record.count('"') % 2 and len(record) < _HEADER_MAX and (further := next(lines, "")):
                record += further
            return record, blank
    except RowTooLong:
        raise UnreadableFileError("the first line is too long to name the columns") from None
    return "", blank


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return split_cells(line, delimiter)
    except csv.Error:
        raise UnreadableFileError(
            "the first line must name the columns; it is not readable as CSV: is a quote in it opened and never closed?"
        ) from None


def _check_title(lines: Lines) -> None:
    """Raise UnreadableFileError if the header is a later line than the first."""
    first = lines.number
    for _ in range(TITLE_ROWS_MAX):
        lines.start_row()
        try:
            line = next(lines, "")
            if looks_like_header(split_cells(line, delimiter_of(line))):
                raise misplaced("line", first, lines.number)
        except csv.Error:
            return


def _csv_error(error: csv.Error, first: int, last: int) -> str:
    if last > first:
        return f"lines {first} to {last} are not readable as CSV: {error}; is a quote opened and never closed?"
    return f"not readable as CSV: {error}"
