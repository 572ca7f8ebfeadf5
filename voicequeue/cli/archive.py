"""`archive`: list and retry jobs whose songs are pending or failed to be archived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.outbox import attempt_cells, print_entries, print_outbox_json, print_workers
from voicequeue.cli.tables import Column
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    Reason,
    flag,
    format_time,
    is_of_batch,
    open_queue,
    option,
    out,
    print_json,
    refuse,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.storage.archive import ArchiveEntry
from voicequeue.texts import pluralize

_COLUMNS = (Column("job"), Column("batch", rank=3, min_width=8), Column("since", rank=5))


def archive(
    retry: Annotated[bool, flag("--retry", help="Retry jobs that failed to be archived.")] = False,
    job: Annotated[
        list[str] | None, option("JOB_ID", help="With --retry: retry only this job. Can be repeated.")
    ] = None,
    backfill: Annotated[bool, flag("--backfill", help="Archive songs created before archiving was enabled.")] = False,
    batch: BatchOption = None,
    limit: Limit = None,
    all: All = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List jobs whose songs are pending or failed to be archived, or retry them.

    A list has up to --limit pending and as many failed jobs.
    """
    if retry and backfill:
        raise typer.BadParameter("--retry and --backfill cannot be combined")
    if retry or backfill:
        refuse("with --retry or --backfill", limit=limit, all=all)
    else:
        refuse("without --retry or --backfill", reason=reason)
    refuse("without --retry", job=job and not retry)
    refuse("with --job", batch=batch is not None and job)
    count = limit_of(limit, is_all=all)
    with open_queue(reason=reason) as client:
        if backfill:
            _print_scheduled(client.backfill_archive(batch), as_json=as_json)
        elif retry:
            _retry(client, job, batch, as_json=as_json)
        else:
            _list(client, batch, count, as_json=as_json)


def _retry(client: VoiceQueue, jobs: list[str] | None, batch: str | None, *, as_json: bool) -> None:
    # Read the list first: a job that fails again meanwhile is not retried twice.
    job_ids = jobs or [entry.job_id for entry in _of_batch(client, batch, failed=True)]
    count = client.retry_archive(job_ids)
    _print_scheduled(count, as_json=as_json)
    raise typer.Exit(int(count < len(job_ids)))


def _of_batch(client: VoiceQueue, batch: str | None, *, failed: bool = False) -> Iterator[ArchiveEntry]:
    entries = client.archive_entries(failed=failed)
    return (entry for entry in entries if is_of_batch(client, entry.qualified_batch, batch))


def _print_scheduled(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"jobs": count})
    else:
        out.print(f"{pluralize(count, 'job')} scheduled for archiving")


def _list(client: VoiceQueue, batch: str | None, limit: int | None, *, as_json: bool) -> None:
    counts = client.archive_counts()
    pending = Listing(_of_batch(client, batch), limit)
    failed = Listing(_of_batch(client, batch, failed=True), limit)
    if as_json:
        print_outbox_json(counts, pending=pending, failed=failed)
    else:
        print_entries("pending", _COLUMNS, pending, _row)
        print_entries("failed", _COLUMNS, failed, _row)
        archived = f"{counts.jobs:,} archived in {pluralize(counts.files, 'file')}"
        out.print(f"jobs       {counts.pending:,} pending, {counts.failed:,} failed, {archived}")
        print_workers(counts.workers, "archive")
    pending.note_rest("pending job", lambda: None if batch else counts.pending)
    failed.note_rest("failed job", lambda: None if batch else counts.failed)


def _row(entry: ArchiveEntry) -> tuple[str, ...]:
    return (entry.job_id, entry.qualified_batch, format_time(entry.since), *attempt_cells(entry))
