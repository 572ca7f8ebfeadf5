"""`personas`: the voices that were made."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from voicequeue.cli.show import clock
from voicequeue.cli.terminal import AsJson, complain, out, plain_table, print_json, queue, safe


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(personas)


def personas(
    limit: Annotated[int, typer.Option(min=1, help="How many to show at most, the latest first.")] = 100,
    forget: Annotated[
        str | None, typer.Option(metavar="PERSONA_ID", help="Take this one for no further job: upstream has lost it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The voices that were made: with --reuse a job on the same recording takes one, and pays for its song alone."""
    if forget is not None:
        _forget(forget)
        return
    with queue() as jobs:
        found = list(islice(jobs.personas(), limit))
    if as_json:
        print_json([each.as_dict() for each in found])
        return
    table = plain_table("persona", "name", "made", "job", "recording")
    for each in found:
        row = (each.persona_id, each.name or "", clock(each.at), each.job_id, each.audio_url)
        table.add_row(*map(safe, row))
    out.print(table if found else "no voice was made yet")


def _forget(persona_id: str) -> None:
    with queue() as jobs:
        known = jobs.forget_persona(persona_id)
    if not known:
        complain(f"no voice has the persona {safe(persona_id)}")
        raise typer.Exit(1)
    out.print("no further job takes it")
