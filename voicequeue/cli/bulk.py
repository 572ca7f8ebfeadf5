"""`enqueue` and `export`: a job in and results out."""

from __future__ import annotations

import csv
import json
import re
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from voicequeue.cli.show import print_job
from voicequeue.cli.terminal import AsJson, queue, writable
from voicequeue.domain.job import Job, State
from voicequeue.domain.song import Song
from voicequeue.domain.spec import Priority, parse
from voicequeue.errors import InvalidJob, Problem
from voicequeue.ingest.cells import guarded, json_cell
from voicequeue.texts import json_text, json_trouble, real_number, shown

SONG_OPTIONS = tuple(Song.model_fields)

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


def span(text: str) -> float:
    """Seconds, from `90s`, `30m`, `24h` or `7d`."""
    found = re.fullmatch(r"([\d.]+)\s*(s|m|min|h|d)", text.strip())
    count = real_number(found[1]) if found else None
    if not found or not count:
        raise typer.BadParameter("must be a number with s, m, h or d, such as 24h")
    return count * _UNITS[found[2]]


StartBy = Annotated[
    float | None,
    typer.Option(parser=span, metavar="24h", help="Fails with the code `expired` if nothing was ordered by then."),
]


Reuse = Annotated[
    bool | None,
    typer.Option("--reuse/--no-reuse", help="Take the voice made before from the same recording, if there is one."),
]


class Format(StrEnum):
    """How results are written."""

    CSV = "csv"
    JSONL = "jsonl"


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(enqueue)
    app.command()(export)


def enqueue(
    audio_url: Annotated[str | None, typer.Option(help="A public MP3 or WAV of one clear speaker.")] = None,
    persona_id: Annotated[str | None, typer.Option(help="A voice made before, instead of --audio-url.")] = None,
    song: Annotated[str | None, typer.Option(help="The song as JSON: " + ", ".join(SONG_OPTIONS))] = None,
    name: Annotated[str | None, typer.Option(help="A name for the voice.")] = None,
    voice: Annotated[str | None, typer.Option(help="Jobs of one batch that name the same voice share it.")] = None,
    reuse: Reuse = None,
    batch: Annotated[str | None, typer.Option(help="The batch it belongs to.")] = None,
    priority: Annotated[Priority, typer.Option(help="Who goes first.")] = Priority.NORMAL,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same job.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Yours, as NAME=VALUE; may be repeated.")] = None,
    callback_url: Annotated[str | None, typer.Option(help="Told when it has settled, or is unsure.")] = None,
    max_credits: Annotated[int | None, typer.Option(help="The most it may cost.")] = None,
    start_by: StartBy = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has settled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put one job into the queue."""
    given = {
        "audio_url": audio_url,
        "persona_id": persona_id,
        "song": _json_object("song", song),
        "name": name,
        "voice": voice,
        "reuse": reuse,
        "batch": batch,
        "priority": priority,
        "key": key,
        "metadata": _pairs(metadata or []),
        "callback_url": callback_url,
        "max_credits": max_credits,
        "start_within_s": start_by,
    }
    with queue() as jobs:
        job = jobs.enqueue(parse(given))
        if wait:
            job = jobs.wait(job.id)
        print_job(job, as_json=as_json)
    raise typer.Exit(int(wait and job.state is not State.SUCCEEDED))


def _json_object(field: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidJob([Problem(field, f"is not readable as JSON: {json_trouble(error)}")]) from None


def _pairs(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if bad := [name for name, equals, _ in split if not (name and equals)]:
        raise InvalidJob([Problem("metadata", f"must be NAME=VALUE, not {bad[0]!r}")])
    return {name: value for name, _, value in split}


#: Of each song, besides its link, title, duration and files.
_FURTHER = (
    "clip_id", "state", "image_url", "video_url", "tags", "lyrics", "mv", "created_at", "gpt_description_prompt",
)  # fmt: skip

CSV_COLUMNS = (
    "id", "key", "batch", "name", "priority", "state", "stage", "audio_url", "persona_id", "voice_name",
    "song_1_url", "song_1_title", "song_1_duration", "song_1_archived", "song_1_cover_archived",
    "song_2_url", "song_2_title", "song_2_duration", "song_2_archived", "song_2_cover_archived", "incomplete",
    *(f"song_{number}_{field}" for number in (1, 2) for field in _FURTHER),
    "failure_code", "failure_stage", "failure_message", "credits", "created_at", "settled_at", "metadata", "song",
)  # fmt: skip


def export(
    batch: Annotated[str | None, typer.Option(help="Only this batch.")] = None,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    format: Annotated[Format, typer.Option(help="CSV for people, JSON Lines for programs.")] = Format.CSV,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, instead of standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write jobs with what was asked for and what came of it."""
    with queue() as jobs, ExitStack() as stack:
        found = jobs.jobs(state=state, batch=batch)
        first = next(found, None)  # a Redis that is away must not leave an empty file behind
        file = sys.stdout if output is None else stack.enter_context(writable(output))
        write = _json_line if as_json or format is Format.JSONL else _csv_line
        if write is _csv_line:
            csv.writer(file).writerow(CSV_COLUMNS)
        if first is not None:
            write(file, first)
        for job in found:
            write(file, job)


def exported(job: Job) -> dict[str, Any]:
    """A job's results as everywhere, and the song that was asked for."""
    song = job.spec.song
    return {**job.as_dict(), "song": song.model_dump(exclude_none=True) if song else None}


def _json_line(file: TextIO, job: Job) -> None:
    file.write(json_text(exported(job)) + "\n")


def _csv_line(file: TextIO, job: Job) -> None:
    record = exported(job) | {"incomplete": "yes" if job.is_incomplete else "no"}
    for number, clip in enumerate(job.clips[:2], start=1):
        record |= {
            f"song_{number}_url": clip.audio_url,
            f"song_{number}_title": clip.title,
            f"song_{number}_duration": clip.duration,
            f"song_{number}_archived": clip.archived_audio.url if clip.archived_audio else "",
            f"song_{number}_cover_archived": clip.archived_image.url if clip.archived_image else "",
            **{f"song_{number}_{field}": getattr(clip, field) for field in _FURTHER},
        }
    if job.failure:
        record |= {f"failure_{name}": value for name, value in record["failure"].items()}
    for name in ("metadata", "song"):
        record[name] = json_cell(record[name]) if record[name] else ""
    csv.writer(file).writerow([_cell(record.get(column, "")) for column in CSV_COLUMNS])


def _cell(value: Any) -> Any:
    # Names and titles are other people's words.
    return guarded(shown(value, keep="\n\t")) if isinstance(value, str) else value
