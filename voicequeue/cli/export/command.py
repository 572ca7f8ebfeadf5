"""The command `export`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, TextIO

import typer

from voicequeue.cli.export import sheet
from voicequeue.cli.terminal import AsJson, BatchOption, StateOption, flag, open_for_writing, open_queue, option
from voicequeue.domain.job import Job
from voicequeue.ingest.export_columns import CSV_COLUMNS, csv_cells, json_record
from voicequeue.texts import terminal_safe_json

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


class Format(StrEnum):
    """The format of the output."""

    CSV = "csv"
    JSONL = "jsonl"
    XLSX = "xlsx"


def _delimiter(text: str) -> str:
    """Return a delimiter that is given as itself or by its name. Raises BadParameter."""
    delimiter = _DELIMITERS.get(text, text)
    if delimiter not in _DELIMITERS.values():
        raise typer.BadParameter("must be a comma, a semicolon, |, or the word tab")
    return delimiter


def export(
    batch: BatchOption = None,
    state: StateOption = None,
    format: Annotated[
        Format | None,
        option(
            "FORMAT",
            help="csv, xlsx (Excel), or jsonl (JSON Lines) for programs. Default: as FILE is named, otherwise csv.",
        ),
    ] = None,
    excel: Annotated[
        bool,
        flag("--excel", help="CSV for spreadsheet programs: columns as in the input file, safe cells, UTF-8 mark."),
    ] = False,
    delimiter: Annotated[
        str,
        typer.Option(
            metavar="CHAR",
            parser=_delimiter,
            help="Delimiter of CSV: , ; | or tab. Excel expects ; where numbers have a decimal comma.",
        ),
    ] = ",",
    output: Annotated[
        Path | None, option("FILE", "--output", "-o", help="Write to this file, not to standard output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export jobs with their orders and results.

    For a spreadsheet program write FILE.xlsx: it opens right in every country.
    """
    kind = _kind(format, output, excel=excel, as_json=as_json)
    with open_queue() as source, ExitStack() as stack:
        jobs = source.jobs(state=state, batch=batch)
        first = next(jobs, None)  # before the file is opened: an unreachable Redis must not leave an empty file
        jobs = chain([first] if first is not None else [], jobs)
        if kind is Format.XLSX and output is not None:
            workbook = stack.enter_context(sheet.open_workbook(output))
            spool = stack.enter_context(sheet.temporary_rows())
            columns, rows = sheet.collected(jobs, spool, first=sheet.EXCEL_FIRST)
            sheet.write_excel(columns, rows, workbook)
            return
        file = stack.enter_context(nullcontext(sys.stdout) if output is None else open_for_writing(output))
        if kind is Format.JSONL:
            file.writelines(terminal_safe_json(json_record(job)) + "\n" for job in jobs)
        elif excel:
            spool = stack.enter_context(sheet.temporary_rows())
            columns, rows = sheet.collected(jobs, spool, first=sheet.CSV_FIRST)
            sheet.write_csv(columns, rows, file, delimiter)
        else:
            _write_csv(jobs, file, delimiter)


def _kind(format: Format | None, output: Path | None, *, excel: bool, as_json: bool) -> Format:
    """Return the format of the output. Raises BadParameter if the options contradict each other."""
    is_workbook = output is not None and output.suffix.lower() == ".xlsx"
    if as_json and format not in (None, Format.JSONL):
        raise typer.BadParameter(f"--json writes JSON Lines; leave out --format {format}")
    kind = format or (Format.JSONL if as_json else Format.XLSX if is_workbook else Format.CSV)
    if kind is Format.XLSX and not is_workbook:
        raise typer.BadParameter("an Excel file is written to a FILE.xlsx: name it with --output")
    if is_workbook and kind is not Format.XLSX:
        raise typer.BadParameter(f"{output} is the name of an Excel file; another name is needed for {kind}")
    if excel and kind is Format.JSONL:
        raise typer.BadParameter("--excel writes CSV or an Excel file, not JSON Lines")
    return kind


def _write_csv(jobs: Iterator[Job], file: TextIO, delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(CSV_COLUMNS)
    writer.writerows(map(csv_cells, jobs))
