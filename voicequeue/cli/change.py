"""`retry` and `cancel`: change what becomes of jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.show import print_job
from voicequeue.cli.terminal import AsJson, Yes, complain, out, print_json, queue
from voicequeue.domain import transitions
from voicequeue.domain.job import Code, Job, State
from voicequeue.domain.stage import PRICES


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(retry)
    app.command()(cancel)


def retry(
    job_id: Annotated[str | None, typer.Argument(help="One failed job.", show_default=False)] = None,
    batch: Annotated[str | None, typer.Option(help="Failed jobs of this batch.")] = None,
    code: Annotated[Code | None, typer.Option(help="Jobs that failed with this code.")] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Order anew, and pay, also where upstream could be asked again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many, and what it costs.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let failed jobs go on where they stopped; what has a result is not bought again."""
    if (job_id is None) == (batch is None and code is None):
        raise typer.BadParameter("give either a job's id, or --batch or --code")
    with queue() as jobs:
        # A frozen list: jobs that fail from now on are not meant.
        if job_id is not None:
            failed = [_failed(jobs.get(job_id))]
        else:
            failed = [job for job in jobs.jobs(state=State.FAILED, batch=batch) if code in (None, _code(job))]
        cost = sum(transitions.cost(job, resubmit=resubmit) for job in failed)
        if dry_run or not failed:
            _tell(len(failed), 0, cost, as_json=as_json)
            return
        again = sum(PRICES[job.stage] for job in failed if transitions.pays_again(job, resubmit=resubmit))
        if not yes and (job_id is None or again):
            _confirm_retry(len(failed), cost, again)
        retried = sum(jobs.retry_as_read(failed, resubmit=resubmit))
        if job_id is not None:
            print_job(jobs.get(job_id), as_json=as_json)
            raise typer.Exit(int(not retried))
    _tell(len(failed), retried, cost, as_json=as_json)


def _failed(job: Job) -> Job:
    """The job, if it can be retried. Raises NotAllowed."""
    transitions.retry(job, job.updated_at)
    return job


def _confirm_retry(count: int, cost: int, again: int) -> None:
    of_it = f", {again:,} of them for what was paid before" if again else ""
    typer.confirm(f"retry {count:,} jobs, for up to {cost:,} credits{of_it}?", abort=True, err=True)


def _code(job: Job) -> Code | None:
    return job.failure.code if job.failure else None


def _tell(found: int, retried: int, cost: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"found": found, "retried": retried, "credits": cost})
    else:
        out.print(f"{found:,} failed jobs found, {retried:,} retried; up to {cost:,} credits")


def cancel(
    job_id: Annotated[str | None, typer.Argument(help="One job.", show_default=False)] = None,
    batch: Annotated[str | None, typer.Option(help="Every job of this batch that is not over.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs. What was paid stays paid; its result is kept if it still comes. A job whose order is on its way, or
    may have been charged, is cancelled as soon as that is known: no further stage is ordered for it."""
    if (job_id is None) == (batch is None):
        raise typer.BadParameter("give either a job's id, or --batch")
    if job_id is None:
        _cancel_batch(batch or "", dry_run=dry_run, yes=yes, as_json=as_json)
        return
    with queue() as jobs:
        cancelled = jobs.cancel(job_id)
    print_job(cancelled, as_json=as_json)
    if cancelled.cancelling:
        complain(f"{_UNDER_WAY[cancelled.state]}: cancelled as soon as that is known, and no further stage is ordered")
    elif cancelled.may_still_come:
        complain(f"upstream goes on with its {cancelled.stage}, which was paid; what comes is kept on the job")


#: What is said of a job that can only be marked.
_UNDER_WAY = {
    State.CHARGING: "its order is on its way to upstream",
    State.UNSURE: "its order may have been charged (voicequeue review)",
}


def _cancel_batch(batch: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    with queue() as jobs:
        # A frozen list: jobs that come from now on are not meant.
        found = [job for job in jobs.jobs(batch=batch) if transitions.can_be_cancelled(job)]
        paid = sum(job.state is State.PENDING for job in found)
        if found and not (dry_run or yes):
            question = f"cancel {len(found):,} jobs, {paid:,} of them with upstream, which were paid?"
            typer.confirm(question, abort=True, err=True)
        done = found if dry_run else jobs.cancel_as_read(found)
    cancelled = sum(job.state is State.CANCELLED for job in done)
    under_way = sum(job.state in transitions.UNDER_WAY for job in done)
    if as_json:
        marked = 0 if dry_run else under_way
        print_json({"found": len(found), "cancelled": cancelled, "marked": marked, "paid": paid})
        return
    out.print(f"{len(found):,} jobs found that are not over, {cancelled:,} cancelled; {paid:,} are with upstream")
    if under_way:
        would = "would be" if dry_run else "will be"
        out.print(f"{under_way:,} are being charged or unsure: no further stage {would} ordered for them")
