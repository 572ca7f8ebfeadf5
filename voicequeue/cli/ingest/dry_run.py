"""`ingest --dry-run`: what ingesting a file would do, without enqueueing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voicequeue.cli.ingest.budget import Budget
from voicequeue.cli.ingest.enqueuer import Input, StopRules
from voicequeue.cli.ingest.errors import IngestStoppedError, TooManyRejectedError
from voicequeue.cli.ingest.intake import Item
from voicequeue.cli.ingest.notes import Notes, print_notes
from voicequeue.cli.ingest.outcomes import Outcome, preview
from voicequeue.cli.ingest.rejects import RejectsFile
from voicequeue.cli.ingest.report import print_batch_hold, print_kept_file
from voicequeue.cli.terminal import format_duration, out, print_error, print_json
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.portions import Weight, split_into_portions
from voicequeue.ingest.checkpoint import IngestCounts
from voicequeue.texts import pluralize


@dataclass(slots=True)
class DryRunResult:
    """The result that ingesting would have; `stopped`: the error that would stop it; `hold`: why its batch waits."""

    counts: IngestCounts = field(default_factory=IngestCounts)
    notes: Notes = field(default_factory=Notes)
    stopped: IngestStoppedError | None = None
    rejected_file: Path | None = None
    kept_file: Path | None = None
    hold: str | None = None


def run(
    items: Iterator[Item], jobs: VoiceQueue, rejects: RejectsFile, rules: StopRules, *, earlier: IngestCounts
) -> DryRunResult:
    """Return the result that ingesting the items would have, and write the rejected rows.

    `earlier` are the rows that are done, if the run would resume another.
    """
    result = DryRunResult()
    outcomes = Input(preview(items, jobs))
    for chunk in split_into_portions(outcomes, _weight, jobs=rules.chunk):
        rejected = [outcome for outcome in chunk if outcome.error is not None]
        try:
            if rules.max_rejected is not None:
                rows = earlier.rows + result.counts.rows + len(chunk)
                total = earlier.rejected + result.counts.rejected + len(rejected)
                rules.max_rejected.check(total, rows, is_end=outcomes.is_at_end)
        except TooManyRejectedError as error:
            _add(rejected, result, rejects)
            result.stopped = error
            break
        _add(chunk, result, rejects)
    return result


def _weight(outcome: Outcome) -> Weight:
    return outcome.item.weight


def _add(outcomes: list[Outcome], result: DryRunResult, rejects: RejectsFile) -> None:
    for outcome in outcomes:
        outcome.add_to(result.counts)
        if outcome.error is not None:
            result.notes.reject(outcome.item.row, str(outcome.error))
            rejects.add(outcome.item.row, outcome.error)
        else:
            result.notes.warn(outcome.item, result.counts)


def report(result: DryRunResult, budget: Budget, *, as_json: bool) -> None:
    """Print the result."""
    if as_json:
        print_json(_json(result, budget))
    else:
        _print(result, budget)
    if result.stopped is not None:
        print_error(f"stopped: {result.stopped}", code=result.stopped.code)


def _print(result: DryRunResult, budget: Budget) -> None:
    counts = result.counts
    out.print(
        f"dry run, nothing was enqueued: [green]{counts.new:,} new[/], {counts.existing:,} existing, "
        f"{counts.rejected:,} rejected"
    )
    print_batch_hold(result.hold)
    print_notes(counts, result.notes)
    if result.rejected_file is not None:
        out.print(f"rejected   all rejected rows and reasons: {result.rejected_file}")
    print_kept_file(result.kept_file)
    out.print(f"credits    the new jobs will cost {counts.credits:,}; {budget.explanation(counts.credits)}")
    out.print(f"time       {_duration(counts.new, budget)}")


def _duration(new: int, budget: Budget) -> str:
    seconds = budget.seconds(new)
    if seconds is None:
        reason = "none has succeeded in the last minutes" if budget.unsettled else "an idle queue has no pace"
        return f"unknown until jobs finish: {reason}"
    existing = pluralize(budget.unsettled, "existing job")
    pace = f"{budget.status.jobs_per_minute:,.1f} jobs/min"
    return f"about {format_duration(seconds)} at the current {pace}, after {existing}"


def _json(result: DryRunResult, budget: Budget) -> dict[str, Any]:
    counts, account = result.counts, budget.status.account
    return {
        "new": counts.new,
        "existing": counts.existing,
        "rejected": counts.rejected,
        "reasons": counts.reasons,
        "warnings": counts.warnings,
        "problems": [note.as_dict() for note in result.notes.problems],
        "warned_rows": [note.as_dict() for note in result.notes.warnings],
        "rejected_file": str(result.rejected_file) if result.rejected_file else None,
        "kept_file": str(result.kept_file) if result.kept_file else None,
        "stopped": result.stopped.code if result.stopped else None,
        "batch_hold": result.hold,
        "credits": counts.credits,
        "balance": account.balance,
        "balance_at": to_iso8601(account.updated_at),
        "credits_reserved": account.reserved,
        "credits_queued": account.queued_credits,
        "credits_needed": budget.needed,
        "credits_stopped": budget.stopped,
        "min_balance": budget.min_balance,
        "is_affordable": budget.suffices(counts.credits),
        "unsettled": budget.unsettled,
        "jobs_per_minute": budget.status.jobs_per_minute,
        "seconds": budget.seconds(counts.new),
    }
