"""`callbacks`: list and redeliver callbacks that are pending or undelivered, and print receivers' secrets."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from voicequeue.auth import callback_secrets, signatures
from voicequeue.auth.secret_files import read_secret
from voicequeue.cli.outbox import attempt_cells, print_entries, print_outbox_json, print_workers
from voicequeue.cli.terminal import (
    AsJson,
    CommandSetupError,
    Reason,
    escape_untrusted,
    flag,
    format_time,
    is_of_batch,
    open_queue,
    option,
    out,
    print_json,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.storage.callbacks import Callback


def callbacks(
    redeliver: Annotated[list[str] | None, option("ID", help="Redeliver this callback now. Can be repeated.")] = None,
    batch: Annotated[str | None, option("NAME", help="Redeliver all undelivered callbacks of this batch.")] = None,
    all_undelivered: Annotated[bool, flag("--all-undelivered", help="Redeliver all undelivered callbacks.")] = False,
    secret: Annotated[str | None, option("URL", help="Print the secret of the receiver at this URL.")] = None,
    root_secret: Annotated[
        bool,
        flag(
            "--root-secret",
            help="Print the root secret: VOICEQUEUE_CALLBACK_SECRET, or the one derived from VOICEQUEUE_SECRET.",
        ),
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List callbacks that are pending or undelivered, or redeliver them."""
    if sum([bool(redeliver), batch is not None, all_undelivered, secret is not None, root_secret]) > 1:
        raise typer.BadParameter("use only one of --redeliver, --batch, --all-undelivered, --secret and --root-secret")
    if secret is not None or root_secret:
        typer.echo(_root_secret() if secret is None else _secret(secret))
        return
    with open_queue(reason=reason) as client:
        if redeliver or batch is not None or all_undelivered:
            _redeliver(client, redeliver, batch, as_json=as_json)
        else:
            _list(client, as_json=as_json)


def _secret(url: str) -> str:
    """Return the secret of the receiver at this URL. Raises BadParameter and CommandSetupError."""
    try:
        return signatures.receiver_secret(_root_secret(), Target.parse(url).origin)
    except UrlNotAllowed as error:
        raise typer.BadParameter(f"{error}; use the receiver's URL, such as https://shop.example") from None


def _root_secret() -> str:
    """Return the root secret that signs first. Raises CommandSetupError."""
    return root_secrets()[0]


def root_secrets() -> tuple[str, ...]:
    """Return the values of VOICEQUEUE_CALLBACK_SECRET, or those derived from VOICEQUEUE_SECRET.

    Raises CommandSetupError and SecretFileError.
    """
    try:
        roots = callback_secrets.roots(*(read_secret(os.environ, name) for name in callback_secrets.ROOT_SETTINGS))
    except ValueError as error:
        raise CommandSetupError(f"VOICEQUEUE_SECRET: {error}") from None
    if not roots:
        raise CommandSetupError(
            "neither VOICEQUEUE_CALLBACK_SECRET nor VOICEQUEUE_SECRET is set in this environment; "
            "set the one that the process `callbacks` has"
        )
    return roots


def _redeliver(client: VoiceQueue, ids: list[str] | None, batch: str | None, *, as_json: bool) -> None:
    is_exact = bool(ids)
    # Read the list first: a callback that fails again meanwhile is not redelivered twice.
    ids = ids or [
        callback.id
        for callback in client.callbacks(undelivered=True)
        if is_of_batch(client, callback.qualified_batch, batch)
    ]
    redelivered = client.redeliver_callbacks(ids)
    missing = len(ids) - redelivered if is_exact else 0
    if as_json:
        print_json({"redelivered": redelivered, "missing": missing})
    else:
        not_found = f"; {missing:,} not found" if missing else ""
        out.print(f"{redelivered:,} callbacks scheduled for delivery now{not_found}")
    raise typer.Exit(int(missing > 0))


def _list(client: VoiceQueue, *, as_json: bool) -> None:
    counts = client.callback_counts()
    pending, undelivered = client.callbacks(), client.callbacks(undelivered=True)
    if as_json:
        print_outbox_json(counts, pending=pending, undelivered=undelivered)
        return
    columns = ("id", "type", "batch", "since")
    print_entries("pending", columns, map(_row, pending))
    print_entries("undelivered", columns, map(_row, undelivered))
    blocked = f" ({counts.blocked:,} wait for an earlier callback of the same job)" if counts.blocked else ""
    settled = f"{counts.undelivered:,} undelivered, {counts.delivered:,} delivered"
    out.print(f"callbacks  {counts.pending:,} pending{blocked}, {settled}")
    print_workers(counts.workers, "callbacks")


def _row(callback: Callback) -> tuple[str, ...]:
    attempts = attempt_cells(callback, not_due="-" if callback.undelivered_at else "after an earlier one")
    return (
        callback.id,
        callback.type,
        escape_untrusted(callback.qualified_batch),
        format_time(callback.created_at),
        *attempts,
    )
