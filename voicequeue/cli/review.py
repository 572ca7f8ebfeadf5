"""`review`: jobs that may or may not have been charged."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.jobs import print_job
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    Yes,
    argument,
    coloured,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    plain_table,
    print_json,
)
from voicequeue.domain.balance import BalanceWindow
from voicequeue.domain.charge_review import ChargeReview
from voicequeue.domain.job import Job
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State


def review(
    job_id: Annotated[
        str | None,
        argument(
            "JOB_ID",
            help="An unsure job; with --task-id also a job whose lost order was resubmitted or given up.",
        ),
    ] = None,
    task_id: Annotated[str | None, option("ID", help="Confirm the charge, by the id of its upstream task.")] = None,
    resubmit: Annotated[bool, flag("--resubmit", help="Submit the order again; it may be charged twice.")] = False,
    abandon: Annotated[bool, flag("--abandon", help="Give up the job; it fails as abandoned.")] = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List jobs that may or may not have been charged, or settle one."""
    actions = [bool(task_id), resubmit, abandon]
    if sum(actions) > 1 or (job_id is None) == any(actions):
        raise typer.BadParameter("give a job id with one of --task-id, --resubmit and --abandon, or nothing")
    with open_queue(reason=reason) as jobs:
        if job_id is None:
            _list(list(jobs.charge_reviews()), as_json=as_json)
            return
        if task_id:
            job = jobs.confirm_charged(job_id, task_id)
        elif abandon:
            job = jobs.abandon(job_id)
        else:
            _confirm(jobs.get(job_id), yes=yes)
            job = jobs.resubmit(job_id)
        print_job(job, as_json=as_json)


def _confirm(job: Job, *, yes: bool) -> None:
    if not yes:
        price = PRICES[job.stage]
        question = f"submit the {job.stage} of job {job.id} again? If it was charged, it costs {price} credits more"
        typer.confirm(question, abort=True, err=True)


def _list(reviews: list[ChargeReview], *, as_json: bool) -> None:
    if as_json:
        print_json([review.as_dict() for review in reviews])
        return
    if not reviews:
        out.print("no unsure jobs")
        return
    table = plain_table("id", "stage", "at stake", "since", "reason", "account", "batch")
    for review in reviews:
        job, last = review.job, review.last_entry
        price = f"{review.credits_at_stake} credits"
        row = (
            job.id,
            job.stage,
            price,
            format_time(last.at),
            escape_untrusted(last.reason),
            _account(review.balance_window),
        )
        table.add_row(*row, escape_untrusted(job.qualified_batch))
    out.print(table)
    for review in reviews:
        if review.job.unreadable_response:
            out.print(
                f"{review.job.id} got this response: {escape_untrusted(review.job.unreadable_response)}", soft_wrap=True
            )
    out.print(
        "\nSettle each with [bold]voicequeue review ID[/] and --task-id X (upstream has it), --resubmit or --abandon. "
        "Unless VOICEQUEUE_UNSURE_POLICY is resubmit, they are not submitted again automatically; "
        f"a webhook makes its job {coloured(State.PENDING)}."
    )
    if any(review.balance_window for review in reviews):
        out.print(
            "Account: the balance before and after, and the difference that no record explains. "
            "If it is 0, none of the orders of that time was charged."
        )


def _account(window: BalanceWindow | None) -> str:
    if window is None:
        return "unknown"
    return f"{window.before.credits:,} → {window.after.credits:,}, {window.unexplained:,} unexplained"
