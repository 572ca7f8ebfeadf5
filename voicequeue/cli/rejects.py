"""`rejects`: messages from other Celery clients that became no job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from voicequeue.cli.show import clock
from voicequeue.cli.terminal import AsJson, out, print_json, queue, safe
from voicequeue.storage.rejected_messages import KEPT, RejectedMessage
from voicequeue.texts import json_text

#: So much of a job is shown in the list; --json shows all that is kept.
SHOWN = 200


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(rejects)


def rejects(
    limit: Annotated[int, typer.Option(min=1, max=KEPT, help="How many to show at most.")] = 50,
    clear: Annotated[bool, typer.Option("--clear", help="Show all that are kept, and keep them no longer.")] = False,
    as_json: AsJson = False,
) -> None:
    """Messages to `voicequeue.enqueue` that became no job, the newest first, each with the reason."""
    with queue() as jobs:
        found = jobs.clear_rejects() if clear else jobs.rejects(limit)
    if as_json:
        print_json([each.as_dict() for each in found])
    else:
        _print(found, cleared=clear)


def _print(found: Sequence[RejectedMessage], *, cleared: bool) -> None:
    for each in found:
        out.print(f"[bold]{clock(each.at)}[/]  {safe(each.task or 'no task')}  {safe(each.message_id or 'no id')}")
        out.print(f"  [red]{safe(each.reason)}[/]", soft_wrap=True)
        out.print(f"  {safe(_beginning(json_text(each.job)))}", soft_wrap=True)
    if not found:
        out.print("no message was rejected")
    elif cleared:
        out.print(f"{len(found):,} messages, kept no longer")


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
