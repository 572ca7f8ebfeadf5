"""`enqueue`: add one job."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from voicequeue.cli.jobs import print_job
from voicequeue.cli.terminal import AsJson, Reuse, StartWithin, flag, open_queue, option
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import DEFAULT
from voicequeue.domain.song import Song
from voicequeue.domain.spec import Priority, parse_spec
from voicequeue.domain.states import State
from voicequeue.errors import InvalidJobError, Problem
from voicequeue.texts import describe_json_error


def enqueue(
    audio_url: Annotated[str | None, option("URL", help="A public MP3 or WAV of one clear speaker.")] = None,
    persona_id: Annotated[str | None, option("ID", help="Use this existing voice instead of --audio-url.")] = None,
    song: Annotated[
        str | None, option("JSON", help=f"The song, with the fields {', '.join(Song.model_fields)}.")
    ] = None,
    name: Annotated[str | None, option("TEXT", help="Name the voice.")] = None,
    voice: Annotated[
        str | None, option("NAME", help="Share the voice with jobs of the batch that name it too.")
    ] = None,
    reuse: Reuse = None,
    batch: Annotated[str | None, option("NAME", help="Add the job to this batch.")] = None,
    priority: Annotated[
        Priority, option("PRIORITY", help=f"Priority in the backlog: {', '.join(Priority)}.")
    ] = Priority.NORMAL,
    key: Annotated[str | None, option("TEXT", help="Idempotency key: the same key is the same job.")] = None,
    metadata: Annotated[
        list[str] | None, option("NAME=VALUE", help="Attach data of your own. Can be repeated.")
    ] = None,
    callback_url: Annotated[
        str | None, option("URL", help="Send a callback here when the job has settled or is unsure.")
    ] = None,
    max_credits: Annotated[int | None, option("N", help="Reject the job if it costs more than N credits.")] = None,
    start_within: StartWithin = None,
    wait: Annotated[bool, flag("--wait", help="Wait until the job has settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Add one job to the queue."""
    fields = {
        "audio_url": audio_url,
        "persona_id": persona_id,
        "song": _json_value("song", song),
        "name": name,
        "voice": voice,
        "reuse": reuse,
        "batch": batch,
        "priority": priority,
        "key": key,
        "metadata": _metadata(metadata or []),
        "callback_url": callback_url,
        "max_credits": max_credits,
        "start_within_s": start_within,
    }
    with open_queue(namespace=DEFAULT) as jobs:
        job: Job = jobs.enqueue(parse_spec(fields))
        if wait:
            job = jobs.wait(job.id)
        print_job(job, as_json=as_json)
    raise typer.Exit(int(wait and job.state is not State.SUCCEEDED))


def _json_value(field: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJobError([Problem(field, f"is not readable as JSON: {describe_json_error(error)}")]) from None


def _metadata(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if invalid := [name for name, equals, _ in split if not (name and equals)]:
        raise InvalidJobError([Problem("metadata", f"must be NAME=VALUE, not {invalid[0]!r}")])
    return {name: value for name, _, value in split}
