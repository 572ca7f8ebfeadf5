"""`review`: the jobs of which nobody knows whether they were charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from voicequeue.balance import Around, Balance, around
from voicequeue.cli.show import clock, print_job
from voicequeue.cli.terminal import AsJson, Yes, coloured, out, plain_table, print_json, queue, safe
from voicequeue.job import Job, State, Step, iso
from voicequeue.queue import VoiceQueue
from voicequeue.stage import PRICES


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(review)


def review(
    job_id: Annotated[str | None, typer.Argument(help="One unsure job.", show_default=False)] = None,
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
            _list(_unsure(jobs), as_json=as_json)
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


@dataclass(frozen=True, slots=True)
class Unsure:
    """One of them, with what is known: its last step, and the account before and after."""

    job: Job
    last: Step
    account: Around | None

    def as_dict(self) -> dict[str, Any]:
        """What scripts may rely on."""
        return {
            **self.job.as_dict(),
            "reason": self.last.reason,
            "since": iso(self.last.at),
            "at_stake": PRICES[self.job.stage],
            "credits_before": self.account.before.credits if self.account else None,
            "credits_after": self.account.after.credits if self.account else None,
            "credits_unexplained": self.account.unexplained if self.account else None,
        }


def _unsure(jobs: VoiceQueue) -> list[Unsure]:
    balances = jobs.balances()
    return [_known(job, jobs.timeline(job.id), balances) for job in jobs.jobs(state=State.UNSURE)]


def _known(job: Job, timeline: Sequence[Step], balances: Sequence[Balance]) -> Unsure:
    charging, last = timeline[-2:]
    return Unsure(job, last, around(balances, charging.at, last.at))


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
        stake = f"{PRICES[job.stage]} credits"
        row = (job.id, job.stage, stake, clock(last.at), safe(last.reason), _account(each.account))
        table.add_row(*row, safe(job.spec.batch or ""))
    out.print(table)
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
