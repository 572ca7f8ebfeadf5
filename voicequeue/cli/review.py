"""`review`: jobs that may or may not have been charged."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.jobs import print_job
from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    Yes,
    argument,
    coloured,
    confirm,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json_list,
    refuse,
)
from voicequeue.domain.balance import BalanceWindow
from voicequeue.domain.charge_review import ChargeReview
from voicequeue.domain.job import Job
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State
from voicequeue.texts import pluralize


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
    limit: Limit = None,
    all: All = False,
    reason: Reason = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List jobs that may or may not have been charged, or settle one."""
    actions = [bool(task_id), resubmit, abandon]
    if sum(actions) > 1 or (job_id is None) == any(actions):
        raise typer.BadParameter("give a job id with one of --task-id, --resubmit and --abandon, or nothing")
    if job_id is None:
        refuse("on a list", reason=reason, yes=yes)
    else:
        refuse("on one job", limit=limit, all=all)
    count = limit_of(limit, is_all=all)
    with open_queue(reason=reason) as jobs:
        if job_id is None:
            listing = Listing(jobs.charge_reviews(), count)
            _list(listing, as_json=as_json)
            listing.note_rest("unsure job", lambda: jobs.status().states[State.UNSURE])
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
    price = PRICES[job.stage]
    question = f"submit the {job.stage} of job {job.id} again? If it was charged, it costs {price} credits more"
    confirm(question, yes=yes)


_COLUMNS = (
    Column("id"),
    Column("stage", rank=2),
    Column("at stake", rank=1),
    Column("since", rank=3),
    Column("reason", rank=4, min_width=12),
    Column("account", rank=6),
    Column("batch", rank=5),
)


def _list(listing: Listing[ChargeReview], *, as_json: bool) -> None:
    if as_json:
        print_json_list(review.as_dict() for review in listing)
        return
    reviews = list(listing)
    if not reviews:
        out.print("no unsure jobs")
        return
    print_table(_COLUMNS, map(_row, reviews))
    for review in reviews:
        if review.job.unreadable_response:
            out.print(f"{review.job.id} got this response: {escape_untrusted(review.job.unreadable_response)}")
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


def _row(review: ChargeReview) -> tuple[str, ...]:
    job, last = review.job, review.last_entry
    price = pluralize(review.credits_at_stake, "credit")
    account = _account(review.balance_window)
    return (job.id, job.stage, price, format_time(last.at), last.reason, account, job.qualified_batch)


def _account(window: BalanceWindow | None) -> str:
    if window is None:
        return "unknown"
    return f"{window.before.credits:,} → {window.after.credits:,}, {window.unexplained:,} unexplained"
