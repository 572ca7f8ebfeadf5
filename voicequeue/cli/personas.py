"""`personas`: the voices that were created."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from voicequeue.cli.terminal import (
    AsJson,
    Reason,
    escape_untrusted,
    format_time,
    open_queue,
    option,
    out,
    plain_table,
    print_error,
    print_json,
)


def personas(
    limit: Annotated[int, option("N", min=1, help="List at most this many voices.")] = 100,
    forget: Annotated[
        str | None,
        option("PERSONA_ID", help="Stop sharing this voice, because upstream has deleted it."),
    ] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """List the voices that were created, the newest first.

    With --reuse, a job on the same recording shares its voice and pays for the song only.
    """
    if forget is not None:
        _forget(forget, reason)
        return
    with open_queue() as jobs:
        voices = list(islice(jobs.personas(), limit))
    if as_json:
        print_json([voice.as_dict() for voice in voices])
        return
    table = plain_table("persona", "name", "created", "job", "recording")
    for voice in voices:
        row = (voice.persona_id, voice.name or "", format_time(voice.created_at), voice.job_id, voice.audio_url)
        table.add_row(*map(escape_untrusted, row))
    out.print(table if voices else "no voices yet")


def _forget(persona_id: str, reason: str) -> None:
    with open_queue(reason=reason) as jobs:
        existed = jobs.forget_persona(persona_id)
    if not existed:
        print_error(f"no voice has the persona id {persona_id}")
        raise typer.Exit(1)
    out.print("the voice is no longer shared")
