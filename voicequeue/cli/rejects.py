"""`rejects`: messages of other Celery clients that were rejected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from voicequeue.cli.terminal import AsJson, clock, flag, option, out, print_json, queue, safe
from voicequeue.storage.rejected_messages import KEPT, RejectedMessage
from voicequeue.texts import json_text

#: Characters of a message that are printed; --json prints all that are kept.
SHOWN = 200


def rejects(
    limit: Annotated[int, option("N", min=1, max=KEPT, help="List at most this many messages.")] = 50,
    clear: Annotated[bool, flag("--clear", help="List all messages, and delete them.")] = False,
    as_json: AsJson = False,
) -> None:
    """List rejected messages of other Celery clients, the newest first."""
    with queue() as jobs:
        messages = jobs.clear_rejects() if clear else jobs.rejects(limit)
    if as_json:
        print_json([message.as_dict() for message in messages])
    else:
        _print(messages, cleared=clear)


def _print(messages: Sequence[RejectedMessage], *, cleared: bool) -> None:
    for message in messages:
        ids = f"{safe(message.task or 'no task')}  {safe(message.message_id or 'no id')}"
        out.print(f"[bold]{clock(message.at)}[/]  {ids}")
        out.print(f"  [red]{safe(message.reason)}[/]", soft_wrap=True)
        out.print(f"  {safe(_cut(json_text(message.job)))}", soft_wrap=True)
    if not messages:
        out.print("no messages were rejected")
    elif cleared:
        out.print(f"{len(messages):,} messages deleted")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
