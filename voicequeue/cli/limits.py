"""`limits` and `credits`: the limits of the queue, and the account."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from voicequeue.cli.terminal import AsJson, flag, format_time, open_queue, option, out, print_json
from voicequeue.domain.gate import SUBMIT_RATE_MIN, Limits
from voicequeue.domain.job import to_iso8601


def _rate(value: float | None) -> float | None:
    if value and not value >= SUBMIT_RATE_MIN:
        raise typer.BadParameter(f"{value:g} is below {SUBMIT_RATE_MIN}; 0 means unlimited")
    return value


def limits(
    in_flight: Annotated[int | None, option("N", min=1, help="Jobs in flight at once.")] = None,
    submit_rate: Annotated[
        float | None, option("N", callback=_rate, help="Orders submitted per minute; 0: unlimited.")
    ] = None,
    min_balance: Annotated[int | None, option("N", min=0, help="Minimum balance; submission stops below it.")] = None,
    reset: Annotated[bool, flag("--reset", help="Return to the workers' settings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the limits, or set them for all workers at once."""
    options = {"in_flight": in_flight, "submit_rate": submit_rate, "min_balance": min_balance}
    changes = options if reset else {name: value for name, value in options.items() if value is not None}
    with open_queue() as jobs:
        current = jobs.set_limits(**changes) if changes else jobs.limits()
        slots = jobs.status().in_flight_limit
    if as_json:
        print_json({**_limits_json(current), "in_flight_now": slots})
        return
    rate = f"{current.submit_rate:g} orders per minute" if current.submit_rate else "unlimited"
    out.print(f"in flight     {slots:,} now, at most {current.in_flight:,}\nsubmit rate   {rate}")
    out.print(f"min balance   {current.min_balance:,}\nLimits not set here are those of the workers' settings.")


def _limits_json(limits: Limits) -> dict[str, Any]:
    return {"in_flight": limits.in_flight, "submit_rate": limits.submit_rate, "min_balance": limits.min_balance}


def credits(as_json: AsJson = False) -> None:
    """Show the account: balance, reserved, spent and unexplained credits."""
    with open_queue() as jobs:
        status = jobs.status()
        min_balance = jobs.limits().min_balance
    account = status.account
    if as_json:
        print_json(
            {
                "balance": account.balance,
                "balance_at": to_iso8601(account.updated_at),
                "reserved": account.reserved,
                "min_balance": min_balance,
                "today": account.spent_today,
                "spent": status.credits,
                "unexplained": account.uncounted.unexplained if account.uncounted else 0,
            }
        )
        return
    balance = "unknown: no worker has checked it yet"
    if account.balance is not None:
        balance = f"{account.balance:,} (checked {format_time(account.updated_at)}, less what was spent since)"
    out.print(f"balance    {balance}")
    out.print(f"reserved   {account.reserved:,} for jobs in flight or unsure")
    out.print(f"spent      {account.spent_today:,} today (UTC), {status.credits:,} in total")
    if account.uncounted:
        since = format_time(account.uncounted.since)
        out.print(f"unexplained {account.uncounted.unexplained:,} since {since}: {account.uncounted}", soft_wrap=True)
