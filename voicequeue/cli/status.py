"""`status`: an overview of the queue or of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voicequeue.cli.limits import batch_limits
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    coloured,
    escape_untrusted,
    format_duration,
    format_time,
    in_brackets,
    open_queue,
    out,
    print_json,
)
from voicequeue.domain.gate import Account, Hold
from voicequeue.domain.job_holds import BacklogHold
from voicequeue.domain.status import ArchiveCounts, Batch, CallbackCounts, RefusedJob, Status, by_priority
from voicequeue.domain.stop_loss import failures_text
from voicequeue.texts import pluralize

#: Refused jobs, stopped batches and holds of the backlog that are listed; the others are counted.
REFUSED_SHOWN, STOPPED_SHOWN, HOLDS_SHOWN = 5, 5, 5


def status(batch: BatchOption = None, as_json: AsJson = False) -> None:
    """Show an overview of the queue, or of one batch."""
    with open_queue() as jobs:
        overview = jobs.status(batch)
        details = jobs.batch(batch) if batch else None
    if as_json:
        print_json({**overview.as_dict(batch), **(_batch_json(details) if details else {})})
        return
    print_status(overview, batch)
    if details and (limits := batch_limits(details)):
        out.print(f"the batch  {limits}")


def _batch_json(batch: Batch) -> dict[str, Any]:
    """Return what the status of a batch has in addition."""
    return {**batch.limits_dict(), "stopped": batch.stop.as_dict() if batch.stop else None}


def print_status(status: Status, batch: str | None) -> None:
    """Print the overview of the queue, or of one batch."""
    counts = "  ".join(f"{coloured(state)} {count:,}" for state, count in status.states.items() if count)
    out.print(f"[bold]{escape_untrusted(batch) if batch else 'all jobs'}[/]  {counts or 'no jobs yet'}")
    _print_stopped(status.stopped_batches)
    if status.gate.is_open:
        out.print("gate       [green]open[/]")
    for hold in status.gate.holds:
        closed = "[yellow]on trial[/]" if hold.is_on_trial else "[red]closed[/]"
        out.print(f"gate       {closed}: {escape_untrusted(hold.reason)}{_until(hold)}{in_brackets(hold.detail)}")
    _print_refused(status.refused_jobs)
    for priority, lanes in by_priority(status.backlog):
        oldest = format_duration(status.at - min(lane.oldest_at for lane in lanes))
        out.print(f"backlog    {priority} {sum(lane.count for lane in lanes):,}, oldest waiting {oldest}")
    _print_holds(status.backlog_holds)
    remaining = f", about {format_duration(status.seconds_left)} left" if status.seconds_left else ""
    spent = f"{status.credits:,} spent {'by this batch' if batch else 'in total'}"
    in_flight = f"{status.in_flight:,} of {status.in_flight_limit:,}"
    out.print(f"in flight  {in_flight}; {status.jobs_per_minute:,.1f} jobs/min{remaining}")
    out.print(f"credits    {_account(status.account)}; {spent}")
    if status.account.uncounted:
        out.print(f"           [yellow]{status.account.uncounted}[/]")
    if status.failures:
        out.print(f"failed     {failures_text(status.failures)}")
    if status.rejected_messages:
        out.print(f"rejected   {pluralize(status.rejected_messages, 'message')}, see: voicequeue rejects")
    if status.callbacks.pending or status.callbacks.undelivered:
        out.print(f"callbacks  {_callbacks(status.callbacks)}")
    if status.archive.pending or status.archive.failed:
        out.print(f"archive    {_archive(status.archive)}")
    out.print(f"workers    {f'{status.workers} alive' if status.workers else '[red]none alive[/]'}")


def _print_stopped(batches: Sequence[Batch]) -> None:
    """Print the batches that have stopped themselves, and why."""
    for batch in batches[:STOPPED_SHOWN]:
        reason = batch.stop.reason.removeprefix("stopped: ") if batch.stop else ""
        out.print(f"stopped    [red]batch {escape_untrusted(batch.qualified_name)}[/]: {reason}")
    if len(batches) > STOPPED_SHOWN:
        more = pluralize(len(batches) - STOPPED_SHOWN, "more batch", "more batches")
        out.print(f"stopped    {more}, see: voicequeue batches")


def _print_holds(holds: Sequence[BacklogHold]) -> None:
    """Print why queued jobs are not admitted although the gate is open."""
    for entry in holds[:HOLDS_SHOWN]:
        out.print(f"held       [yellow]{pluralize(entry.jobs, 'job')}[/]: {escape_untrusted(entry.hold.detail)}")
    if len(holds) > HOLDS_SHOWN:
        out.print(f"held       {pluralize(len(holds) - HOLDS_SHOWN, 'more reason')}, see: voicequeue status --json")


def _print_refused(jobs: Sequence[RefusedJob]) -> None:
    """Print the jobs that upstream refuses while it accepts others."""
    for job in jobs[:REFUSED_SHOWN]:
        message = in_brackets(job.message)
        out.print(
            f"refused    job {job.job_id}, {pluralize(job.refusals, 'time')} while others are accepted{message}; "
            f"next attempt {format_time(job.next_attempt_at)}"
        )
    if len(jobs) > REFUSED_SHOWN:
        out.print(f"refused    {pluralize(len(jobs) - REFUSED_SHOWN, 'more job')}")


def _callbacks(counts: CallbackCounts) -> str:
    missing = "" if counts.workers or not counts.pending else " [red]and no worker to deliver them[/]"
    return f"{counts.pending:,} pending{missing}, {counts.undelivered:,} undelivered, see: voicequeue callbacks"


def _archive(counts: ArchiveCounts) -> str:
    missing = "" if counts.workers or not counts.pending else " [red]and no worker to archive them[/]"
    return f"{pluralize(counts.pending, 'job')} pending{missing}, {counts.failed:,} failed, see: voicequeue archive"


def _until(hold: Hold) -> str:
    if hold.is_on_trial:
        return ", one job at a time is tried"
    return f" until {format_time(hold.until)}" if hold.until else ""


def _account(account: Account) -> str:
    if account.balance is None:
        return f"balance not known yet; {account.spent_today:,} spent today"
    uses = {"reserved for jobs in flight or unsure": account.reserved, "for queued jobs": account.queued_credits}
    planned = in_brackets(", ".join(f"{credits:,} {use}" for use, credits in uses.items() if credits))
    return f"{account.balance:,} left{planned}; {account.spent_today:,} spent today"
