"""`limits` and `credits`: the limits of the queue, and the account."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Annotated

import typer

from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    StopAfter,
    batch_option,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json,
    refuse,
)
from voicequeue.domain.gate import SUBMIT_RATE_MIN
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.spec import qualified_batch_name
from voicequeue.domain.status import Batch
from voicequeue.domain.stop_loss import STOP_MIN, BatchLimitChanges, percent
from voicequeue.errors import BatchNotFoundError, check_field
from voicequeue.texts import pluralize


def _rate(value: float | None) -> float | None:
    if value and not value >= SUBMIT_RATE_MIN:
        raise typer.BadParameter(f"{value:g} is below {SUBMIT_RATE_MIN}; 0 means unlimited")
    return value


def limits(
    batch: Annotated[str | None, batch_option("Set the limits of this batch.")] = None,
    in_flight: Annotated[int | None, option("N", min=1, help="Jobs in flight at once.")] = None,
    submit_rate: Annotated[
        float | None, option("N", callback=_rate, help="Orders submitted per minute; 0: unlimited.")
    ] = None,
    min_balance: Annotated[int | None, option("N", min=0, help="Minimum balance; submission stops below it.")] = None,
    max_credits: Annotated[int | None, option("N", min=0, help="Credits that the batch may spend.")] = None,
    max_in_flight: Annotated[int | None, option("N", min=1, help="Jobs of the batch in flight at once.")] = None,
    stop_after: StopAfter = None,
    stop_min: Annotated[
        int | None, option("N", min=1, help=f"Settled jobs that --stop-after needs; {STOP_MIN} if not set.")
    ] = None,
    reset: Annotated[bool, flag("--reset", help="Return to the workers' settings; for a batch, no limits.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Show the limits, or set them for all workers at once.

    With --batch: those of one batch, which need not have jobs yet.
    """
    options = {"in_flight": in_flight, "submit_rate": submit_rate, "min_balance": min_balance}
    unset = inf if reset and batch is not None else None
    of_batch: BatchLimitChanges = {
        "max_credits": unset if max_credits is None else max_credits,
        "max_in_flight": unset if max_in_flight is None else max_in_flight,
        "stop_after": unset if stop_after is None else stop_after,
        "stop_min": unset if stop_min is None else stop_min,
    }
    _check_scope(batch, options if batch is not None else of_batch)
    if not reset and not any(value is not None for value in (*options.values(), *of_batch.values())):
        refuse("without a limit to set", reason=reason)
    if batch is not None:
        _limit_batch(batch, of_batch, reason=reason, as_json=as_json)
        return
    changes = options if reset else {name: value for name, value in options.items() if value is not None}
    with open_queue(reason=reason) as jobs:
        current = jobs.set_limits(**changes) if changes else jobs.limits()
        slots = jobs.status().in_flight_limit
    if as_json:
        print_json({**current.as_dict(), "in_flight_now": slots})
        return
    rate = f"{current.submit_rate:g} orders per minute" if current.submit_rate else "unlimited"
    out.print(f"in flight     {slots:,} now, at most {current.in_flight:,}\nsubmit rate   {rate}")
    out.print(f"min balance   {current.min_balance:,}\nLimits not set here are those of the workers' settings.")


def _check_scope(batch: str | None, other_options: Mapping[str, object]) -> None:
    """Raise BadParameter for an option of the other scope."""
    for name, value in other_options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            needs = "limits the whole queue; leave out --batch" if batch is not None else "needs --batch NAME"
            raise typer.BadParameter(f"{flag} {needs}")


def _limit_batch(name: str, limits: BatchLimitChanges, *, reason: str, as_json: bool) -> None:
    """Set these limits of a batch, and show all of them if it has jobs."""
    check_field("batch", qualified_batch_name, name)
    with open_queue(reason=reason) as jobs:
        is_set = any(value is not None for value in limits.values())
        if is_set:
            jobs.set_batch_limits(name, **limits)
        try:
            batch = jobs.batch(name)
        except BatchNotFoundError:
            if not is_set:
                raise
            batch = None
    if as_json:
        print_json(batch.limits_dict() if batch else {})
    elif batch is None:
        out.print(escape_untrusted(f"The limits of batch {name} are saved; it has no jobs yet."))
    else:
        out.print(escape_untrusted(f"batch {name}: ") + (batch_limits(batch) or "no limits"))


def batch_limits(batch: Batch) -> str:
    """Return the pause, the reserved credits and the limits of a batch in words."""
    is_stopped, reserved = batch.stop is not None, pluralize(batch.reserved_credits, "credit")
    limits = {
        f"[red]{batch.stop.reason}[/]" if batch.stop else "": is_stopped,
        "[red]is paused[/]": batch.is_paused and not is_stopped,
        f"has reserved {reserved} for jobs in flight and lost orders": batch.reserved_credits > 0,
        f"needs {pluralize(batch.queued_credits, 'credit')} for queued jobs": batch.queued_credits > 0,
        f"may spend {pluralize(batch.max_credits or 0, 'credit')}": batch.max_credits is not None,
        f"may have {batch.max_in_flight or 0:,} in flight at once": batch.max_in_flight is not None,
        f"stops when {percent(batch.stop_after or 0)} of at least {batch.stop_min:,} settled jobs failed": (
            batch.stop_after is not None
        ),
    }
    return ", ".join(text for text, applies in limits.items() if applies)


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
                "queued": account.queued_credits,
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
    out.print(f"queued     {account.queued_credits:,} for jobs in the backlog")
    out.print(f"spent      {account.spent_today:,} today (UTC), {status.credits:,} in total")
    if account.uncounted:
        since = format_time(account.uncounted.since)
        out.print(f"unexplained {account.uncounted.unexplained:,} since {since}: {account.uncounted}")
