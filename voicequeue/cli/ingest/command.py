"""The command `ingest`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from rich import progress as bars

from voicequeue.cli.ingest import dry_run as outlooks
from voicequeue.cli.ingest.intake import PREFLIGHT_CHUNK, Item, RejectsFile, RowEnqueuer, check_recordings, read_items
from voicequeue.cli.ingest.link_check import check_links
from voicequeue.cli.terminal import (
    AsJson,
    CommandSetupError,
    Reuse,
    StartWithin,
    argument,
    err,
    flag,
    open_queue,
    option,
    out,
    print_error,
    print_json,
    print_reasons,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.domain.spec import batch_name, http_url
from voicequeue.errors import JobNotFoundError, check_field
from voicequeue.ingest.audio_settings import rules_from
from voicequeue.ingest.checkpoint import CannotResumeError, IngestProgress
from voicequeue.ingest.compression import decompressed
from voicequeue.ingest.preflight import Preflight, RecordingRules
from voicequeue.ingest.row import Position, UnreadableFileError
from voicequeue.ingest.row_reader import RowReader

_READ_BYTES = 1_048_576
_UPDATE_INTERVAL_S = 0.1


def ingest(
    file: Annotated[
        str,
        argument("FILE", help="CSV or JSON Lines, plain or gzip; - reads standard input."),
    ],
    batch: Annotated[str, option("NAME", help="Add the jobs to this batch.")],
    preflight: Annotated[
        bool,
        flag("--preflight", help="Check each recording first: reachable, MP3 or WAV, long enough."),
    ] = False,
    dry_run: Annotated[bool, flag("--dry-run", help="Print counts, problems and cost; change nothing.")] = False,
    resume: Annotated[bool, flag("--resume", help="Continue an interrupted run.")] = False,
    max_credits: Annotated[int | None, option("N", min=0, help="Credits that the batch may spend.")] = None,
    max_in_flight: Annotated[int | None, option("N", min=1, help="Jobs in flight at once.")] = None,
    callback_url: Annotated[str | None, option("URL", help="Send a callback here when the batch has settled.")] = None,
    reuse: Reuse = None,
    start_within: StartWithin = None,
    as_json: AsJson = False,
) -> None:
    """Add every row of a file to the queue.

    Running it again adds no job twice, as long as its jobs are retained. Rejected rows are written to
    FILE.rejected.csv with line and reason; the other rows are added.
    """
    check_field("batch", batch_name, batch)
    if callback_url is not None:
        check_field("callback_url", http_url, callback_url)
    if dry_run and resume:
        raise typer.BadParameter("--dry-run reads the whole file; leave out --resume")
    with _opened(file) as source, ExitStack() as stack:
        jobs = stack.enter_context(open_queue(reuse=reuse))
        checker = stack.enter_context(Preflight(_recording_rules())) if preflight else None
        items = check_links(read_items(source.rows, batch, start_within), jobs)
        if checker is not None:
            items = check_recordings(items, jobs, checker)
        if dry_run:
            rejected = _dry_run(source, jobs, items, as_json=as_json)
        else:
            _limit(jobs, batch, callback_url, max_credits=max_credits, max_in_flight=max_in_flight)
            chunk = PREFLIGHT_CHUNK if checker else PORTION_JOBS_MAX
            rejected = _ingest(source, jobs, batch, items, chunk=chunk, resume=resume, as_json=as_json)
    raise typer.Exit(int(rejected > 0))


def _recording_rules() -> RecordingRules:
    """Return the rules that the environment sets. Raises CommandSetupError, which names the setting."""
    try:
        return rules_from(os.environ)
    except ValueError as error:
        raise CommandSetupError(str(error)) from None


def _limit(
    jobs: VoiceQueue, batch: str, callback_url: str | None, *, max_credits: int | None, max_in_flight: int | None
) -> None:
    """Set the limits and the callback of the batch, before its first job is enqueued."""
    if max_credits is not None or max_in_flight is not None:
        jobs.set_batch_limits(batch, max_credits=max_credits, max_in_flight=max_in_flight)
    if callback_url is not None:
        jobs.set_batch_callback(batch, callback_url)


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a file or of standard input. `is_file` is whether they can be read a second time."""

    path: Path
    rows: RowReader
    is_file: bool

    def shown(self, items: Iterator[Item]) -> Generator[Item, None, None]:
        """Yield the items, and show a progress bar on the terminal."""
        if not err.is_terminal:
            yield from items
            return
        counting = bars.TextColumn("{task.fields[rows]:,} rows")
        remaining = (bars.TimeRemainingColumn(),) if self.is_file else ()
        columns = (bars.SpinnerColumn(), bars.TextColumn("{task.description}"), bars.BarColumn(), counting, *remaining)
        with bars.Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("ingesting", total=self._lines(), completed=self.rows.position.lines, rows=0)
            update_at = 0.0
            for rows, item in enumerate(items, start=1):
                if (now := time.monotonic()) >= update_at:
                    bar.update(task, completed=item.end.lines, rows=rows)
                    update_at = now + _UPDATE_INTERVAL_S
                yield item

    def _lines(self) -> int | None:
        if not self.is_file:
            return None
        with self.path.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(partial(decompressed(file).read, _READ_BYTES), b""))


@contextmanager
def _opened(file: str) -> Iterator[Source]:
    with ExitStack() as stack:
        try:
            path = Path("stdin" if file == "-" else file)
            raw = cast(BinaryIO, sys.stdin.buffer) if file == "-" else stack.enter_context(path.open("rb"))
        except OSError as error:
            raise UnreadableFileError(f"{path}: {error.strerror}") from None
        yield Source(path, RowReader(decompressed(raw)), file != "-" and path.is_file())


def _dry_run(source: Source, jobs: VoiceQueue, items: Iterator[Item], *, as_json: bool) -> int:
    with closing(source.shown(items)) as shown:
        outlook = outlooks.run(shown, jobs)
    outlooks.report(outlook, outlooks.Budget.of(jobs), as_json=as_json)
    return outlook.counts.rejected


def _ingest(
    source: Source,
    jobs: VoiceQueue,
    batch: str,
    items: Iterator[Item],
    *,
    chunk: int,
    resume: bool,
    as_json: bool,
) -> int:
    progress = _progress(source, jobs, batch, resume=resume)
    resumed_after = progress.lines
    source.rows.skip_to(Position(progress.lines, progress.rows))
    rejects = RejectsFile(
        source.path.with_name(f"{source.path.name}.rejected.csv"), source.rows.columns, kept=progress.rejected_bytes
    )
    progress_source = source.path if source.is_file else None
    with rejects, _advise_to_resume(progress, progress_source), closing(source.shown(items)) as shown:
        RowEnqueuer(jobs, rejects, progress, progress_source).run(shown, chunk=chunk)
    _report(progress, rejects.path, resumed_after, as_json=as_json)
    return progress.counts.rejected


def _progress(source: Source, jobs: VoiceQueue, batch: str, *, resume: bool) -> IngestProgress:
    if not source.is_file:
        if resume:
            raise CannotResumeError("--resume needs a file that can be read a second time")
        return IngestProgress(batch, {})
    new = IngestProgress.start(source.path, batch)
    if not resume:
        return new
    progress = new.resumed(source.path)
    if progress.last_job:
        try:
            jobs.get(progress.last_job)
        except JobNotFoundError:
            raise CannotResumeError(
                f"this queue does not hold the jobs that {IngestProgress.path(source.path)} records. "
                "Without --resume, rows whose jobs were purged (VOICEQUEUE_RETENTION_DAYS) are paid "
                "for again; --dry-run prints how many exist"
            ) from None
    return progress


@contextmanager
def _advise_to_resume(progress: IngestProgress, source: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if source is not None and progress.lines:
            print_error("stopped; run the same command with --resume to continue")
        raise


def _report(progress: IngestProgress, rejected: Path, resumed_after: int, *, as_json: bool) -> None:
    counts = progress.counts
    if as_json:
        print_json(
            {
                "new": counts.new,
                "existing": counts.existing,
                "rejected": counts.rejected,
                "reasons": counts.reasons,
                "credits": counts.credits,
                "rejected_file": str(rejected) if counts.rejected else None,
                "resumed_after": resumed_after or None,
            }
        )
        return
    out.print(
        f"[green]{counts.new:,} new[/], {counts.existing:,} existing, {counts.rejected:,} rejected; "
        f"the new jobs cost {counts.credits:,} credits"
    )
    print_reasons(counts.reasons)
    if counts.rejected:
        print_error(f"rejected rows and reasons: {rejected}")
