"""`retry`: retry failed jobs."""

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
    option,
    out,
    print_error,
    print_json,
)
from voicequeue.client.bulk_operations import BulkAction
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.search import Filter
from voicequeue.domain import transitions
from voicequeue.domain.spec import recording_url
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import FailureCode
from voicequeue.errors import InvalidStateError, check_field
from voicequeue.texts import pluralize


def retry(
    job_id: Annotated[str | None, argument("JOB_ID", help="Id of the failed job to retry.")] = None,
    batch: Annotated[str | None, batch_option("Retry all failed jobs of this batch.")] = None,
    code: Annotated[
        FailureCode | None, option("CODE", help=f"Retry jobs that failed with this code: {', '.join(FailureCode)}.")
    ] = None,
    resubmit: Annotated[
        bool, flag("--resubmit", help="Submit and pay for a new order, even if the last can be polled again.")
    ] = False,
    audio_url: Annotated[
        str | None,
        option("URL", help="URL that replaces the recording of JOB_ID. Only if its voice was never ordered or paid."),
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", help="Print jobs and cost; change nothing.")] = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Retry failed jobs from the stage that failed.

    Stages that have a result are not paid for again. With `--audio-url` the job, and all jobs that share its voice by
    name, get another recording; their keys stay.
    """
    if (job_id is None) == (batch is None and code is None):
        raise typer.BadParameter("give a job id, or --batch, --code or both")
    if audio_url is not None and job_id is None:
        raise typer.BadParameter("give the id of the job that --audio-url is for; it corrects one job at a time")
    with open_queue(reason=reason) as jobs:
        if job_id is not None:
            _retry_one(jobs, job_id, audio_url=audio_url, resubmit=resubmit, dry_run=dry_run, yes=yes, as_json=as_json)
        else:
            matching = Filter(batch=batch, code=code)
            _retry_many(jobs, matching, resubmit=resubmit, dry_run=dry_run, yes=yes, as_json=as_json)


def _retry_one(
    jobs: VoiceQueue, job_id: str, *, audio_url: str | None, resubmit: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    job = jobs.get(job_id)
    transitions.retry(job, job.updated_at)  # raises InvalidStateError
    if audio_url is not None:
        check_field("audio_url", recording_url, audio_url.strip())
        transitions.require_correctable(job)
    cost = transitions.retry_cost(job, resubmit=resubmit)
    if dry_run:
        _report(1, 0, cost, as_json=as_json)
        return
    if transitions.pays_again(job, resubmit=resubmit) and not yes:
        _confirm(1, cost, PRICES[job.stage], yes=yes)
        if jobs.get(job_id).version != job.version:
            raise InvalidStateError(f"job {job_id} has changed since you were asked; run the command again")
    print_job(jobs.retry(job_id, resubmit=resubmit, audio_url=audio_url), as_json=as_json)


def _retry_many(jobs: VoiceQueue, matching: Filter, *, resubmit: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    plan = jobs.plan_bulk(BulkAction.RETRY, matching, resubmit=resubmit)
    retried = 0
    if plan.count and not dry_run:
        _confirm(plan.count, plan.max_credits, plan.repeat_credits, yes=yes)
        retried = jobs.execute_plan(BulkAction.RETRY, plan.token).changed
    _report(plan.count, retried, plan.max_credits, as_json=as_json)
    if not plan.is_complete:
        message = f"more jobs match than one command changes ({plan.count:,}); run it again for the others"
        print_error(message, code="incomplete")
        raise typer.Exit(int(not dry_run))


def _confirm(count: int, cost: int, paid_again: int, *, yes: bool) -> None:
    again = f", {paid_again:,} of them for stages that were paid for before" if paid_again else ""
    confirm(f"retry {pluralize(count, 'job')}, for up to {pluralize(cost, 'credit')}{again}?", yes=yes)


def _report(count: int, retried: int, cost: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"count": count, "retried": retried, "max_credits": cost})
    else:
        out.print(f"{pluralize(count, 'failed job')} found, {retried:,} retried; up to {pluralize(cost, 'credit')}")
