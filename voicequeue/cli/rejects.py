"""`rejects`: messages of other Celery clients that were rejected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    option,
    out,
    print_json,
)
from voicequeue.storage.rejected_messages import MESSAGES_MAX, RejectedMessage
from voicequeue.texts import terminal_safe_json

#: Characters of a message that are printed; --json prints all that are kept.
SHOWN = 200


def rejects(
    limit: Annotated[int, option("N", min=1, max=MESSAGES_MAX, help="List at most this many messages.")] = 50,
    clear: Annotated[bool, flag("--clear", help="List all messages, and delete them.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List rejected messages of other Celery clients, the newest first."""
    with open_queue(reason=reason) as jobs:
        messages = jobs.clear_rejected_messages() if clear else jobs.rejected_messages(limit)
    if as_json:
        print_json([message.as_dict() for message in messages])
    else:
        _print(messages, cleared=clear)


def _print(messages: Sequence[RejectedMessage], *, cleared: bool) -> None:
    for message in messages:
        print_rejected(message)
    if not messages:
        out.print("no rejected messages")
    elif cleared:
        out.print(f"{len(messages):,} messages deleted")


def print_rejected(message: RejectedMessage) -> None:
    """Print a rejected message: its ids, the reason, and the beginning of its job."""
    ids = f"{escape_untrusted(message.task or 'no task')}  {escape_untrusted(message.message_id or 'no id')}"
    out.print(f"[bold]{format_time(message.rejected_at)}[/]  {ids}")
    out.print(f"  [red]{escape_untrusted(message.reason)}[/]", soft_wrap=True)
    out.print(f"  {escape_untrusted(_cut(terminal_safe_json(message.job)))}", soft_wrap=True)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
