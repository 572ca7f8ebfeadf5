"""`budget`: what the account, namespaces and API keys may spend in a day and in a month."""

from __future__ import annotations

from math import inf
from typing import Annotated, Any

import typer

from voicequeue.cli.namespace import with_namespace
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    argument,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json,
)
from voicequeue.domain.budgets import Budget
from voicequeue.texts import parse_float, pluralize

_COLUMNS = (
    Column("owner"),
    Column("period"),
    Column("limit", is_number=True),
    Column("spent", rank=2, is_number=True),
    Column("reserved", rank=4, is_number=True),
    Column("left", rank=1, is_number=True),
    Column("resets", rank=5),
    Column("over it", rank=3),
)

app = typer.Typer(
    help="List or set what the account, namespaces and API keys may spend.", no_args_is_help=True, add_completion=False
)


def _number(text: str) -> float:
    """Return the number; infinity for `none`. Raises BadParameter."""
    number = inf if text == "none" else parse_float(text)
    if number is None:
        raise typer.BadParameter(f"{text!r} must be a whole number, or none for no limit")
    return number


def _limit_of(period: str) -> Any:
    help = f"Credits that it may spend in a {period} (UTC); none: no limit."
    return typer.Option(parser=_number, metavar="N", help=help)


@app.command("list")
@with_namespace
def list_budgets(as_json: AsJson = False) -> None:
    """List the budgets, with what was spent and what is left."""
    with open_queue() as queue:
        budgets = queue.budgets()
    if as_json:
        print_json([budget.as_dict() for budget in budgets])
    elif budgets:
        print_table(_COLUMNS, map(_row, budgets))
    else:
        out.print("no budgets")


@app.command("set")
def set_budget(
    owner: Annotated[str, argument("OWNER", help="account, namespace/NAME, or key/NAME.")],
    day: Annotated[float | None, _limit_of("day")] = None,
    month: Annotated[float | None, _limit_of("month")] = None,
    max_in_flight: Annotated[
        float | None,
        typer.Option(parser=_number, metavar="N", help="Jobs that it may have in flight; none: no limit."),
    ] = None,
    hard: Annotated[
        bool | None, flag("--hard/--soft", help="Refuse new jobs over the budget, or let them wait (the default).")
    ] = None,
    callback_url: Annotated[
        str | None, option("URL", help="URL to call when 80 and 100 % of a budget are used; none: no callback.")
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set what an owner may spend, effective at once. What is not given stays as it is."""
    changes: dict[str, Any] = {
        name: None if limit == inf else limit
        for name, limit in (("day", day), ("month", month), ("max_in_flight", max_in_flight))
        if limit is not None
    }
    changes |= {} if hard is None else {"hard": hard}
    if not changes and callback_url is None:
        raise typer.BadParameter("give --day, --month, --max-in-flight, --hard, --soft or --callback-url")
    with open_queue(reason=reason) as queue:
        try:
            changed = queue.set_budget(owner, **changes) if changes else False
            if callback_url is not None:
                url = None if callback_url == "none" else callback_url
                changed = queue.set_budget_callback(owner, url) or changed
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        budgets = [budget for budget in queue.budgets() if budget.owner == owner]
    if as_json:
        print_json({"changed": changed, "budgets": [budget.as_dict() for budget in budgets]})
        return
    if max_in_flight is not None:
        most = "any number of jobs" if max_in_flight == inf else f"at most {pluralize(int(max_in_flight), 'job')}"
        out.print(escape_untrusted(f"{owner} may have {most} in flight"))
    print_table(_COLUMNS, map(_row, budgets))
    if not budgets:
        out.print(escape_untrusted(f"{owner} has no budget: it may spend without a limit"))


def _row(budget: Budget) -> tuple[str, ...]:
    numbers = (f"{n:,}" for n in (budget.limit, budget.spent, budget.reserved, budget.remaining))
    over = "refused" if budget.is_hard else "waits"
    return (budget.owner, budget.period, *numbers, format_time(budget.resets_at), over)
