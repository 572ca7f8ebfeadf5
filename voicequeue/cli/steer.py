"""`pause`, `resume`, `limits`, `credits`: steer the queue while it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from voicequeue.cli.show import clock
from voicequeue.cli.terminal import AsJson, BatchOption, out, print_json, queue, safe
from voicequeue.domain.gate import SUBMIT_RATE_MIN, Limits
from voicequeue.domain.job import iso
from voicequeue.domain.stage import Stage
from voicequeue.errors import checked
from voicequeue.texts import whole

StageOption = Annotated[Stage | None, typer.Option(help="Only this stage.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(pause)
    app.command()(resume)
    app.command()(limits)
    app.command()(credits)


def pause(
    stage: StageOption = None,
    batch: BatchOption = None,
    why: Annotated[str, typer.Option(help="Told to whoever asks.")] = "",
    as_json: AsJson = False,
) -> None:
    """Charge nothing more till `resume`: of anything, of one stage, or of one batch. What is in flight is polled."""
    _one_of(stage, batch)
    checked("why", whole, why)
    with queue() as jobs:
        changed = jobs.pause(stage=stage, batch=batch, by=why)
    _tell(f"{_what(stage, batch)} is paused", changed, as_json=as_json)


def resume(stage: StageOption = None, batch: BatchOption = None, as_json: AsJson = False) -> None:
    """Go on with what was paused, and try at once what is held back for other reasons."""
    _one_of(stage, batch)
    with queue() as jobs:
        changed = jobs.resume(stage=stage, batch=batch)
    _tell(f"{_what(stage, batch)} goes on", changed, as_json=as_json)


def _one_of(stage: Stage | None, batch: str | None) -> None:
    if stage is not None and batch is not None:
        raise typer.BadParameter("give --stage or --batch, not both")


def _what(stage: Stage | None, batch: str | None) -> str:
    if batch is not None:
        return f"batch {batch}"
    return "everything" if stage is None else f"the {stage} stage"


def _tell(what: str, changed: bool, *, as_json: bool) -> None:
    if as_json:
        print_json({"changed": changed})
    else:
        out.print(safe(what if changed else f"{what} already"))


def _rate(value: float | None) -> float | None:
    if value and not value >= SUBMIT_RATE_MIN:
        raise typer.BadParameter(f"{value:g} is below {SUBMIT_RATE_MIN}; 0 is any")
    return value


def limits(
    in_flight: Annotated[int | None, typer.Option(min=1, help="Jobs with upstream at once, at most.")] = None,
    submit_rate: Annotated[float | None, typer.Option(callback=_rate, help="POSTs a minute; 0 is any.")] = None,
    credit_floor: Annotated[int | None, typer.Option(min=0, help="Credits that are not touched.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the workers' settings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the limits, or set them for all workers, now."""
    given = {"in_flight": in_flight, "submit_rate": submit_rate, "credit_floor": credit_floor}
    changes = given if reset else {name: value for name, value in given.items() if value is not None}
    with queue() as jobs:
        now = jobs.set_limits(**changes) if changes else jobs.limits()
        found = jobs.status().limit
    if as_json:
        print_json({**_limits_json(now), "in_flight_now": found})
        return
    rate = f"{now.submit_rate:g} POSTs a minute" if now.submit_rate else "as many POSTs a minute as upstream takes"
    out.print(f"in flight     {found:,} now, at most {now.in_flight:,}\nsubmit rate   {rate}")
    out.print(f"credit floor  {now.credit_floor:,}\nWhat is not set here follows the workers' settings.")


def _limits_json(now: Limits) -> dict[str, Any]:
    return {"in_flight": now.in_flight, "submit_rate": now.submit_rate, "credit_floor": now.credit_floor}


def credits(as_json: AsJson = False) -> None:
    """The account: what is left, what is promised to jobs in flight and unsure ones, what was spent, what left it
    uncounted."""
    with queue() as jobs:
        now = jobs.status()
        floor = jobs.limits().credit_floor
    account = now.account
    if as_json:
        print_json(
            {
                "left": account.left,
                "at": iso(account.at),
                "committed": account.committed,
                "floor": floor,
                "today": account.spent_today,
                "spent": now.credits,
                "unexplained": account.drift.unexplained if account.drift else 0,
            }
        )
        return
    left = "not known: no worker has asked yet"
    if account.left is not None:
        left = f"{account.left:,}, as upstream said at {clock(account.at)} less what was spent since"
    out.print(f"left       {left}")
    out.print(f"committed  {account.committed:,} to jobs in flight or unsure")
    out.print(f"spent      {account.spent_today:,} today (UTC), {now.credits:,} in all")
    if account.drift:
        since = clock(account.drift.since)
        out.print(f"uncounted  {account.drift.unexplained:,} since {since}: {account.drift}", soft_wrap=True)
