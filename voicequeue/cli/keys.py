"""`keys`: API keys of the HTTP gateway."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.auth.secret_files import read_secret
from voicequeue.cli.callback_secret import callback_secret
from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.parsing import parse_duration, parse_overlap
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    argument,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json,
    print_json_list,
    print_note,
    refuse,
)
from voicequeue.domain.api_keys import ApiKey, KeyLimits
from voicequeue.domain.callback_secrets import OVERLAP_DEFAULT_S
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.spec import Priority

app = typer.Typer(help="Manage API keys of the HTTP gateway.", no_args_is_help=True, add_completion=False)

Name = Annotated[str, argument("NAME", help="Name of the key.")]
Rate = Annotated[float | None, option("N", "--requests-per-s", help="Requests a second, over all gateways.")]
HighestPriority = Annotated[Priority | None, option("PRIORITY", "--max-priority", help="Highest priority of its jobs.")]
Pattern = Annotated[str | None, option("PATTERN", "--batches", help="Pattern of its batches, such as 'shop-*'.")]
Expiry = Annotated[
    float | None,
    typer.Option("--expires-in", parser=parse_duration, metavar="DURATION", help="Refuse it after this time: 90d."),
]
Slots = Annotated[int | None, option("N", "--max-in-flight", help="Number of its jobs that may be in flight.")]
DayBudget = Annotated[int | None, option("CREDITS", "--budget-day", help="Credits that it may spend in a day (UTC).")]
MonthBudget = Annotated[
    int | None, option("CREDITS", "--budget-month", help="Credits that it may spend in a month (UTC).")
]


@app.callback()
def _keys() -> None:
    """Manage API keys of the HTTP gateway."""


@app.command()
def new(
    name: Annotated[str, argument("NAME", help="Who uses the key. A name is given once.")],
    scope: Annotated[list[Scope], option("SCOPE", help=f"Allow these requests: {', '.join(Scope)}. Can be repeated.")],
    namespace: Annotated[str, option("NAME", help="Namespace that it acts in; * is all, for operators.")] = ALL,
    rate: Rate = None,
    priority: HighestPriority = None,
    batches: Pattern = None,
    expires_in: Expiry = None,
    max_in_flight: Slots = None,
    budget_day: DayBudget = None,
    budget_month: MonthBudget = None,
    print_only: Annotated[
        bool, flag("--print-only", help="Do not store it; print the line for VOICEQUEUE_API_KEYS.")
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Create a key and print it once. Redis and gateways have its hash only."""
    if print_only:
        refuse("with --print-only", reason=reason)
        if KeyLimits(rate, priority, batches, expires_in, max_in_flight, budget_day, budget_month) != KeyLimits():
            raise typer.BadParameter("a key of the environment has no limits; leave out --print-only to store the key")
        _print_new(name, scope, namespace, as_json=as_json)
        return
    if name in _configured_names():
        raise typer.BadParameter(f"{name!r} is a key of VOICEQUEUE_API_KEYS; choose another name")
    with open_queue(reason=reason) as queue:
        expires_at = None if expires_in is None else queue.status().at + expires_in
        limits = KeyLimits(rate, priority, batches, expires_at, max_in_flight, budget_day, budget_month)
        created = queue.create_api_key(name, scope, namespace=namespace, limits=limits)
        is_only_one = [key.name for key in queue.api_keys() if key.revoked_at is None] == [name]
    _show_secret(created.key, created.secret, as_json=as_json)
    if namespace == ALL:
        print_note("It acts in all namespaces, as an operator. For one app, create a key with --namespace.")
    if is_only_one and not _configured_names():
        print_note("It is the only key that is not revoked: gateways no longer accept the local token of `make up`.")


_COLUMNS = (
    Column("name"),
    Column("namespace", rank=1),
    Column("scopes", rank=2, min_width=8),
    Column("last used", rank=5),
    Column("expires", rank=4),
    Column("revoked", rank=3),
)


@app.command("list")
def list_keys(limit: Limit = None, all: All = False, as_json: AsJson = False) -> None:
    """List the keys in Redis, also expired and revoked ones."""
    count = limit_of(limit, is_all=all)
    with open_queue() as queue:
        keys = queue.api_keys()
    listing = Listing(keys, count)
    if as_json:
        print_json_list(key.as_dict() for key in listing)
    else:
        print_table(_COLUMNS, map(_row, listing))
        if not keys:
            out.print("no keys in Redis")
    listing.note_rest("key", lambda: len(keys))


def _row(key: ApiKey) -> tuple[str, ...]:
    scopes = "+".join(scope for scope in Scope if scope in key.scopes)
    times = (key.last_used_at, key.limits.expires_at, key.revoked_at)
    return (key.name, key.namespace, scopes, *map(format_time, times))


@app.command()
def edit(
    name: Name,
    scope: Annotated[list[Scope] | None, option("SCOPE", help="Allow these requests only. Can be repeated.")] = None,
    rate: Rate = None,
    priority: HighestPriority = None,
    batches: Pattern = None,
    expires_in: Expiry = None,
    max_in_flight: Slots = None,
    budget_day: DayBudget = None,
    budget_month: MonthBudget = None,
    no_limits: Annotated[bool, flag("--no-limits", help="Remove the limits that are not given.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Change the scopes and limits of a key, and end its logins."""
    with open_queue(reason=reason) as queue:
        expires_at = None if expires_in is None else queue.status().at + expires_in
        limits = KeyLimits(rate, priority, batches, expires_at, max_in_flight, budget_day, budget_month)
        if not (scope or no_limits or limits.as_changes()):
            raise typer.BadParameter("nothing to change; give --scope, a limit or --no-limits")
        key = queue.edit_api_key(name, scopes=scope or None, limits=limits if no_limits else limits.as_changes())
    _show_changed(key, f"Changed {name}. Gateways apply it within 10 seconds.", as_json=as_json)


@app.command()
def rotate(
    name: Name,
    overlap: Annotated[
        float | None,
        typer.Option(
            "--overlap",
            parser=parse_overlap,
            metavar="DURATION",
            help="Accept the old secret, too, for this time. Default: 24h.",
        ),
    ] = None,
    now: Annotated[bool, flag("--now", help="Refuse the old secret at once.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Give a key another secret, and print it once."""
    if now:
        refuse("with --now", overlap=overlap)
    with open_queue(reason=reason) as queue:
        created = queue.rotate_api_key(name, overlap=0.0 if now else OVERLAP_DEFAULT_S if overlap is None else overlap)
    _show_secret(created.key, created.secret, as_json=as_json)
    if not as_json:
        until = "for 10 seconds at most" if now else f"until {format_time(created.key.previous_until)}"
        print_note(f"They accept the old secret {until}.")


@app.command()
def revoke(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Revoke a key permanently, and end its logins."""
    with open_queue(reason=reason) as queue:
        key = queue.revoke_api_key(name)
    _show_changed(key, f"Revoked {name}. Gateways refuse it within 10 seconds. Its jobs remain.", as_json=as_json)


def _show_changed(key: ApiKey, message: str, *, as_json: bool) -> None:
    if as_json:
        print_json(key.as_dict())
    else:
        print_note(message)


def _configured_names() -> set[str]:
    try:
        return {key.name for key in api_keys.parse_keys(read_secret(os.environ, "VOICEQUEUE_API_KEYS"))}
    except ValueError:
        return set()


def _show_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**key.as_dict(), "secret": secret})
        return
    print_note("The key. It is shown only now; callers send it as `Authorization: Bearer …`:")
    typer.echo(secret)
    print_note("Gateways accept it within 10 seconds.")


def _print_new(name: str, scope: list[Scope], namespace: str, *, as_json: bool) -> None:
    try:
        key, configured = api_keys.generate_key(name, scope, namespace)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        print_json({"name": name, "scopes": sorted(configured.scopes), "key": key, "line": configured.as_setting()})
        return
    print_note("The key. It is shown only now; callers send it as `Authorization: Bearer …`:")
    typer.echo(key)
    print_note("Add this to the environment of the gateway; separate several keys by commas:")
    typer.echo(f"VOICEQUEUE_API_KEYS={configured.as_setting()}")


app.command("callback-secret")(callback_secret)
