"""`callbacks`: list and redeliver callbacks that are pending or undelivered, and print receivers' secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

import typer

from voicequeue.auth import callback_secrets, signatures
from voicequeue.auth.secret_files import read_secret
from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.outbox import attempt_cells, print_entries, print_outbox_json, print_workers
from voicequeue.cli.tables import Column
from voicequeue.cli.terminal import (
    AsJson,
    BatchOption,
    CommandSetupError,
    Reason,
    flag,
    format_time,
    is_of_batch,
    open_queue,
    option,
    out,
    print_json,
    refuse,
)
from voicequeue.client.queue import VoiceQueue
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.storage.callbacks import Callback
from voicequeue.texts import pluralize

_COLUMNS = (Column("id"), Column("type", rank=3), Column("batch", rank=5, min_width=8), Column("since", rank=6))


def callbacks(
    batch: BatchOption = None,
    redeliver: Annotated[list[str] | None, option("ID", help="Redeliver this callback now. Can be repeated.")] = None,
    all_undelivered: Annotated[
        bool, flag("--all-undelivered", help="Redeliver all undelivered callbacks, or with --batch those of a batch.")
    ] = False,
    secret: Annotated[str | None, option("URL", help="Print the secret of the receiver at this URL.")] = None,
    root_secret: Annotated[
        bool,
        flag(
            "--root-secret",
            help="Print the root secret: VOICEQUEUE_CALLBACK_SECRET, or the one derived from VOICEQUEUE_SECRET.",
        ),
    ] = False,
    limit: Limit = None,
    all: All = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List callbacks that are pending or undelivered, or redeliver them.

    A list has up to --limit pending and as many undelivered callbacks.
    """
    if sum([bool(redeliver), all_undelivered, secret is not None, root_secret]) > 1:
        raise typer.BadParameter("use only one of --redeliver, --all-undelivered, --secret and --root-secret")
    if secret is not None or root_secret:
        refuse("with a secret", batch=batch, limit=limit, all=all, reason=reason)
        _print_secret(_root_secret() if secret is None else _secret(secret), as_json=as_json)
        return
    if redeliver or all_undelivered:
        refuse("when callbacks are redelivered", limit=limit, all=all, batch=batch is not None and redeliver)
    else:
        refuse("on a list", reason=reason)
    count = limit_of(limit, is_all=all)
    with open_queue(reason=reason) as client:
        if redeliver or all_undelivered:
            _redeliver(client, redeliver, batch, as_json=as_json)
        else:
            _list(client, batch, count, as_json=as_json)


def _print_secret(secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"secret": secret})
    else:
        typer.echo(secret)


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
    ids = ids or [callback.id for callback in _of_batch(client, batch, undelivered=True)]
    redelivered = client.redeliver_callbacks(ids)
    missing = len(ids) - redelivered if is_exact else 0
    if as_json:
        print_json({"redelivered": redelivered, "missing": missing})
    else:
        not_found = f"; {missing:,} not found" if missing else ""
        out.print(f"{pluralize(redelivered, 'callback')} scheduled for delivery now{not_found}")
    raise typer.Exit(int(missing > 0))


def _of_batch(client: VoiceQueue, batch: str | None, *, undelivered: bool = False) -> Iterator[Callback]:
    callbacks = client.callbacks(undelivered=undelivered)
    return (callback for callback in callbacks if is_of_batch(client, callback.qualified_batch, batch))


def _list(client: VoiceQueue, batch: str | None, limit: int | None, *, as_json: bool) -> None:
    counts = client.callback_counts()
    pending = Listing(_of_batch(client, batch), limit)
    undelivered = Listing(_of_batch(client, batch, undelivered=True), limit)
    if as_json:
        print_outbox_json(counts, pending=pending, undelivered=undelivered)
    else:
        print_entries("pending", _COLUMNS, pending, _row)
        print_entries("undelivered", _COLUMNS, undelivered, _row)
        blocked = f" ({counts.blocked:,} for an earlier callback of the same job)" if counts.blocked else ""
        settled = f"{counts.undelivered:,} undelivered, {counts.delivered:,} delivered"
        out.print(f"callbacks  {counts.pending:,} pending{blocked}, {settled}")
        print_workers(counts.workers, "callbacks")
    pending.note_rest("pending callback", lambda: None if batch else counts.pending)
    undelivered.note_rest("undelivered callback", lambda: None if batch else counts.undelivered)


def _row(callback: Callback) -> tuple[str, ...]:
    attempts = attempt_cells(callback, not_due="-" if callback.undelivered_at else "after an earlier one")
    return (callback.id, callback.type, callback.qualified_batch, format_time(callback.created_at), *attempts)
