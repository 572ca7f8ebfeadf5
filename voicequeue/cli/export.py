"""`export`: write jobs and their results to a file."""

from __future__ import annotations

import csv
import sys
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

from voicequeue.cli.terminal import AsJson, BatchOption, StateOption, open_for_writing, open_queue, option
from voicequeue.domain.job import Job
from voicequeue.ingest.cells import guard, json_cell
from voicequeue.texts import escape_controls, terminal_safe_json

#: Columns of each song, after its link, title, duration and archived files.
_MORE_SONG_COLUMNS = (
    "clip_id", "state", "image_url", "video_url", "tags", "lyrics", "mv", "created_at", "gpt_description_prompt",
)  # fmt: skip

CSV_COLUMNS = (
    "id", "key", "batch", "name", "priority", "state", "stage", "audio_url", "persona_id", "voice_name",
    "song_1_url", "song_1_title", "song_1_duration", "song_1_archived", "song_1_cover_archived",
    "song_2_url", "song_2_title", "song_2_duration", "song_2_archived", "song_2_cover_archived", "incomplete",
    *(f"song_{number}_{field}" for number in (1, 2) for field in _MORE_SONG_COLUMNS),
    "failure_code", "failure_stage", "failure_message", "credits", "created_at", "settled_at", "metadata", "song",
)  # fmt: skip


class Format(StrEnum):
    """The format of the output."""

    CSV = "csv"
    JSONL = "jsonl"


def export(
    batch: BatchOption = None,
    state: StateOption = None,
    format: Annotated[
        Format, option("FORMAT", help="csv for spreadsheets, or jsonl (JSON Lines) for programs.")
    ] = Format.CSV,
    output: Annotated[
        Path | None, option("FILE", "--output", "-o", help="Write to this file, not to standard output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export jobs with their orders and results."""
    with open_queue() as source, ExitStack() as stack:
        jobs = source.jobs(state=state, batch=batch)
        first = next(jobs, None)  # before the file is opened: an unreachable Redis must not leave an empty file
        file = sys.stdout if output is None else stack.enter_context(open_for_writing(output))
        write = _json_line if as_json or format is Format.JSONL else _csv_line
        if write is _csv_line:
            csv.writer(file).writerow(CSV_COLUMNS)
        if first is not None:
            write(file, first)
        for job in jobs:
            write(file, job)


def exported(job: Job) -> dict[str, Any]:
    """Return the JSON of a job, with the song that was ordered."""
    song = job.spec.song
    return {**job.as_dict(), "song": song.model_dump(exclude_none=True) if song else None}


def _json_line(file: TextIO, job: Job) -> None:
    file.write(terminal_safe_json(exported(job)) + "\n")


def _csv_line(file: TextIO, job: Job) -> None:
    record = exported(job) | {"incomplete": "yes" if job.is_incomplete else "no"}
    for number, clip in enumerate(job.clips[:2], start=1):
        record |= {
            f"song_{number}_url": clip.audio_url,
            f"song_{number}_title": clip.title,
            f"song_{number}_duration": clip.duration,
            f"song_{number}_archived": clip.archived_audio.url if clip.archived_audio else "",
            f"song_{number}_cover_archived": clip.archived_image.url if clip.archived_image else "",
            **{f"song_{number}_{field}": getattr(clip, field) for field in _MORE_SONG_COLUMNS},
        }
    if job.failure:
        record |= {f"failure_{name}": value for name, value in record["failure"].items()}
    for name in ("metadata", "song"):
        record[name] = json_cell(record[name]) if record[name] else ""
    csv.writer(file).writerow([_cell(record.get(column, "")) for column in CSV_COLUMNS])


def _cell(value: Any) -> Any:
    # Names and titles are untrusted: no terminal controls, no spreadsheet formulas.
    return guard(escape_controls(value, keep="\n\t")) if isinstance(value, str) else value
