"""The command `ingest`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Annotated

import typer

from voicequeue.cli.ingest import source as sources
from voicequeue.cli.ingest.enqueuer import StopRules
from voicequeue.cli.ingest.funds import Confirmation
from voicequeue.cli.ingest.intake import PREFLIGHT_CHUNK
from voicequeue.cli.ingest.max_rejected import MaxRejected
from voicequeue.cli.ingest.run import IngestRun, read_progress
from voicequeue.cli.terminal import (
    AsJson,
    CommandSetupError,
    Reuse,
    StartWithin,
    StopAfter,
    Yes,
    argument,
    batch_option,
    flag,
    open_queue,
    option,
    print_note,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.namespaces import DEFAULT
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.domain.spec import batch_name, http_url
from voicequeue.domain.stop_loss import BatchLimitChanges
from voicequeue.errors import check_field
from voicequeue.ingest.audio_settings import rules_from
from voicequeue.ingest.preflight import Preflight, RecordingRules
from voicequeue.ingest.row import ExtraColumns, ReadOptions


def ingest(
    file: Annotated[
        str,
        argument("FILE", help="Excel (.xlsx), CSV or JSON, plain or gzip; - reads standard input."),
    ],
    batch: Annotated[str, batch_option("Add the jobs to this batch.")],
    preflight: Annotated[
        bool,
        flag("--preflight", help="Check each recording first: reachable, MP3 or WAV, long enough."),
    ] = False,
    dry_run: Annotated[
        bool, flag("--dry-run", help="Print counts, problems and cost, and write the rejected rows; enqueue nothing.")
    ] = False,
    resume: Annotated[bool, flag("--resume", help="Continue an interrupted run.")] = False,
    max_rejected: Annotated[
        MaxRejected | None,
        option(
            "N|P%",
            help="Enqueue nothing more once more rows than this are rejected, e.g. 100 or 10%.",
            parser=MaxRejected.parse,
        ),
    ] = None,
    max_credits: Annotated[int | None, option("N", min=0, help="Credits that the batch may spend.")] = None,
    max_in_flight: Annotated[int | None, option("N", min=1, help="Jobs in flight at once.")] = None,
    stop_after: StopAfter = None,
    callback_url: Annotated[str | None, option("URL", help="Send a callback here when the batch has settled.")] = None,
    sheet: Annotated[str | None, option("NAME", help="Read this sheet of an Excel file, instead of the first.")] = None,
    encoding: Annotated[
        str | None, option("NAME", help="Encoding of a text file that is not UTF-8, e.g. cp1252.")
    ] = None,
    extra: Annotated[
        ExtraColumns,
        option("metadata|ignore|error", help="Store unknown columns as metadata, ignore them, or reject the file."),
    ] = ExtraColumns.ERROR,
    accept_incomplete: Annotated[
        bool,
        flag("--accept-incomplete", help="Read rows with too few cells, and a last line that may be cut off."),
    ] = False,
    reuse: Reuse = None,
    start_within: StartWithin = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Add every row of a file to the queue.

    Running it again adds no job twice, as long as its jobs are retained. Rejected rows are written to
    FILE.rejected.csv (.xlsx for Excel) with line and reason; the other rows are added.

    It asks first if the account cannot pay for the new jobs.
    """
    check_field("batch", batch_name, batch)
    if callback_url is not None:
        check_field("callback_url", http_url, callback_url)
    options = ReadOptions(encoding=encoding, sheet=sheet, extra_columns=extra, accept_incomplete=accept_incomplete)
    with ExitStack() as stack:
        source, paths = stack.enter_context(sources.opened(file, options, is_dry_run=dry_run))
        jobs = stack.enter_context(open_queue(namespace=DEFAULT, reuse=reuse))
        checker = stack.enter_context(Preflight(_recording_rules())) if preflight else None
        confirmation = Confirmation(jobs, batch, yes=yes, max_credits=max_credits)
        rules = StopRules(PREFLIGHT_CHUNK if preflight else PORTION_JOBS_MAX, max_rejected, confirmation)
        if source.rows.note:
            print_note(source.rows.note)
        progress = read_progress(source, paths, jobs, batch, resume=resume)
        run = IngestRun(source, paths, jobs, progress, start_within_s=start_within, checker=checker, as_json=as_json)
        if dry_run:
            code = run.preview(rules)
        else:
            limits = BatchLimitChanges(max_credits=max_credits, max_in_flight=max_in_flight, stop_after=stop_after)
            code = run.enqueue(rules, lambda: _limit(jobs, batch, callback_url, limits))
    raise typer.Exit(code)


def _recording_rules() -> RecordingRules:
    """Return the rules that the environment sets. Raises CommandSetupError, which names the setting."""
    try:
        return rules_from(os.environ)
    except ValueError as error:
        raise CommandSetupError(str(error)) from None


def _limit(jobs: VoiceQueue, batch: str, callback_url: str | None, limits: BatchLimitChanges) -> None:
    """Set the limits and the callback of the batch, before its first job is enqueued."""
    if any(limit is not None for limit in limits.values()):
        jobs.set_batch_limits(batch, **limits)
    if callback_url is not None:
        jobs.set_batch_callback(batch, callback_url)
