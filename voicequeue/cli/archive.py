"""`archive`: songs that are still to be archived, and those that could not be."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from voicequeue.cli.terminal import AsJson, BatchOption, clock, out, plain_table, print_json, queue, safe
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.status import ArchiveCounts
from voicequeue.storage.archive import ToArchive

#: How many of a kind are shown to a person; scripts get all.
SHOWN = 50


def archive(
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was given up.")] = False,
    job: Annotated[list[str] | None, typer.Option(help="With --retry: only this job; may be repeated.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Archive songs that never were meant to be.")] = False,
    batch: BatchOption = None,
    as_json: AsJson = False,
) -> None:
    """List jobs whose songs are to be archived or could not be, or have them tried again."""
    if retry and missing:
        raise typer.BadParameter("give --retry or --missing")
    if job and not retry:
        raise typer.BadParameter("--job goes with --retry")
    with queue() as found:
        if missing:
            _told(found.archive_missing(batch), as_json=as_json)
        elif retry:
            # A frozen list: what is given up again is not meant.
            meant = job or [each.job_id for each in found.archive(failed=True) if batch in (None, each.batch)]
            count = found.archive_again(meant)
            _told(count, as_json=as_json)
            raise typer.Exit(int(count < len(meant)))
        else:
            _list(found, batch, as_json=as_json)


def _told(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"jobs": count})
    else:
        out.print(f"the songs of {count:,} jobs are to be archived")


def _list(found: VoiceQueue, batch: str | None, *, as_json: bool) -> None:
    counted = found.archive_counts()
    pending = (each for each in found.archive() if batch in (None, each.batch))
    failed = (each for each in found.archive(failed=True) if batch in (None, each.batch))
    if as_json:
        print_json(
            {
                "counts": {name: getattr(counted, name) for name in ArchiveCounts.__slots__},
                "pending": [each.as_dict() for each in pending],
                "failed": [each.as_dict() for each in failed],
            }
        )
        return
    _table("pending", list(islice(pending, SHOWN + 1)))
    _table("failed", list(islice(failed, SHOWN + 1)))
    archived = f"{counted.jobs:,} archived in {counted.files:,} files"
    out.print(f"jobs       {counted.pending:,} pending, {counted.failed:,} failed, {archived}")
    alive = f"{counted.workers} alive" if counted.workers else "[red]none alive[/]; start the process `archive`"
    out.print(f"workers    {alive}")


def _table(name: str, found: list[ToArchive]) -> None:
    if not found:
        return
    table = plain_table("job", "batch", "since", "tries", "next try", "last failure")
    for each in found[:SHOWN]:
        due = clock(each.due) if each.due else "-"
        row = (each.job_id, safe(each.batch or ""), clock(each.since), str(each.tries), due)
        table.add_row(*row, safe(each.reason))
    out.print(f"[bold]{name}[/]")
    out.print(table)
    if len(found) > SHOWN:
        out.print("… and more; --json lists them all")
    out.print("")
