"""The report of a run of `ingest`: what this run did, and the totals of a file that several runs ingested."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from voicequeue.cli.ingest.errors import IngestStoppedError
from voicequeue.cli.ingest.notes import Notes, print_notes
from voicequeue.cli.terminal import escape_untrusted, out, print_error, print_json, print_note
from voicequeue.client.queue import VoiceQueue
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.checkpoint import IngestCounts, IngestProgress
from voicequeue.texts import pluralize


def batch_hold(jobs: VoiceQueue, name: str) -> str | None:
    """Return why nothing of the batch is submitted, and what resumes it; None if it is submitted."""
    with suppress(VoiceQueueError):  # there is no such batch, or Redis is lost; the rows are reported all the same
        batch = jobs.batch(name)
        if batch.is_paused:
            state = batch.stop.reason if batch.stop else "paused"
            command = f"voicequeue resume --batch {shlex.quote(name)}"
            return f"batch {name} is {state}; nothing of it is submitted until {command}"
    return None


def print_batch_hold(hold: str | None) -> None:
    """Print why nothing of the batch is submitted, if so."""
    if hold is not None:
        out.print(f"[yellow]{escape_untrusted(hold)}[/]")


def print_kept_file(path: Path | None) -> None:
    """Print where a file of rejected rows is kept that was changed since it was written."""
    if path is not None:
        print_note(f"the file of rejected rows of an earlier run was changed since; it is kept as {path}")


class Report:
    """The result of a run that continues after `earlier` rows, the first `resumed_after` lines."""

    def __init__(
        self, jobs: VoiceQueue, progress: IngestProgress, earlier: IngestCounts, resumed_after: int, *, as_json: bool
    ) -> None:
        self._jobs = jobs
        self._progress = progress
        self._earlier = earlier
        self._resumed_after = resumed_after
        self._as_json = as_json
        self.notes = Notes()
        self.rejected_file: Path | None = None
        self.kept_file: Path | None = None

    def finish(self, rejected_file: Path | None) -> None:
        """Print the result of a run that reached the end of the file."""
        self.rejected_file = rejected_file
        self._print(None)

    def stop(self, error: IngestStoppedError, *, can_resume: bool) -> None:
        """Print the result of a run that was stopped, and how to continue."""
        self._print(error)
        print_error(f"stopped: {error}", code=error.code)
        jobs = self._progress.counts.new + self._progress.counts.existing
        enqueued = f"{pluralize(jobs, 'job')} of this file {'is' if jobs == 1 else 'are'} in the queue"
        if can_resume:
            print_note(f"{enqueued}; --resume continues after that")
        else:
            print_note(enqueued if jobs else "no row was enqueued")

    def _print(self, stopped: IngestStoppedError | None) -> None:
        counts = self._progress.counts.since(self._earlier)
        hold = batch_hold(self._jobs, self._progress.batch)
        if self._as_json:
            print_json(self._json(counts, stopped, hold))
            return
        if stopped is not None and not counts.rows and not counts.rejected:
            return  # the counts of no row
        out.print(
            f"[green]{counts.new:,} new[/], {counts.existing:,} existing, {counts.rejected:,} rejected; "
            f"the new jobs cost {pluralize(counts.credits, 'credit')}"
        )
        print_batch_hold(hold)
        print_notes(counts, self.notes)
        if self._resumed_after:
            total = self._progress.counts
            out.print(
                f"the whole file, with the runs before: {total.new:,} new, {total.existing:,} existing, "
                f"{total.rejected:,} rejected; {pluralize(total.credits, 'credit')}"
            )
        if self.rejected_file is not None:
            print_note(f"rejected rows and reasons: {self.rejected_file}")
        print_kept_file(self.kept_file)

    def _json(self, counts: IngestCounts, stopped: IngestStoppedError | None, hold: str | None) -> dict[str, Any]:
        return {
            **_counts(counts),
            "warned_rows": [note.as_dict() for note in self.notes.warnings],
            "rejected_file": str(self.rejected_file) if self.rejected_file else None,
            "kept_file": str(self.kept_file) if self.kept_file else None,
            "resumed_after": self._resumed_after or None,
            "file": _counts(self._progress.counts),
            "stopped": stopped.code if stopped else None,
            "batch_hold": hold,
        }


def _counts(counts: IngestCounts) -> dict[str, Any]:
    return {
        "new": counts.new,
        "existing": counts.existing,
        "rejected": counts.rejected,
        "reasons": counts.reasons,
        "warnings": counts.warnings,
        "credits": counts.credits,
    }
