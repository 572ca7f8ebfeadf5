"""`review`: the jobs of which nobody knows whether they were charged."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.show import clock, print_job
from voicequeue.cli.terminal import AsJson, Yes, coloured, out, plain_table, print_json, queue, safe
from voicequeue.domain.balance import Around
from voicequeue.domain.charge_review import Unsure
from voicequeue.domain.job import Job, State
from voicequeue.domain.stage import PRICES


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(review)


def review(
    job_id: Annotated[
        str | None,
        typer.Argument(
            help="One unsure job; with --task-id also one whose lost order was sent again or given up.",
            show_default=False,
        ),
    ] = None,
    task_id: Annotated[str | None, typer.Option(help="It was charged: upstream's task id.")] = None,
    resubmit: Annotated[bool, typer.Option("--resubmit", help="Order it again; it may be charged twice.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give it up.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List the jobs of which nobody knows whether they were charged, or settle one of them."""
    given = [bool(task_id), resubmit, abandon]
    if sum(given) > 1 or (job_id is None) == any(given):
        raise typer.BadParameter("give a job's id with one of --task-id, --resubmit and --abandon, or nothing")
    with queue() as jobs:
        if job_id is None:
            _list(list(jobs.unsure()), as_json=as_json)
            return
        if task_id:
            settled = jobs.take_up(job_id, task_id)
        elif abandon:
            settled = jobs.abandon(job_id)
        else:
            _confirm(jobs.get(job_id), yes=yes)
            settled = jobs.order_again(job_id)
        print_job(settled, as_json=as_json)


def _confirm(job: Job, *, yes: bool) -> None:
    if not yes:
        question = f"order the {job.stage} of job {job.id} again? If it was charged, {PRICES[job.stage]} credits more"
        typer.confirm(question, abort=True, err=True)


def _list(found: list[Unsure], *, as_json: bool) -> None:
    if as_json:
        print_json([each.as_dict() for each in found])
        return
    if not found:
        out.print("no job is unsure")
        return
    table = plain_table("id", "stage", "at stake", "since", "what happened", "account", "batch")
    for each in found:
        job, last = each.job, each.last
        stake = f"{each.at_stake} credits"
        row = (job.id, job.stage, stake, clock(last.at), safe(last.reason), _account(each.account))
        table.add_row(*row, safe(job.spec.batch or ""))
    out.print(table)
    for each in found:
        if each.job.answer:
            out.print(f"{each.job.id} was answered: {safe(each.job.answer)}", soft_wrap=True)
    out.print(
        "\nSettle each with [bold]voicequeue review ID[/] --task-id X (upstream has it), --resubmit or --abandon. "
        f"None of them is sent again by itself; a webhook settles its job ({coloured(State.PENDING)})."
    )
    if any(each.account for each in found):
        out.print(
            "The account: credits before and after, and what left it meanwhile without a record that knows of it. "
            "Nothing: none of the orders of that time was charged."
        )


def _account(seen: Around | None) -> str:
    if seen is None:
        return "nothing known"
    return f"{seen.before.credits:,} → {seen.after.credits:,}, {seen.unexplained:,} unexplained"
