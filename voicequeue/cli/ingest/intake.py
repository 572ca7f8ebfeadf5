"""Rows of a file as jobs: parsed, checked, enqueued; and the file of rejected rows."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TextIO

from voicequeue.cli.terminal import CommandSetupError, open_for_writing
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX, Weight, split_into_portions, weight
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import InvalidAudioError, InvalidJobError, KeyConflictError, VoiceQueueError, without_traceback
from voicequeue.ingest.audio import Audio
from voicequeue.ingest.cells import guard
from voicequeue.ingest.checkpoint import CannotResumeError, IngestProgress
from voicequeue.ingest.preflight import Preflight
from voicequeue.ingest.row import REJECTED_COLUMNS, Position, Row
from voicequeue.ingest.row_reader import RowReader

#: Rows between two checkpoints of a run with --preflight; fewer than without, because fetching again is expensive.
PREFLIGHT_CHUNK = 100


def rejection_kind(error: VoiceQueueError) -> str:
    """Return the name under which a rejected row is counted."""
    if isinstance(error, InvalidAudioError):
        return error.kind
    return "key_conflict" if isinstance(error, KeyConflictError) else "invalid_row"


class ItemWarning(NamedTuple):
    """A doubt about a row that does not reject it: the name under which it is counted, and a sentence."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Item:
    """A row with its job, or the error why it has none.

    `end` is the place after the row. `is_known` is set by the preflight.
    """

    row: Row
    end: Position
    job: VoiceJob | None = None
    error: VoiceQueueError | None = None
    is_known: bool = False
    warnings: tuple[ItemWarning, ...] = ()

    @property
    def audio_url(self) -> str | None:
        """The recording to check; None if the job is known, or there is none."""
        return self.job.audio_url if self.job and not self.is_known else None

    @property
    def weight(self) -> Weight:
        """The size by which items are grouped. The row counts too: it is kept until its job is enqueued."""
        jobs, text = weight(self.job) if self.job else Weight(1, 0)
        return Weight(jobs, text + self.row.length)

    def checked(self, result: Audio | InvalidAudioError | None) -> Item:
        """Return the item with the result of the check of its recording."""
        if self.job is None or result is None:
            return self
        if isinstance(result, InvalidAudioError):
            return replace(self, job=None, error=result)
        if self.job.audio_sha256 not in (None, result.sha256):
            error = InvalidAudioError("other_content", f"its SHA-256 is {result.sha256}, not that of audio_sha256")
            return replace(self, job=None, error=error)
        return replace(self, job=self.job.model_copy(update={"audio_sha256": result.sha256}))


def read_items(rows: RowReader, batch: str, start_within_s: float | None) -> Iterator[Item]:
    """Yield every row with its job or its error."""
    for row in rows:
        end = rows.position
        try:
            yield Item(row, end, row.to_job(batch, start_within_s=start_within_s))
        except InvalidJobError as error:
            yield Item(row, end, error=without_traceback(error))


def check_recordings(items: Iterator[Item], jobs: VoiceQueue, preflight: Preflight) -> Iterator[Item]:
    """Yield the items after their recordings were checked, except those of known jobs."""
    for item, result in preflight.check_all(_with_known(items, jobs), lambda item: item.audio_url):
        yield item.checked(result)


def _with_known(items: Iterator[Item], jobs: VoiceQueue) -> Iterator[Item]:
    for chunk in split_into_portions(items, item_weight, jobs=PREFLIGHT_CHUNK):
        previews = jobs.preview([item.job for item in chunk if item.job])
        for item in chunk:
            preview = next(previews) if item.job else None
            yield item if preview is None else replace(item, is_known=not preview.is_new)


def item_weight(item: Item) -> Weight:
    """Return the weight of an item, by which items are grouped into chunks."""
    return item.weight


class RejectsFile:
    """The file of rejected rows.

    It is created with the first rejected row. The file of an earlier run is deleted, except for its first `kept` bytes
    if this run resumes that one.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, kept: int = 0) -> None:
        self.path = path
        self._columns = columns
        self._file = self._continued(kept) if kept else None
        self._is_stale = not kept

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _continued(self, kept: int) -> TextIO:
        try:
            file = self.path.open("r+", encoding="utf-8", errors="surrogateescape", newline="")
            if os.fstat(file.fileno()).st_size < kept:
                raise CannotResumeError(f"{self.path} was changed; ingest without --resume to write it again")
            file.truncate(kept)
            file.seek(kept)
        except OSError as error:
            raise CannotResumeError(
                f"{self.path}: {error.strerror}; ingest without --resume to write it again"
            ) from None
        return file

    def add(self, row: Row, error: VoiceQueueError) -> None:
        """Write a row with its line and reason, so that it reads back unchanged (`ingest/row_reader.py`)."""
        if self._file is None:
            self._file = open_for_writing(self.path)
            csv.writer(self._file).writerow([*REJECTED_COLUMNS, *map(guard, self._columns)])
        cells = [str(error), *(row.cells.get(column, "") for column in self._columns), *row.extra_cells]
        csv.writer(self._file).writerow([row.line, *map(guard, cells)])

    def flush(self) -> int:
        """Flush the file, and return its length in bytes; 0 if this run has rejected no row."""
        if self._file is not None:
            self._file.flush()
            return os.fstat(self._file.fileno()).st_size
        if self._is_stale and self.path.is_file():
            try:
                self.path.unlink()
            except OSError as error:
                raise CommandSetupError(
                    f"{self.path}, of an earlier run, cannot be removed: {error.strerror}"
                ) from None
        self._is_stale = False
        return 0


class RowEnqueuer:
    """Enqueues items chunk by chunk, and saves the progress after each.

    The progress is saved beside `source`; None does not save it, because the rows cannot be read a second time.
    """

    def __init__(self, jobs: VoiceQueue, rejects: RejectsFile, progress: IngestProgress, source: Path | None) -> None:
        self._jobs = jobs
        self._rejects = rejects
        self._progress = progress
        self._source = source

    def run(self, items: Iterator[Item], *, chunk: int = PORTION_JOBS_MAX) -> None:
        """Enqueue all items, in chunks of at most that many jobs, and delete the saved progress at the end."""
        for part in split_into_portions(items, item_weight, jobs=chunk):
            self._enqueue(part)
        self._rejects.flush()
        if self._source is not None:
            IngestProgress.path(self._source).unlink(missing_ok=True)

    def _enqueue(self, chunk: list[Item]) -> None:
        jobs = [(index, job) for index, item in enumerate(chunk) if item.job for job in item.job.expand()]
        errors = {index: item.error for index, item in enumerate(chunk) if item.error}
        summary = self._jobs.enqueue_many(job for _, job in jobs)
        for rejection in summary.rejections:
            errors.setdefault(jobs[rejection.index][0], rejection.error)
        counts = self._progress.counts
        counts.new += summary.new
        counts.existing += summary.existing
        counts.credits += summary.credits
        for warning in (warning for item in chunk for warning in item.warnings):
            counts.warn(warning.kind)
        for index, error in sorted(errors.items(), key=lambda item: item[0]):
            counts.reject(rejection_kind(error))
            self._rejects.add(chunk[index].row, error)
        accepted_ids = [job.job_id() for index, job in jobs if index not in errors]
        self._progress.last_job = accepted_ids[-1] if accepted_ids else self._progress.last_job
        self._save_progress(chunk[-1].end)

    def _save_progress(self, end: Position) -> None:
        self._progress.lines, self._progress.rows = end
        self._progress.rejected_bytes = self._rejects.flush()
        if self._source is not None:
            self._progress.save(self._source)
