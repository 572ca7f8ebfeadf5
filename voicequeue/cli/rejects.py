"""`rejects`: messages of other Celery clients that were rejected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    escape_untrusted,
    flag,
    format_time,
    open_queue,
    out,
    print_json_list,
)
from voicequeue.storage.rejected_messages import MESSAGES_MAX, RejectedMessage
from voicequeue.texts import pluralize, terminal_safe_json

#: Characters of a message that are printed; --json prints all that are kept.
SHOWN = 200


def rejects(
    limit: Limit = None,
    all: All = False,
    clear: Annotated[bool, flag("--clear", help="List all messages, and delete them.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List rejected messages of other Celery clients, the newest first."""
    if clear and limit is not None:
        raise typer.BadParameter("--clear deletes all messages, and lists all of them; leave out --limit")
    count = limit_of(limit, is_all=all or clear)
    with open_queue(reason=reason) as queue:
        messages = queue.clear_rejected_messages() if clear else queue.rejected_messages(MESSAGES_MAX)
    listing = Listing(messages, count)
    if as_json:
        print_json_list(message.as_dict() for message in listing)
    else:
        _print(listing)
        if not messages:
            out.print("no rejected messages")
        elif clear:
            out.print(f"{pluralize(len(messages), 'message')} deleted")
    listing.note_rest("message", lambda: len(messages))


def _print(messages: Iterable[RejectedMessage]) -> None:
    for message in messages:
        print_rejected(message)


def print_rejected(message: RejectedMessage) -> None:
    """Print a rejected message: its ids, the reason, and the beginning of its job."""
    ids = f"{escape_untrusted(message.task or 'no task')}  {escape_untrusted(message.message_id or 'no id')}"
    out.print(f"[bold]{format_time(message.rejected_at)}[/]  {ids}")
    out.print(f"  [red]{escape_untrusted(message.reason)}[/]")
    out.print(f"  {escape_untrusted(_cut(terminal_safe_json(message.job)))}")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
