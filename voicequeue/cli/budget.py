"""`budget`: what the account, namespaces and API keys may spend in a day and in a month."""

from __future__ import annotations

from math import inf
from typing import Annotated, Any

import typer

from voicequeue.cli.namespace import with_namespace
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
    plain_table,
    print_json,
)
from voicequeue.domain.budgets import Budget
from voicequeue.texts import parse_float

app = typer.Typer(
    help="List or set what the account, namespaces and API keys may spend.", no_args_is_help=True, add_completion=False
)


def _credits(text: str) -> float:
    """Return the number of credits; infinity for `none`. Raises BadParameter."""
    credits = inf if text == "none" else parse_float(text)
    if credits is None:
        raise typer.BadParameter(f"{text!r} is no number of credits; give a whole number, or none for no limit")
    return credits


def _limit_of(period: str) -> Any:
    help = f"Credits that it may spend in a {period} (UTC); none: no limit."
    return typer.Option(parser=_credits, metavar="N", help=help)


@app.command("list")
@with_namespace
def list_budgets(as_json: AsJson = False) -> None:
    """List the budgets, with what was spent and what is left."""
    with open_queue() as queue:
        budgets = queue.budgets()
    if as_json:
        print_json([budget.as_dict() for budget in budgets])
    elif budgets:
        _print(budgets)
    else:
        out.print("no budgets")


@app.command("set")
def set_budget(
    owner: Annotated[str, argument("OWNER", help="account, namespace/NAME, or key/NAME.")],
    day: Annotated[float | None, _limit_of("day")] = None,
    month: Annotated[float | None, _limit_of("month")] = None,
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
        period: None if credits == inf else credits
        for period, credits in (("day", day), ("month", month))
        if credits is not None
    }
    changes |= {} if hard is None else {"hard": hard}
    if not changes and callback_url is None:
        raise typer.BadParameter("give --day, --month, --hard, --soft or --callback-url")
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
    elif budgets:
        _print(budgets)
    else:
        out.print(escape_untrusted(f"{owner} has no budget: it may spend without a limit"))


def _print(budgets: list[Budget]) -> None:
    table = plain_table("owner", "period", "limit", "spent", "reserved", "left", "resets", "over it")
    for budget in budgets:
        numbers = (f"{n:,}" for n in (budget.limit, budget.spent, budget.reserved, budget.remaining))
        over = "refused" if budget.is_hard else "waits"
        table.add_row(escape_untrusted(budget.owner), budget.period, *numbers, format_time(budget.resets_at), over)
    out.print(table)
