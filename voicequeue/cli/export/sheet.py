"""Exports for spreadsheet programs: CSV with a byte order mark, or an Excel workbook.

The columns depend on all jobs. So the records are collected in a temporary file, in one pass over the queue, and memory
stays constant.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from voicequeue.cli.terminal import CommandSetupError
from voicequeue.domain.job import Job
from voicequeue.ingest.cells import guard
from voicequeue.ingest.export_columns import SheetColumns, sheet_record
from voicequeue.ingest.row import EXPORT_COLUMNS
from voicequeue.texts import escape_controls

#: The most rows of a sheet, and characters of a cell, that Excel reads.
SHEET_ROWS_MAX = 1_048_576
CELL_MAX = 32_767

#: The first columns. Those of CSV mark a file whose cells are guarded, so that it reads back as it was.
CSV_FIRST, EXCEL_FIRST = EXPORT_COLUMNS, ("row",)

_BOM = "\ufeff"
_NO_CHARACTERS = str.maketrans({"\ufffe": "\ufffd", "\uffff": "\ufffd"})

Table = Iterable[list[Any]]


def collected(jobs: Iterable[Job], rows: TextIO, *, first: tuple[str, ...]) -> tuple[tuple[str, ...], Table]:
    """Write the jobs to a temporary file, and return the columns and the rows in it; `first` are the first columns."""
    columns = SheetColumns(first)
    for job in jobs:
        record = sheet_record(job)
        columns.add(record)
        rows.write(json.dumps(record, separators=(",", ":")) + "\n")
    rows.seek(0)
    return columns.names(), columns.rows(map(json.loads, rows))


def temporary_rows() -> TextIO:
    """Return a file for `collected`, which no other user can read, and which is deleted when it is closed."""
    return cast(TextIO, tempfile.TemporaryFile("w+", encoding="utf-8", prefix="voicequeue-export-"))


def write_csv(columns: tuple[str, ...], rows: Table, file: TextIO, delimiter: str) -> None:
    """Write CSV that a spreadsheet program recognizes as UTF-8.

    Programs that expect semicolons expect decimal commas, and read 0.5 as a text or 1.5 as a date.
    """
    file.write(_BOM)
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(map(_guarded, columns))
    sign = "," if delimiter == ";" else "."
    writer.writerows(
        [_decimal(value, sign) if isinstance(value, float) else _guarded(value) for value in cells] for cells in rows
    )


def _decimal(number: float, sign: str) -> str:
    """Return a number with this decimal sign, which is never one between thousands: 1.234 is 1.2340."""
    whole, point, decimals = str(number).partition(".")
    return whole + (sign + (decimals + "0" if len(decimals) == 3 else decimals) if point else "")


def open_workbook(path: Path) -> BinaryIO:
    """Open a file for `write_excel`. Raises CommandSetupError, also if the package for it is not installed."""
    if find_spec("openpyxl") is None:
        raise CommandSetupError(
            "writing Excel files needs the package openpyxl: pip install 'voicequeue[excel]', or write a .csv file"
        )
    try:
        return path.open("wb")
    except OSError as error:
        raise CommandSetupError(f"{path}: {error.strerror}") from None


def write_excel(columns: tuple[str, ...], rows: Table, file: BinaryIO) -> None:
    """Write an Excel workbook, with further sheets for more rows than one sheet can have."""
    from openpyxl import Workbook  # noqa: PLC0415  an extra

    workbook = Workbook(write_only=True)
    sheet: Any = None
    for number, cells in enumerate(rows):
        if number % (SHEET_ROWS_MAX - 1) == 0:
            sheet = _sheet(workbook, columns)
        sheet.append(_excel_cells(sheet, cells))
    if sheet is None:
        _sheet(workbook, columns)
    workbook.save(file)


def _sheet(workbook: Any, columns: tuple[str, ...]) -> Any:
    number = len(workbook.sheetnames) + 1
    sheet = workbook.create_sheet("jobs" if number == 1 else f"jobs {number}")
    sheet.freeze_panes = "A2"
    sheet.append(_excel_cells(sheet, columns))
    return sheet


def _excel_cells(sheet: Any, cells: Iterable[Any]) -> Iterator[Any]:
    for value in cells:
        yield _text_cell(sheet, value) if isinstance(value, str) else value


def _text_cell(sheet: Any, value: str) -> Any:
    """Return a text. One that begins like a formula or an error stays a text, also when its cell is edited."""
    text = _readable(value).translate(_NO_CHARACTERS)
    if guard(text) == text and not text.startswith("#"):
        return text
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415  an extra

    cell = WriteOnlyCell(sheet, text)
    cell.data_type, cell.quotePrefix = "s", True
    return cell


def _guarded(value: Any) -> Any:
    return guard(_readable(value)) if isinstance(value, str) else value


def _readable(text: str) -> str:
    """Return a text without terminal controls, and not longer than a cell may be."""
    text = escape_controls(text, keep="\n\t")
    return text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…"
