"""`ingest`: a file of rows into the queue."""

from __future__ import annotations

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

from voicequeue.cli import dry_run
from voicequeue.cli.audio_rules import audio_rules
from voicequeue.cli.bulk import Reuse, StartBy
from voicequeue.cli.intake import LOOKED_AT, Intake, Item, Rejects, items, looked_at
from voicequeue.cli.show import print_reasons
from voicequeue.cli.terminal import AsJson, complain, err, out, print_json, queue
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import CHUNK
from voicequeue.domain.spec import batch_name, http_url
from voicequeue.errors import UnknownJob, checked
from voicequeue.ingest.checkpoint import CannotResume, Progress
from voicequeue.ingest.compression import unpacked
from voicequeue.ingest.preflight import Preflight
from voicequeue.ingest.row_reader import Rows, UnreadableFile

_PIECE = 1_048_576
_SHOWN_EVERY_S = 0.1


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(ingest)


def ingest(
    file: Annotated[
        str, typer.Argument(help="CSV or JSON Lines, gzip'd or not; - is standard input.", show_default=False)
    ],
    batch: Annotated[str, typer.Option(help="The batch that the rows belong to.", show_default=False)],
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Look at each recording first: reachable, MP3 or WAV, long enough.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would come to; change nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stood.")] = False,
    max_credits: Annotated[int | None, typer.Option(min=0, help="The most the whole batch may spend.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Its jobs with upstream at once, at most.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Told when the whole batch has settled.")] = None,
    reuse: Reuse = None,
    start_by: StartBy = None,
    as_json: AsJson = False,
) -> None:
    """Put every row of a file into the queue. Running it again adds nothing, as long as its jobs are kept.

    Rows that cannot be taken go to FILE.rejected.csv with line and reason; the others go on.
    """
    checked("batch", batch_name, batch)
    if callback_url is not None:
        checked("callback_url", http_url, callback_url)
    if dry_run and resume:
        raise typer.BadParameter("--dry-run looks at the whole file; leave out --resume")
    with _opened(file) as source, ExitStack() as stack:
        jobs = stack.enter_context(queue(reuse=reuse))
        look = stack.enter_context(Preflight(audio_rules())) if preflight else None
        found = items(source.rows, batch, start_by)
        if look is not None:
            found = looked_at(found, jobs, look)
        if dry_run:
            rejected = _dry_run(source, jobs, found, as_json=as_json)
        else:
            _limit(jobs, batch, callback_url, max_credits=max_credits, max_in_flight=max_in_flight)
            chunk = LOOKED_AT if look else CHUNK
            rejected = _ingest(source, jobs, batch, found, chunk=chunk, resume=resume, as_json=as_json)
    raise typer.Exit(int(rejected > 0))


def _limit(
    jobs: VoiceQueue, batch: str, callback_url: str | None, *, max_credits: int | None, max_in_flight: int | None
) -> None:
    """Before the batch's first job comes."""
    if max_credits is not None or max_in_flight is not None:
        jobs.limit_batch(batch, max_credits=max_credits, max_in_flight=max_in_flight)
    if callback_url is not None:
        jobs.call_back_batch(batch, callback_url)


@dataclass(frozen=True, slots=True)
class Source:
    """The rows, and where they come from; `is_file`: they can be read a second time."""

    path: Path
    rows: Rows
    is_file: bool

    def shown(self, found: Iterator[Item]) -> Generator[Item, None, None]:
        """The same items, with a bar on the terminal as they pass."""
        if not err.is_terminal:
            yield from found
            return
        counting = bars.TextColumn("{task.fields[rows]:,} rows")
        left = (bars.TimeRemainingColumn(),) if self.is_file else ()
        columns = (bars.SpinnerColumn(), bars.TextColumn("{task.description}"), bars.BarColumn(), counting, *left)
        with bars.Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task("ingesting", total=self._lines(), completed=self.rows.lines, rows=0)
            due = 0.0
            for rows, item in enumerate(found, start=1):
                if (now := time.monotonic()) >= due:
                    bar.update(task, completed=item.lines, rows=rows)
                    due = now + _SHOWN_EVERY_S
                yield item

    def _lines(self) -> int | None:
        if not self.is_file:
            return None
        with self.path.open("rb") as file:
            return sum(piece.count(b"\n") for piece in iter(partial(unpacked(file).read, _PIECE), b""))


@contextmanager
def _opened(file: str) -> Iterator[Source]:
    with ExitStack() as stack:
        try:
            path = Path("stdin" if file == "-" else file)
            raw = cast(BinaryIO, sys.stdin.buffer) if file == "-" else stack.enter_context(path.open("rb"))
        except OSError as error:
            raise UnreadableFile(f"{path}: {error.strerror}") from None
        yield Source(path, Rows(unpacked(raw)), file != "-" and path.is_file())


def _dry_run(source: Source, jobs: VoiceQueue, found: Iterator[Item], *, as_json: bool) -> int:
    with closing(source.shown(found)) as shown:
        outlook = dry_run.foreseen(shown, jobs)
    dry_run.report(outlook, dry_run.Means.of(jobs), as_json=as_json)
    return outlook.counts.rejected


def _ingest(
    source: Source,
    jobs: VoiceQueue,
    batch: str,
    found: Iterator[Item],
    *,
    chunk: int,
    resume: bool,
    as_json: bool,
) -> int:
    progress = _progress(source, jobs, batch, resume=resume)
    begun_after = progress.lines
    source.rows.pass_over(begun_after)
    rejects = Rejects(
        source.path.with_name(f"{source.path.name}.rejected.csv"), source.rows.columns, kept=progress.rejected_bytes
    )
    kept_at = source.path if source.is_file else None
    with rejects, _told_how_to_go_on(progress, kept_at), closing(source.shown(found)) as shown:
        Intake(jobs, rejects, progress, kept_at).run(shown, chunk=chunk)
    _report(progress, rejects.path, begun_after, as_json=as_json)
    return progress.counts.rejected


def _progress(source: Source, jobs: VoiceQueue, batch: str, *, resume: bool) -> Progress:
    if not source.is_file:
        if resume:
            raise CannotResume("--resume needs a file that can be read a second time")
        return Progress(batch, {})
    new = Progress.of(source.path, batch)
    if not resume:
        return new
    progress = new.taken_up(source.path)
    if progress.last_job:
        try:
            jobs.get(progress.last_job)
        except UnknownJob:
            raise CannotResume(
                f"this queue does not hold what {Progress.path(source.path)} tells of. Without --resume, rows whose "
                "jobs are not kept any more (VOICEQUEUE_KEEP_DAYS) are paid again: --dry-run tells how many are known"
            ) from None
    return progress


@contextmanager
def _told_how_to_go_on(progress: Progress, source: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if source is not None and progress.lines:
            complain("stopped; the same command with --resume goes on where it stood")
        raise


def _report(progress: Progress, rejected: Path, begun_after: int, *, as_json: bool) -> None:
    counts = progress.counts
    if as_json:
        print_json(
            {
                "new": counts.new,
                "known": counts.known,
                "rejected": counts.rejected,
                "reasons": counts.reasons,
                "credits": counts.credits,
                "rejected_file": str(rejected) if counts.rejected else None,
                "resumed_after": begun_after or None,
            }
        )
        return
    out.print(
        f"[green]{counts.new:,} new[/], {counts.known:,} known already, {counts.rejected:,} rejected; "
        f"the new ones will cost {counts.credits:,} credits"
    )
    print_reasons(counts.reasons)
    if counts.rejected:
        complain(f"rejected rows with their reasons: {rejected}")
