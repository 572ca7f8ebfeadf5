"""`personas`: the voices that were created."""

from __future__ import annotations

from typing import Annotated

import typer

from voicequeue.cli.listing import All, Limit, Listing, limit_of
from voicequeue.cli.tables import Column, print_table
from voicequeue.cli.terminal import (
    AsJson,
    CommandError,
    Reason,
    format_time,
    open_queue,
    option,
    out,
    print_json,
    print_json_list,
)
from voicequeue.storage.personas import Persona

_COLUMNS = (
    Column("persona"),
    Column("name", rank=1, min_width=10),
    Column("created", rank=3),
    Column("job", rank=2),
    Column("recording", rank=4, min_width=16),
)


def personas(
    limit: Limit = None,
    all: All = False,
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
        if limit is not None or all:
            raise typer.BadParameter("--forget lists nothing; leave out --limit and --all")
        _forget(forget, reason, as_json=as_json)
        return
    count = limit_of(limit, is_all=all)
    with open_queue(reason=reason) as queue:
        listing = Listing(queue.personas(), count)
        if as_json:
            print_json_list(voice.as_dict() for voice in listing)
        else:
            print_table(_COLUMNS, map(_row, listing))
            if not listing.count:
                out.print("no voices yet")
    listing.note_rest("voice")


def _row(voice: Persona) -> tuple[str, ...]:
    return (voice.persona_id, voice.name or "", format_time(voice.created_at), voice.job_id, voice.audio_url)


def _forget(persona_id: str, reason: str, *, as_json: bool) -> None:
    with open_queue(reason=reason) as queue:
        existed = queue.forget_persona(persona_id)
    if not existed:
        raise CommandError("persona_not_found", f"no voice has the persona id {persona_id}")
    if as_json:
        print_json({"persona_id": persona_id, "forgotten": True})
    else:
        out.print("the voice is no longer shared")
