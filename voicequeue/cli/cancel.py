"""`cancel`: cancel a job or a batch."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.jobs import print_job
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    Yes,
    argument,
    batch_option,
    confirm,
    flag,
    open_queue,
    out,
    print_error,
    print_json,
    print_note,
)
from voicequeue.client.bulk_operations import BulkAction
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.search import Filter
from voicequeue.domain.states import State
from voicequeue.domain.transitions import require_cancellable
from voicequeue.texts import pluralize

#: Why a job can only be marked.
_UNDER_WAY = {
    State.CHARGING: "its order is being submitted",
    State.UNSURE: "its order may have been charged (voicequeue review)",
}


def cancel(
    job_id: Annotated[str | None, argument("JOB_ID", help="Id of the job to cancel.")] = None,
    batch: Annotated[str | None, batch_option("Cancel all jobs of this batch that have not settled.")] = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Print the number of jobs; change nothing.")] = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel a job, or all jobs of a batch.

    Paid orders are not refunded; if their result still arrives, it is kept. A job that is charging or unsure is
    cancelled as soon as the outcome of its order is known; no further stage is submitted for it.
    """
    if (job_id is None) == (batch is None):
        raise typer.BadParameter("give a job id or --batch")
    with open_queue(reason=reason) as jobs:
        if job_id is not None:
            _cancel_one(jobs, job_id, dry_run=dry_run, as_json=as_json)
        else:
            _cancel_batch(jobs, Filter(batch=batch), dry_run=dry_run, yes=yes, as_json=as_json)


def _cancel_one(jobs: VoiceQueue, job_id: str, *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        print_job(require_cancellable(jobs.get(job_id)), as_json=as_json)
        print_note("dry run, nothing was changed: the job can be cancelled")
        return
    job = jobs.cancel(job_id)
    print_job(job, as_json=as_json)
    if job.is_cancelling:
        print_note(f"{_UNDER_WAY[job.state]}: cancelled as soon as the outcome is known; no further stage is submitted")
    elif job.may_have_late_result:
        print_note(f"upstream still works on its {job.stage}, which was paid for; the result is kept on the job")


def _cancel_batch(jobs: VoiceQueue, matching: Filter, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    plan = jobs.plan_bulk(BulkAction.CANCEL, matching)
    cancelled, marked = 0, 0
    if plan.count and not dry_run:
        paid = f", {plan.submitted:,} of them with an order that was paid for" if plan.submitted else ""
        confirm(f"cancel {pluralize(plan.count, 'job')}{paid}?", yes=yes)
        result = jobs.execute_plan(BulkAction.CANCEL, plan.token)
        cancelled, marked = result.changed, result.cancelling
    if as_json:
        print_json({"count": plan.count, "cancelled": cancelled, "cancelling": marked, "submitted": plan.submitted})
    else:
        _report(plan.count, cancelled, plan.submitted, plan.uncertain if dry_run else marked)
    if not plan.is_complete:
        message = f"more jobs match than one command changes ({plan.count:,}); run it again for the others"
        print_error(message, code="incomplete")
        raise typer.Exit(int(not dry_run))


def _report(count: int, cancelled: int, paid: int, under_way: int) -> None:
    working = f"upstream still works on {pluralize(paid, 'paid order')}"
    out.print(f"{pluralize(count, 'unsettled job')} found, {cancelled:,} cancelled; {working}")
    if under_way:
        are = "is" if under_way == 1 else "are"
        out.print(f"{under_way:,} {are} charging or unsure; no further stage is submitted")
