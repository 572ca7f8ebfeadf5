"""`spend`: the credits that were charged, by namespace, API key, batch, day and month."""

from __future__ import annotations

import sys
import time
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from voicequeue.cli.parsing import parse_duration
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    flag,
    open_queue,
    option,
    out,
    print_json,
)
from voicequeue.domain.spending import NO_VALUE, Spending, SpendingGroup, columns_of, parse_groups
from voicequeue.ingest.cells import csv_lines
from voicequeue.texts import pluralize


def _day(text: str) -> date:
    """Return the day (UTC) of a date, or of a duration before now. Raises BadParameter."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromtimestamp(time.time() - parse_duration(text), UTC).date()
    except (typer.BadParameter, OverflowError, OSError, ValueError):
        raise typer.BadParameter("must be a date such as 2026-03-01, or a duration such as 30d") from None


def spend(
    by: Annotated[str, option("COLUMNS", help=f"Columns, separated by commas: {', '.join(SpendingGroup)}.")] = "month",
    since: Annotated[
        date | None,
        typer.Option(parser=_day, metavar="DAY", help="Only charges on this day (UTC) or later: a date, or 30d."),
    ] = None,
    as_csv: Annotated[bool, flag("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the credits that were charged, by namespace, API key, batch, day or month."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json cannot be combined")
    with open_queue() as queue:
        try:
            groups = parse_groups(name.strip() for name in by.split(","))
            rows = queue.spending(groups, since=since)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    columns = columns_of(groups)
    if as_csv:
        sys.stdout.writelines(csv_lines([(*columns, "credits"), *(row.cells(columns) for row in rows)]))
    elif as_json:
        print_json([row.as_dict() for row in rows])
    else:
        _print(columns, rows)


def _print(columns: list[SpendingGroup], rows: list[Spending]) -> None:
    if not rows:
        out.print("nothing was spent")
        return
    labels = ([getattr(row, column) or NO_VALUE[column] for column in columns] for row in rows)
    cells = ([*label, f"{row.credits:,}"] for label, row in zip(labels, rows, strict=True))
    print_table([*map(Column, columns), Column("credits", is_number=True)], cells)
    out.print(f"{pluralize(sum(row.credits for row in rows), 'credit')} in total")
