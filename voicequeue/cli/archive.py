"""`archive`: list and retry jobs whose songs are pending or failed to be archived."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from voicequeue.cli.outbox import attempt_cells, print_entries, print_outbox_json, print_workers
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    Reason,
    escape_untrusted,
    flag,
    format_time,
    is_of_batch,
    open_queue,
    option,
    out,
    print_json,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.storage.archive import ArchiveEntry


def archive(
    retry: Annotated[bool, flag("--retry", help="Retry jobs that failed to be archived.")] = False,
    job: Annotated[
        list[str] | None, option("JOB_ID", help="With --retry: retry only this job. Can be repeated.")
    ] = None,
    backfill: Annotated[bool, flag("--backfill", help="Archive songs created before archiving was enabled.")] = False,
    batch: BatchOption = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List jobs whose songs are pending or failed to be archived, or retry them."""
    if retry and backfill:
        raise typer.BadParameter("--retry and --backfill cannot be combined")
    if job and not retry:
        raise typer.BadParameter("--job requires --retry")
    with open_queue(reason=reason) as client:
        if backfill:
            _print_scheduled(client.backfill_archive(batch), as_json=as_json)
        elif retry:
            # Read the list first: a job that fails again meanwhile is not retried twice.
            job_ids = job or [entry.job_id for entry in _of_batch(client, batch, failed=True)]
            count = client.retry_archive(job_ids)
            _print_scheduled(count, as_json=as_json)
            raise typer.Exit(int(count < len(job_ids)))
        else:
            _list(client, batch, as_json=as_json)


def _of_batch(client: VoiceQueue, batch: str | None, *, failed: bool = False) -> Iterator[ArchiveEntry]:
    entries = client.archive_entries(failed=failed)
    return (entry for entry in entries if is_of_batch(client, entry.qualified_batch, batch))


def _print_scheduled(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"jobs": count})
    else:
        out.print(f"{count:,} jobs scheduled for archiving")


def _list(client: VoiceQueue, batch: str | None, *, as_json: bool) -> None:
    counts = client.archive_counts()
    pending, failed = _of_batch(client, batch), _of_batch(client, batch, failed=True)
    if as_json:
        print_outbox_json(counts, pending=pending, failed=failed)
        return
    columns = ("job", "batch", "since")
    print_entries("pending", columns, map(_row, pending))
    print_entries("failed", columns, map(_row, failed))
    archived = f"{counts.jobs:,} archived in {counts.files:,} files"
    out.print(f"jobs       {counts.pending:,} pending, {counts.failed:,} failed, {archived}")
    print_workers(counts.workers, "archive")


def _row(entry: ArchiveEntry) -> tuple[str, ...]:
    return (entry.job_id, escape_untrusted(entry.qualified_batch), format_time(entry.since), *attempt_cells(entry))
