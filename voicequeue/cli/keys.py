"""`keys`: API keys of the HTTP gateway."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import Scope
from voicequeue.cli.callback_secret import callback_secret
from voicequeue.cli.terminal import AsJson, argument, option, print_error, print_json

app = typer.Typer(help="Create API keys for the HTTP gateway.", no_args_is_help=True, add_completion=False)


@app.callback()
def _keys() -> None:
    """Create API keys for the HTTP gateway."""


@app.command()
def new(
    name: Annotated[str, argument("NAME", help="Who uses the key.")],
    scope: Annotated[
        list[Scope],
        option("SCOPE", help=f"Allow these requests: {', '.join(Scope)}. Can be repeated."),
    ],
    as_json: AsJson = False,
) -> None:
    """Create a key and print it once. The gateway needs its hash only."""
    try:
        key, configured = api_keys.generate_key(name, scope)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if as_json:
        print_json({"name": name, "scopes": sorted(configured.scopes), "key": key, "line": configured.as_setting()})
        return
    print_error("The key. It is shown only now; callers send it as `Authorization: Bearer …`:")
    typer.echo(key)
    print_error("Add this to the environment of the gateway; separate several keys by commas:")
    typer.echo(f"VOICEQUEUE_API_KEYS={configured.as_setting()}")


app.command("callback-secret")(callback_secret)
