"""Enqueue rows chunk by chunk, with a checkpoint after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from voicequeue.cli.ingest.errors import TooManyRejectedError
from voicequeue.cli.ingest.funds import Confirmation
from voicequeue.cli.ingest.intake import Item, item_weight, rejection_kind
from voicequeue.cli.ingest.max_rejected import MaxRejected
from voicequeue.cli.ingest.notes import Notes
from voicequeue.cli.ingest.outcomes import preview
from voicequeue.cli.ingest.rejects import RejectsFile
from voicequeue.cli.ingest.source import Source
from voicequeue.cli.ingest.writing import writing
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.results import EnqueueItemResult
from voicequeue.domain.portions import split_into_portions
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.checkpoint import IngestProgress
from voicequeue.ingest.row import Position, Row

T = TypeVar("T")


class Input(Generic[T]):
    """An iterator that knows whether it has reached its end."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.is_at_end = False

    def __iter__(self) -> Iterator[T]:
        yield from self._items
        self.is_at_end = True


@dataclass(frozen=True, slots=True)
class StopRules:
    """The rules by which a run stops. `chunk`: the jobs between two checks."""

    chunk: int
    max_rejected: MaxRejected | None
    confirmation: Confirmation


class RowEnqueuer:
    """Enqueues the rows of a file or stream, and saves the progress of a file after each chunk."""

    def __init__(self, jobs: VoiceQueue, source: Source, progress: IngestProgress, rejects: RejectsFile) -> None:
        self._jobs = jobs
        self._source = source
        self._progress = progress
        self._rejects = rejects
        self._paths = rejects.paths
        self.notes = Notes()

    def run(self, items: Iterator[Item], rules: StopRules) -> None:
        """Enqueue all items. Raises IngestStoppedError before the chunk that breaks a rule."""
        rows = Input(items)
        for chunk in split_into_portions(rows, item_weight, jobs=rules.chunk):
            self._source.check_unchanged()
            if rules.max_rejected is not None:
                self._check_rejected(chunk, rules.max_rejected, is_end=rows.is_at_end)
            if not self._source.is_file:
                rules.confirmation.check_chunk(chunk)
            self._enqueue(chunk)
        self._source.check_unchanged()
        if self._source.is_file and self._progress.lines:
            self._progress.is_complete = True
            self._save()

    def _check_rejected(self, chunk: list[Item], most: MaxRejected, *, is_end: bool) -> None:
        """Raise TooManyRejectedError, after the rejected rows were written, if they are too many."""
        counts = self._progress.counts
        rejected = [outcome for outcome in preview(chunk, self._jobs) if outcome.error is not None]
        try:
            most.check(counts.rejected + len(rejected), counts.rows + len(chunk), is_end=is_end)
        except TooManyRejectedError:
            for outcome in rejected:
                if outcome.error is not None:
                    self._reject(outcome.item.row, outcome.error)
            raise

    def _enqueue(self, chunk: list[Item]) -> None:
        jobs = [(index, job) for index, item in enumerate(chunk) if item.job for job in item.job.expand()]
        errors = {index: item.error for index, item in enumerate(chunk) if item.error}
        entries: list[EnqueueItemResult] = []
        summary = self._jobs.enqueue_many([job for _, job in jobs], on_result=entries.append)
        for (index, _), entry in zip(jobs, entries, strict=True):
            if entry.error is not None:
                errors.setdefault(index, entry.error)
        counts = self._progress.counts
        counts.rows += len(chunk)
        counts.new += summary.new
        counts.existing += summary.existing
        counts.credits += summary.credits
        for index, item in enumerate(chunk):
            if error := errors.get(index):
                self._reject(item.row, error)
            elif item.warnings:
                self.notes.warn(item, counts)
        accepted_ids = [entry.job_id for (index, _), entry in zip(jobs, entries, strict=True) if index not in errors]
        self._progress.last_job = accepted_ids[-1] if accepted_ids else self._progress.last_job
        self._save_progress(chunk[-1].end)

    def _reject(self, row: Row, error: VoiceQueueError) -> None:
        self._progress.counts.reject(rejection_kind(error))
        self._rejects.add(row, error)

    def _save_progress(self, end: Position) -> None:
        self._progress.lines, self._progress.rows = end
        self._progress.rejected_bytes = self._rejects.flush()
        if self._source.is_file:
            self._save()

    def _save(self) -> None:
        with writing(IngestProgress.path(self._source.path), self._paths):
            self._progress.save(self._source.path)
