"""`callbacks`: what callers are still to be told, and what they could not be."""

from __future__ import annotations

import os
from itertools import islice
from typing import Annotated

import typer

from voicequeue.auth import signatures
from voicequeue.cli.terminal import AsJson, CannotBegin, clock, out, plain_table, print_json, queue, safe
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.status import CallbackCounts
from voicequeue.net.http_client import Refused, Target
from voicequeue.storage.callbacks import Callback

#: How many of a kind are shown to a person; scripts get all.
SHOWN = 50


def callbacks(
    redeliver: Annotated[list[str] | None, typer.Option(help="Deliver this one now; may be repeated.")] = None,
    batch: Annotated[str | None, typer.Option(help="Deliver all of this batch that were given up.")] = None,
    all_undelivered: Annotated[bool, typer.Option("--all-undelivered", help="Deliver all that were given up.")] = False,
    secret: Annotated[
        str | None, typer.Option(metavar="URL", help="Print the secret of the receiver at that URL.")
    ] = None,
    root_secret: Annotated[
        bool, typer.Option("--root-secret", help="Print VOICEQUEUE_CALLBACK_SECRET as it is, or follows, here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the callbacks that are pending or were given up, or have some of them delivered again."""
    if sum([bool(redeliver), batch is not None, all_undelivered, secret is not None, root_secret]) > 1:
        raise typer.BadParameter("give one of --redeliver, --batch, --all-undelivered and the secrets, or nothing")
    if secret is not None or root_secret:
        typer.echo(_root_secret() if secret is None else _secret(secret))
        return
    with queue() as found:
        if redeliver or batch is not None or all_undelivered:
            _redeliver(found, redeliver, batch, as_json=as_json)
            return
        _list(found, as_json=as_json)


def _secret(url: str) -> str:
    """Return the secret of the receiver at that URL. Raises CannotBegin."""
    try:
        return signatures.receiver_secret(_root_secret(), Target.of(url).site)
    except Refused as error:
        raise typer.BadParameter(f"{error}; give the receiver's, such as https://shop.example") from None


def _root_secret() -> str:
    """Return the first one that is set, or what follows from VOICEQUEUE_SECRET. Raises CannotBegin."""
    if own := os.environ.get("VOICEQUEUE_CALLBACK_SECRET", "").split():
        return own[0]
    if common := os.environ.get("VOICEQUEUE_SECRET"):
        try:
            return signatures.callback_secret(signatures.validate_secret(common))
        except ValueError as error:
            raise CannotBegin(f"VOICEQUEUE_SECRET: {error}") from None
    raise CannotBegin("neither VOICEQUEUE_CALLBACK_SECRET nor VOICEQUEUE_SECRET is set here")


def _redeliver(found: VoiceQueue, ids: list[str] | None, batch: str | None, *, as_json: bool) -> None:
    if not ids:
        # A frozen list: what is given up again is not meant.
        ids = [each.id for each in found.callbacks(undelivered=True) if batch in (None, each.batch)]
        redelivered, missing = found.redeliver(ids), 0
    else:
        redelivered = found.redeliver(ids)
        missing = len(ids) - redelivered
    if as_json:
        print_json({"redelivered": redelivered, "missing": missing})
    else:
        out.print(f"{redelivered:,} callbacks are delivered now" + (f"; {missing:,} are not there" if missing else ""))
    raise typer.Exit(int(missing > 0))


def _list(found: VoiceQueue, *, as_json: bool) -> None:
    counted = found.callback_counts()
    if as_json:
        print_json(
            {
                "counts": {name: getattr(counted, name) for name in CallbackCounts.__slots__},
                "pending": [each.as_dict() for each in found.callbacks()],
                "undelivered": [each.as_dict() for each in found.callbacks(undelivered=True)],
            }
        )
        return
    _table("pending", counted.pending, list(islice(found.callbacks(), SHOWN)))
    _table("undelivered", counted.undelivered, list(islice(found.callbacks(undelivered=True), SHOWN)))
    waiting = f" ({counted.waiting:,} wait for an earlier one of their job)" if counted.waiting else ""
    out.print(
        f"{counted.pending:,} pending{waiting}, {counted.undelivered:,} undelivered, {counted.delivered:,} delivered"
    )
    alive = f"{counted.workers} alive" if counted.workers else "[red]none alive[/]; start the process `callbacks`"
    out.print(f"workers    {alive}")


def _table(name: str, count: int, found: list[Callback]) -> None:
    if not found:
        return
    table = plain_table("id", "tells", "batch", "since", "tries", "next try", "last failure")
    for each in found:
        due = clock(each.due) if each.due else "-" if each.given_up_at else "after an earlier one"
        row = (each.id, each.type, safe(each.batch or ""), clock(each.at), str(each.tries), due)
        table.add_row(*row, safe(each.reason))
    out.print(f"[bold]{name}[/]")
    out.print(table)
    if count > len(found):
        out.print(f"… and {count - len(found):,} more; --json lists them all")
    out.print("")
