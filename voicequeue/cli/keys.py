"""`keys`: keys for the HTTP gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.cli.terminal import AsJson, complain, print_json


def add_to(app: typer.Typer) -> None:
    """Add this group of commands."""
    keys = typer.Typer(help="Keys for the HTTP gateway.", no_args_is_help=True)
    keys.callback()(_group)
    keys.command()(new)
    app.add_typer(keys, name="keys")


def _group() -> None:
    """Keys for the HTTP gateway."""


def new(
    name: Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be repeated.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once, and kept nowhere; the gateway is given its hash alone."""
    try:
        key, configured = api_keys.new(name, scope)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        print_json({"name": name, "scopes": sorted(configured.scopes), "key": key, "line": configured.line()})
        return
    complain("The key, shown this once; whoever calls the gateway sends it as `Authorization: Bearer …`:")
    typer.echo(key)
    complain("For the gateway's environment (further keys after a comma):")
    typer.echo(f"VOICEQUEUE_API_KEYS={configured.line()}")
