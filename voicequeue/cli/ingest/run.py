"""One run of `ingest`, real or dry: from its checkpoint to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from voicequeue.cli.ingest import dry_run
from voicequeue.cli.ingest.enqueuer import RowEnqueuer, StopRules
from voicequeue.cli.ingest.errors import FileChangedError, IngestStoppedError
from voicequeue.cli.ingest.intake import Item, check_recordings, read_items
from voicequeue.cli.ingest.link_check import check_links
from voicequeue.cli.ingest.paths import IngestPaths
from voicequeue.cli.ingest.rejects import RejectsFile
from voicequeue.cli.ingest.report import Report, batch_hold
from voicequeue.cli.ingest.source import Source
from voicequeue.cli.ingest.writing import CannotWriteError, writing
from voicequeue.cli.terminal import print_note
from voicequeue.client.queue import VoiceQueue
from voicequeue.errors import JobNotFoundError
from voicequeue.ingest.checkpoint import CannotResumeError, IngestProgress
from voicequeue.ingest.preflight import Preflight
from voicequeue.ingest.row import Position

#: Exit codes: all rows are jobs, some were rejected, the run was stopped.
OK, REJECTED, STOPPED = 0, 1, 2


def read_progress(source: Source, paths: IngestPaths, jobs: VoiceQueue, batch: str, *, resume: bool) -> IngestProgress:
    """Return the progress of the run to resume, or of a run that has not started. Raises CannotResumeError."""
    progress = source.new_progress(batch)
    if not resume:
        return progress
    if not source.is_file:
        raise CannotResumeError("--resume needs a file that can be read a second time")
    saved = progress.resumed(source.path)
    if saved.is_complete and saved.rejected_bytes and not paths.partial.exists():
        return progress  # the rejected rows are in their place: nothing is left but to delete the progress
    progress = saved
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


class IngestRun:
    """The rows of one source, from where an earlier run stopped."""

    def __init__(
        self,
        source: Source,
        paths: IngestPaths,
        jobs: VoiceQueue,
        progress: IngestProgress,
        *,
        start_within_s: float | None,
        checker: Preflight | None,
        as_json: bool,
    ) -> None:
        self._source = source
        self._paths = paths
        self._jobs = jobs
        self._progress = progress
        self._start = Position(progress.lines, progress.rows)
        self._earlier = progress.counts.copy()
        self._start_within_s = start_within_s
        self._checker = checker
        self._as_json = as_json

    def preview(self, rules: StopRules) -> int:
        """Print what the run would do; return the exit code."""
        with self._rejects(kept=0) as rejects, closing(self._source.shown(self._checked())) as items:
            result = dry_run.run(items, self._jobs, rejects, rules, earlier=self._earlier)
            try:
                self._source.check_unchanged()
            except FileChangedError as error:
                result.stopped = error
            result.rejected_file = rejects.finish()
            result.kept_file = rejects.kept_as
        result.hold = batch_hold(self._jobs, self._progress.batch)
        dry_run.report(result, rules.confirmation.budget(), as_json=self._as_json)
        return STOPPED if result.stopped else _code(result.counts.rejected)

    def enqueue(self, rules: StopRules, set_limits: Callable[[], None]) -> int:
        """Enqueue the rows and print the result; return the exit code."""
        report = Report(self._jobs, self._progress, self._earlier, self._start.lines, as_json=self._as_json)
        try:
            if self._source.is_file:
                rules.confirmation.check_file(self._source, self._read)
                self._source.check_unchanged()
            set_limits()
            rejected = self._enqueue(rules, report)
        except IngestStoppedError as error:
            report.stop(error, can_resume=error.can_resume and self._source.is_file and bool(self._progress.lines))
            return STOPPED
        report.finish(rejected)
        return _code(self._progress.counts.rejected)

    def _enqueue(self, rules: StopRules, report: Report) -> Path | None:
        progress, source = self._progress, self._source
        if source.is_file and not self._start.lines:
            self._delete_progress()
        with self._rejects(kept=progress.rejected_bytes) as rejects, self._advise(rejects):
            enqueuer = RowEnqueuer(self._jobs, source, progress, rejects)
            report.notes = enqueuer.notes
            try:
                with closing(source.shown(self._checked())) as items:
                    enqueuer.run(items, rules)
            except IngestStoppedError:
                report.rejected_file = rejects.stop()
                raise
            replaces_source = rejects.path == source.path
            if source.is_file:
                source.file.close()
                if replaces_source:  # by other rows, of which the progress is none
                    self._delete_progress()
            path = rejects.finish()
            report.kept_file = rejects.kept_as
            if source.is_file and not replaces_source:
                self._delete_progress()
            return path

    def _delete_progress(self) -> None:
        with writing(IngestProgress.path(self._source.path), self._paths):
            IngestProgress.delete(self._source.path)

    def _read(self) -> Iterator[Item]:
        """Yield the rows to ingest, from where the earlier run stopped."""
        items = read_items(self._source.read(self._start), self._progress.batch, self._start_within_s)
        return check_links(items, self._jobs)

    def _checked(self) -> Iterator[Item]:
        items = self._read()
        return items if self._checker is None else check_recordings(items, self._jobs, self._checker)

    def _rejects(self, *, kept: int) -> RejectsFile:
        rows = self._source.rows
        # Rejected rows are UTF-8; spreadsheet programs recognize it by its mark.
        written = replace(rows.format, has_bom=rows.format.has_bom or self._source.options.encoding is not None)
        return RejectsFile(self._paths, rows.columns, written, kept=kept)

    @contextmanager
    def _advise(self, rejects: RejectsFile) -> Iterator[None]:
        """Print how to continue after a failure or Ctrl-C."""
        try:
            yield
        except (IngestStoppedError, CannotWriteError):  # their text says it
            raise
        except BaseException:
            if self._source.is_file and self._progress.lines:
                print_note("stopped; run the same command with --resume to continue")
            elif not self._source.is_file and (path := rejects.stop()):
                print_note(f"rejected rows so far: {path}")
            raise


def _code(rejected: int) -> int:
    return REJECTED if rejected else OK
