"""`keys callback-secret`: the secret that signs the callbacks of an API key."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from voicequeue.auth.api_keys import parse_keys
from voicequeue.auth.callback_secrets import new_secret
from voicequeue.auth.secret_files import read_secret
from voicequeue.cli.callbacks import root_secrets
from voicequeue.cli.parsing import parse_overlap
from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    argument,
    flag,
    open_queue,
    out,
    print_json,
    print_note,
    refuse,
)
from voicequeue.client.callback_secrets import shared_roots
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.callback_secrets import OVERLAP_DEFAULT_S


def callback_secret(
    name: Annotated[str, argument("NAME", help="Name of the API key.")],
    rotate: Annotated[bool, flag("--rotate", help="Replace its secret; the old one signs, too, for a while.")] = False,
    overlap: Annotated[
        float | None,
        typer.Option(
            parser=parse_overlap,
            metavar="DURATION",
            help="With --rotate: how long the old secret signs. Default: 24h.",
        ),
    ] = None,
    remove: Annotated[bool, flag("--remove", help="Remove its secret; the receivers' own secrets sign then.")] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Create the secret that signs the callbacks of a key, and print it once."""
    if rotate and remove:
        raise typer.BadParameter("use only one of --rotate and --remove")
    if not rotate:
        refuse("without --rotate", overlap=overlap)
    with open_queue(reason=reason) as queue:
        try:
            if remove:
                _remove(queue, name, as_json=as_json)
            else:
                _create(queue, name, _overlap(overlap) if rotate else None, as_json=as_json)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None


def _overlap(overlap: float | None) -> float:
    return OVERLAP_DEFAULT_S if overlap is None else overlap


def _create(queue: VoiceQueue, name: str, overlap_s: float | None, *, as_json: bool) -> None:
    secret, token = new_secret(shared_roots(queue, root_secrets()), name)
    queue.set_callback_secret(name, token, overlap_s=overlap_s, namespace=_configured_namespace(name))
    if as_json:
        print_json({"name": name, "secret": secret})
        return
    print_note("The callback secret. It is shown only now; give it to the receivers of this key's callbacks:")
    typer.echo(secret)


def _configured_namespace(name: str) -> str | None:
    """Return the namespace of a key of VOICEQUEUE_API_KEYS, as far as this environment has that setting."""
    try:
        keys = parse_keys(read_secret(os.environ, "VOICEQUEUE_API_KEYS"))
    except ValueError:
        return None
    return next((key.namespace for key in keys if key.name == name), None)


def _remove(queue: VoiceQueue, name: str, *, as_json: bool) -> None:
    is_removed = queue.remove_callback_secret(name, namespace=_configured_namespace(name))
    if as_json:
        print_json({"name": name, "removed": is_removed})
    else:
        out.print("removed" if is_removed else "the key has no callback secret")
    raise typer.Exit(int(not is_removed))
