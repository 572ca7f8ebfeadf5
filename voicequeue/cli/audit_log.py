"""`audit-log`: who changed what, when, from where and why."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    Since,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json_list,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.ingest.cells import csv_lines
from voicequeue.storage.monitoring.audit_log import AuditEntry

#: Entries that are read by one call.
_CHUNK = 500

_COLUMNS = (
    Column("time", rank=1),
    Column("actor", rank=2, min_width=12),
    Column("address", rank=8),
    Column("action"),
    Column("target"),
    Column("details", rank=5, min_width=10),
    Column("jobs", rank=6, is_number=True),
    Column("credits", rank=7, is_number=True),
    Column("reason", rank=4, min_width=10),
)


def audit_log(
    since: Since = None,
    actor: Annotated[
        str | None, option("ACTOR", help="Only changes by this actor, such as key:shop, or by all of a kind: page.")
    ] = None,
    action: Annotated[str | None, option("ACTION", help="Only this action, such as pause or retry.")] = None,
    batch: BatchOption = None,
    job: Annotated[str | None, option("JOB_ID", help="Only changes of this job, alone or among selected ones.")] = None,
    limit: Limit = None,
    all: All = False,
    as_csv: Annotated[bool, flag("--csv", help="Print CSV, for spreadsheets.")] = False,
    as_json: AsJson = False,
) -> None:
    """List who changed what, when and why, the latest first.

    With --csv and without --limit, all entries are printed.
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json cannot be combined")
    count = limit_of(limit, is_all=all or (as_csv and limit is None))
    with open_queue() as queue:
        entries = _entries(queue, since=since, actor=actor, action=action, batch=batch, job_id=job)
        listing = Listing(entries, count)
        if as_csv:
            sys.stdout.writelines(csv_lines(_rows(listing)))
        elif as_json:
            print_json_list(entry.as_dict() for entry in listing)
        else:
            print_table(_COLUMNS, map(_row, listing))
            if not listing.count:
                out.print("no changes")
    listing.note_rest("change")


def _entries(queue: VoiceQueue, **filters: Any) -> Iterator[AuditEntry]:
    cursor: str | None = None
    while True:
        page = queue.audit_log(**filters, limit=_CHUNK, cursor=cursor)
        yield from page.items
        if (cursor := page.cursor) is None:
            return


def _rows(entries: Iterable[AuditEntry]) -> Iterator[tuple[object, ...]]:
    yield AuditEntry.COLUMNS
    yield from (entry.cells() for entry in entries)


def _row(entry: AuditEntry) -> tuple[str, ...]:
    target = " ".join(filter(None, [entry.job_id, entry.batch and f"batch {entry.batch}"]))
    details = ", ".join(f"{name}: {value}" for name, value in entry.details.items())
    numbers = ("" if number is None else f"{number:,}" for number in (entry.jobs, entry.credits))
    cells = (entry.actor, entry.address, entry.action, target, details, *numbers, entry.reason)
    return (format_time(entry.at), *cells)
