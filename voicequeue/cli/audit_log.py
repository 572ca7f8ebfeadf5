"""`audit-log`: who changed what, when, from where and why."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    parse_duration,
    plain_table,
    print_json,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.ingest.cells import csv_lines
from voicequeue.storage.monitoring.audit_log import AuditEntry

#: Entries that are read by one call.
_CHUNK = 500


def _since(text: str) -> float:
    """Return the time (Unix seconds) of a date, of ISO 8601, or of a duration before now. Raises BadParameter."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - parse_duration(text)
    except typer.BadParameter:
        raise typer.BadParameter("must be a duration such as 24h or 7d, or a date such as 2026-03-01") from None


def audit_log(
    since: Annotated[
        float | None,
        typer.Option(parser=_since, metavar="TIME", help="Only changes since then: 24h, 7d, or a date."),
    ] = None,
    actor: Annotated[
        str | None, option("ACTOR", help="Only changes by this actor, such as key:shop, or by all of a kind: page.")
    ] = None,
    action: Annotated[str | None, option("ACTION", help="Only this action, such as pause or retry.")] = None,
    batch: BatchOption = None,
    job: Annotated[str | None, option("JOB_ID", help="Only changes of this job, alone or among selected ones.")] = None,
    limit: Annotated[
        int | None, option("N", min=1, help="At most this many entries. Default: 50; with --csv all.")
    ] = None,
    as_csv: Annotated[bool, flag("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: AsJson = False,
) -> None:
    """List who changed what, when and why, the latest first."""
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json cannot be combined")
    with open_queue() as queue:
        entries = _entries(queue, since=since, actor=actor, action=action, batch=batch, job_id=job)
        listed = islice(entries, limit if limit or as_csv else 50)
        if as_csv:
            sys.stdout.writelines(csv_lines(_rows(listed)))
        elif as_json:
            print_json([entry.as_dict() for entry in listed])
        else:
            _print(list(listed))


def _entries(queue: VoiceQueue, **filters: Any) -> Iterator[AuditEntry]:
    cursor: str | None = None
    while True:
        page = queue.audit_log(**filters, limit=_CHUNK, cursor=cursor)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _rows(entries: Iterator[AuditEntry]) -> Iterator[tuple[object, ...]]:
    yield AuditEntry.COLUMNS
    yield from (entry.cells() for entry in entries)


def _print(entries: list[AuditEntry]) -> None:
    if not entries:
        out.print("no changes")
        return
    table = plain_table("time", "actor", "address", "action", "target", "details", "jobs", "credits", "reason")
    for entry in entries:
        target = " ".join(filter(None, [entry.job_id, entry.batch and f"batch {entry.batch}"]))
        details = ", ".join(f"{name}: {value}" for name, value in entry.details.items())
        numbers = ("" if number is None else f"{number:,}" for number in (entry.jobs, entry.credits))
        cells = (entry.actor, entry.address, entry.action, target, details, *numbers, entry.reason)
        table.add_row(format_time(entry.at), *map(escape_untrusted, cells))
    out.print(table)
