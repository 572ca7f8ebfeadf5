"""The page of spending: budgets with what is left, and what was charged by columns, with an export."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response

from voicequeue import InvalidJobError, Problem, Spending, SpendingGroup, VoiceQueue
from voicequeue.domain.spending import NO_VALUE, columns_of, parse_groups
from voicequeue.ingest.cells import csv_lines
from workers.gateway.page.base import HEADERS, PageRenderer
from workers.gateway.security.access import reading

#: Days of the report by day, if the user names no first day.
DAYS = 30

#: The reports that the page links to: their columns by name.
REPORTS = {
    "Day": "day",
    "Month": "month",
    "Namespace": "namespace",
    "Namespace and month": "namespace,month",
    "API key": "key",
    "Batch": "batch",
}

By = Annotated[str, Query(max_length=100)]
Since = Annotated[str, Query(max_length=20)]


class Report(NamedTuple):
    """A report: its columns, its rows, and its first day, if any."""

    columns: list[SpendingGroup]
    rows: list[Spending]
    since: date | None

    def newest_first(self) -> list[Spending]:
        """Return its rows; by period the newest first."""
        is_by_period = self.columns[0] in (SpendingGroup.DAY, SpendingGroup.MONTH)
        return self.rows[::-1] if is_by_period else self.rows


def read_report(queue: VoiceQueue, by: str, since: str) -> Report:
    """Return the report of these fields. Raises InvalidJobError."""
    first = _day(since)
    try:
        groups = parse_groups(name.strip() for name in by.split(","))
        if first is None and groups == {SpendingGroup.DAY}:
            first = datetime.fromtimestamp(queue.status().at, UTC).date() - timedelta(days=DAYS - 1)
        return Report(columns_of(groups), queue.spending(groups, since=first), first)
    except ValueError as error:
        name, separator, message = str(error).partition(": ")
        problem = Problem(name, message) if separator and name == "since" else Problem("", str(error))
        raise InvalidJobError([problem]) from None


def _day(text: str) -> date | None:
    """Return the date in a field; None if it is empty. Raises InvalidJobError."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidJobError([Problem("since", f"must be a date such as 2030-03-01; not {text!r}")]) from None


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the routes, which need the scope `read`."""
    routes = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @routes.get("/spend")
    def spend(request: Request, by: By = "day", since: Since = "") -> Response:
        scoped = reading(queue, request)
        try:
            report = read_report(scoped, by, since)
        except InvalidJobError as error:
            entered = {"by": by, "since": since}
            return renderer.resend(request, entered, error, partial(spend, by="day"), name="filter", fields=entered)
        context = {
            "budgets": scoped.budgets(),
            "report": report,
            "by": by,
            "since": since,
            "reports": {name: columns for name, columns in REPORTS.items() if _is_useful(scoped, columns)},
            "no_value": NO_VALUE,
            "query": {"by": by, "since": since},
        }
        return renderer.render(request, "spend.html", context)

    @routes.get("/spend.csv")
    def export(request: Request, by: By = "day", since: Since = "") -> Response:
        report = read_report(reading(queue, request), by, since)
        lines = csv_lines([(*report.columns, "credits"), *(row.cells(report.columns) for row in report.rows)])
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="spending.csv"'}
        return Response("".join(lines), media_type="text/csv; charset=utf-8", headers=headers)

    return routes


def _is_useful(queue: VoiceQueue, columns: str) -> bool:
    """Return whether a report may have several rows in the namespace of the user."""
    return queue.namespace == "*" or SpendingGroup.NAMESPACE not in columns.split(",")
