"""Rows of a file on their way into the queue, and the file of those that are not taken."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from voicequeue.cli.terminal import CannotBegin, writable
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.portions import CHUNK, Weight, portions, weight
from voicequeue.domain.spec import VoiceJob
from voicequeue.errors import InvalidJob, KeyConflict, UnfitAudio, VoiceQueueError, detached
from voicequeue.ingest.audio import Audio
from voicequeue.ingest.cells import guarded
from voicequeue.ingest.checkpoint import CannotResume, Progress
from voicequeue.ingest.preflight import Preflight
from voicequeue.ingest.row_reader import REJECTED_COLUMNS, Row, Rows

#: Rows that are written and remembered as done at once, where each was fetched: to be fetched again is dear.
LOOKED_AT = 100


def kind(error: VoiceQueueError) -> str:
    """What rejected rows are counted by."""
    if isinstance(error, UnfitAudio):
        return error.kind
    return "key_conflict" if isinstance(error, KeyConflict) else "invalid_row"


@dataclass(frozen=True, slots=True)
class Item:
    """A row, how many lines of the file were read with it, and the job it describes or why it does not."""

    row: Row
    lines: int
    job: VoiceJob | None = None
    error: VoiceQueueError | None = None
    is_known: bool = False

    @property
    def audio_url(self) -> str | None:
        """The recording to look at, if there is a need to."""
        return self.job.audio_url if self.job and not self.is_known else None

    @property
    def weight(self) -> Weight:
        """What a portion of items is measured by; the row itself is kept until it is known what became of its job."""
        jobs, text = weight(self.job) if self.job else Weight(1, 0)
        return Weight(jobs, text + self.row.text)

    def seen(self, found: Audio | UnfitAudio | None) -> Item:
        """The same after its recording was looked at."""
        if self.job is None or found is None:
            return self
        if isinstance(found, UnfitAudio):
            return replace(self, job=None, error=found)
        if self.job.audio_sha256 not in (None, found.sha256):
            other = UnfitAudio("other_content", f"its SHA-256 is {found.sha256}, not that of audio_sha256")
            return replace(self, job=None, error=other)
        return replace(self, job=self.job.model_copy(update={"audio_sha256": found.sha256}))


def items(rows: Rows, batch: str, start_within_s: float | None) -> Iterator[Item]:
    """Every row with its job."""
    for row in rows:
        lines = rows.lines
        try:
            yield Item(row, lines, row.job(batch, start_within_s=start_within_s))
        except InvalidJob as error:
            yield Item(row, lines, error=detached(error))


def looked_at(found: Iterator[Item], jobs: VoiceQueue, preflight: Preflight) -> Iterator[Item]:
    """The same after a look at their recordings; those of jobs that are known already were paid, or will be."""
    for item, audio in preflight.each(_with_known(found, jobs), lambda item: item.audio_url):
        yield item.seen(audio)


def _with_known(found: Iterator[Item], jobs: VoiceQueue) -> Iterator[Item]:
    for chunk in portions(found, _weight, jobs=LOOKED_AT):
        foreseen = jobs.preview([item.job for item in chunk if item.job])
        for item in chunk:
            before = next(foreseen) if item.job else None
            yield item if before is None else replace(item, is_known=not before.is_new)


def _weight(item: Item) -> Weight:
    return item.weight


class Rejects:
    """The file of rejected rows. It is not made before the first one; one of an earlier run goes, except for the
    first `kept` bytes where this run goes on with that one."""

    def __init__(self, path: Path, columns: tuple[str, ...], *, kept: int = 0) -> None:
        self.path = path
        self._columns = columns
        self._file = self._continued(kept) if kept else None
        self._is_stale = not kept

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def _continued(self, kept: int) -> TextIO:
        try:
            file = self.path.open("r+", encoding="utf-8", errors="surrogateescape", newline="")
            if os.fstat(file.fileno()).st_size < kept:
                raise CannotResume(f"{self.path} was changed; ingest without --resume to write it anew")
            file.truncate(kept)
            file.seek(kept)
        except OSError as error:
            raise CannotResume(f"{self.path}: {error.strerror}; ingest without --resume to write it anew") from None
        return file

    def add(self, row: Row, error: VoiceQueueError) -> None:
        """Write one row, with its line and the reason. It is read back unchanged (`ingest/row_reader.py`)."""
        if self._file is None:
            self._file = writable(self.path)
            csv.writer(self._file).writerow([*REJECTED_COLUMNS, *map(guarded, self._columns)])
        cells = [str(error), *(row.cells.get(column, "") for column in self._columns), *row.more]
        csv.writer(self._file).writerow([row.line, *map(guarded, cells)])

    def saved(self) -> int:
        """How many bytes of this run are in the file, now that they are."""
        if self._file is not None:
            self._file.flush()
            return os.fstat(self._file.fileno()).st_size
        if self._is_stale and self.path.is_file():
            try:
                self.path.unlink()
            except OSError as error:
                raise CannotBegin(f"{self.path}, of an earlier run, cannot be removed: {error.strerror}") from None
        self._is_stale = False
        return 0


class Intake:
    """Puts items into the queue, chunk by chunk, and remembers after each how far it has come.

    `source` is where that is kept beside; None where the rows cannot be read a second time.
    """

    def __init__(self, jobs: VoiceQueue, rejects: Rejects, progress: Progress, source: Path | None) -> None:
        self._jobs = jobs
        self._rejects = rejects
        self._progress = progress
        self._source = source

    def run(self, found: Iterator[Item], *, chunk: int = CHUNK) -> None:
        """All of them, so many jobs at a time."""
        for part in portions(found, _weight, jobs=chunk):
            self._put(part)
        self._rejects.saved()
        if self._source is not None:
            Progress.path(self._source).unlink(missing_ok=True)

    def _put(self, chunk: list[Item]) -> None:
        given = [(place, job) for place, item in enumerate(chunk) if item.job for job in item.job.each()]
        errors = {place: item.error for place, item in enumerate(chunk) if item.error}
        receipt = self._jobs.enqueue_many(job for _, job in given)
        for rejection in receipt.rejections:
            errors.setdefault(given[rejection.index][0], rejection.error)
        counts = self._progress.counts
        counts.new += receipt.new
        counts.known += receipt.known
        counts.credits += receipt.credits
        for place, error in sorted(errors.items(), key=lambda each: each[0]):
            counts.reject(kind(error))
            self._rejects.add(chunk[place].row, error)
        taken = [job.id() for place, job in given if place not in errors]
        self._progress.last_job = taken[-1] if taken else self._progress.last_job
        self._remember(chunk[-1].lines)

    def _remember(self, lines: int) -> None:
        self._progress.lines = lines
        self._progress.rejected_bytes = self._rejects.saved()
        if self._source is not None:
            self._progress.write(self._source)
