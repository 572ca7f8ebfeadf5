"""Read rows from a sheet of an Excel workbook (.xlsx) as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from voicequeue.ingest.excel.workbook import SheetRow, open_sheet
from voicequeue.ingest.excel.xml import DamagedSheet
from voicequeue.ingest.header import TITLE_ROWS_MAX, Header, looks_like_header, misplaced, read_header
from voicequeue.ingest.row import FileFormat, FileKind, Position, ReadOptions, Row, UnreadableFileError
from voicequeue.ingest.table_rows import Table

#: Sheets that a message names; the others are counted.
_SHEETS_LISTED_MAX = 20


class ExcelRows:
    """The rows of one sheet. Raises UnreadableFileError if the workbook or its header is invalid.

    Lines are rows. A row that is hidden, or that merged cells touch, is invalid: what it means is not certain.
    """

    def __init__(self, file: BinaryIO, options: ReadOptions) -> None:
        self._sheet = open_sheet(file, options.sheet)
        self._rows = self._sheet.rows()
        try:
            header, self._header_number = self._read_header(options)
        except UnreadableFileError as error:
            self.close()
            raise UnreadableFileError(f"{error}{self._other_sheets()}") from None
        except BaseException:
            self.close()
            raise
        self._table = Table(header, options)
        self._width = len(header.names)
        self._number = self._header_number
        self._is_finished = False
        self.columns = header.columns
        self.format = FileFormat(FileKind.EXCEL, sheet=self._sheet.name)
        others = () if options.sheet else self._sheet.others
        self.note = f"read sheet {self._sheet.name!r}; not read: {_named(others)} (--sheet NAME)" if others else ""

    def _other_sheets(self) -> str:
        """Return where the header may be, in addition to an error about it; '' if there is one sheet only."""
        others = self._sheet.others
        return (
            f". This is sheet {self._sheet.name!r}; to read another one ({_named(others)}), pass --sheet NAME"
            if others
            else ""
        )

    @property
    def position(self) -> Position:
        """The place after the last row, counted from the header."""
        rows = self._number - self._header_number
        return Position(rows, rows)

    def skip_to(self, position: Position) -> None:
        """Skip the rows before a former `position`."""
        self._number = self._header_number + position.rows

    def close(self) -> None:
        """Close the workbook."""
        self._rows.close()
        self._sheet.close()

    def __iter__(self) -> Iterator[Row]:
        try:
            for row in self._rows:
                if row.number > self._number:
                    self._number = row.number
                    if any(value.strip() for value in row.values):
                        yield self._row(row)
        except DamagedSheet as error:
            self._number += 1
            yield Row(self._number, {}, None, str(error), (), self._number)

    def _row(self, row: SheetRow) -> Row:
        values = [*row.values, *[""] * (self._width - len(row.values))]
        return self._table.row(row.number, row.number, values, self._doubt(row))

    def _doubt(self, row: SheetRow) -> str:
        if row.is_hidden:
            return "the row is hidden; show it (clear the filter), or delete it"
        if merged := self._sheet.merged_at(row.number, self._width):
            return f"contains merged cells ({merged}), so its values are not certain; unmerge them, and fill in each"
        return ""

    def _read_header(self, options: ReadOptions) -> tuple[Header, int]:
        try:
            filled = (row for row in self._rows if any(value.strip() for value in row.values))
            first = next(filled, None)
            if first is None:
                raise UnreadableFileError(f"sheet {self._sheet.name!r} is empty: its first row must name the columns")
            if not looks_like_header(first.values):
                for row in islice(filled, TITLE_ROWS_MAX):
                    if looks_like_header(row.values):
                        raise misplaced("row", first.number, row.number)
            return read_header(first.values, options.extra_columns), first.number
        except DamagedSheet as error:
            raise UnreadableFileError(str(error)) from None


def _named(sheets: tuple[str, ...]) -> str:
    more = len(sheets) - _SHEETS_LISTED_MAX
    return ", ".join(map(repr, sheets[:_SHEETS_LISTED_MAX])) + (f" and {more:,} more" if more > 0 else "")
