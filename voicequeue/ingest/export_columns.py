"""The columns of an export: one record for each job, for programs, and a wider one for spreadsheets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.job import Job
from voicequeue.ingest.cells import guard, json_cell
from voicequeue.ingest.row import JOB_COLUMNS, METADATA, SONG_COLUMNS
from voicequeue.texts import escape_controls

#: Columns of each song, with their fields: first the usual ones, then all others of a clip.
_FIRST_CLIP_FIELDS = {
    "url": "audio_url",
    "title": "title",
    "duration": "duration",
    "archived": "archived_audio",
    "cover_archived": "archived_image",
}
_MORE_CLIP_FIELDS = {field.name: field.name for field in fields(Clip) if field.name not in _FIRST_CLIP_FIELDS.values()}

CSV_COLUMNS = (
    "id", "key", "batch", "row", "name", "priority", "state", "stage", "audio_url", "persona_id", "voice_name",
    *(f"song_{number}_{field}" for number in (1, 2) for field in _FIRST_CLIP_FIELDS), "incomplete",
    *(f"song_{number}_{field}" for number in (1, 2) for field in _MORE_CLIP_FIELDS),
    "failure_code", "failure_stage", "failure_message", "credits", "created_at", "settled_at", "metadata", "song",
)  # fmt: skip

#: Columns of a spreadsheet before the metadata: those of the caller's file.
_INPUT_COLUMNS = (*JOB_COLUMNS, *SONG_COLUMNS)
#: Columns after the metadata: the results. No name of them is an alias of an input column (`voice_name` is one).
_RESULT_COLUMNS = (
    "id", "batch", "state", "stage", "failure_code", "failure_stage", "failure_message", "credits", "result_voice_id",
    "result_voice_name", "incomplete", "archive", "source", "created_at", "settled_at",
)  # fmt: skip
#: The metadata of a job that has no column, as JSON.
MORE_METADATA = "more_metadata"

#: Columns for metadata and for songs; a spreadsheet program shows 16,384 columns at most.
METADATA_COLUMNS_MAX = 1_000
SONGS_MAX = 20


def json_record(job: Job) -> dict[str, Any]:
    """Return the JSON of a job, with the song that was ordered."""
    song = job.spec.song
    return {**job.as_dict(), "song": song.model_dump(exclude_none=True) if song else None}


def csv_cells(job: Job) -> list[Any]:
    """Return the cells of CSV_COLUMNS. Texts are untrusted: no terminal controls, no formulas."""
    record = csv_record(job)
    return [_safe_cell(record.get(column, "")) for column in CSV_COLUMNS]


def _safe_cell(value: Any) -> Any:
    return guard(escape_controls(value, keep="\n\t")) if isinstance(value, str) else value


def csv_record(job: Job) -> dict[str, Any]:
    """Return the cells of CSV_COLUMNS that have a value."""
    song = job.spec.song
    record: dict[str, Any] = {
        **job.as_dict(),
        "row": job.source_row,
        "metadata": json_cell(job.spec.metadata) if job.spec.metadata else "",
        "song": json_cell(song.model_dump(exclude_none=True)) if song else "",
    }
    return record | _results(job, 2)


def sheet_record(job: Job) -> dict[str, Any]:
    """Return the cells of a spreadsheet's row that have a value, by column."""
    spec = job.spec
    song = spec.song.model_dump() if spec.song else {}
    record = {
        **{name: getattr(spec, name) for name in JOB_COLUMNS},
        **song,
        **{f"{METADATA}{name}": value for name, value in spec.metadata.items()},
        "row": job.source_row,
        **{name: value for name, value in job.as_dict().items() if name in _RESULT_COLUMNS},
        "result_voice_id": job.persona_id,
        "result_voice_name": job.voice_name,
    }
    cells = {name: _plain(value) for name, value in (record | _results(job, SONGS_MAX)).items()}
    return {name: value for name, value in cells.items() if value not in (None, "")}


def _results(job: Job, songs: int) -> dict[str, Any]:
    record: dict[str, Any] = {"incomplete": "yes" if job.is_incomplete else "no"}
    if job.failure:
        record |= {
            "failure_code": job.failure.code,
            "failure_stage": job.failure.stage,
            "failure_message": job.failure.message,
        }
    for number, clip in enumerate(job.clips[:songs], start=1):
        columns = {**_FIRST_CLIP_FIELDS, **_MORE_CLIP_FIELDS}
        record |= {f"song_{number}_{name}": _plain(getattr(clip, field)) for name, field in columns.items()}
    return record


def _plain(value: Any) -> Any:
    if isinstance(value, ArchivedFile):
        return value.url
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, str) else value  # enumerations are texts


class SheetColumns:
    """The columns of a spreadsheet, complete when all of its records were added. `first` are those at its beginning."""

    def __init__(self, first: tuple[str, ...]) -> None:
        self._first = first
        self._metadata: dict[str, None] = {}
        self._songs = 2
        self._has_more = False

    def add(self, record: Mapping[str, Any]) -> None:
        """Take the columns of one record into account."""
        for name in record:
            if name.startswith(METADATA) and name not in self._metadata:
                if len(self._metadata) < METADATA_COLUMNS_MAX:
                    self._metadata[name] = None
                else:
                    self._has_more = True
        while f"song_{self._songs + 1}_clip_id" in record:
            self._songs += 1

    def names(self) -> tuple[str, ...]:
        """Return all columns: the first ones, those of the input, the metadata, the results, the songs."""
        results = (name for name in _RESULT_COLUMNS if name not in self._first)
        more = (MORE_METADATA,) if self._has_more else ()
        songs = (
            f"song_{number}_{field}"
            for number in range(1, self._songs + 1)
            for field in (*_FIRST_CLIP_FIELDS, *_MORE_CLIP_FIELDS)
        )
        return (*self._first, *_INPUT_COLUMNS, *self._metadata, *more, *results, *songs)

    def rows(self, records: Iterable[Mapping[str, Any]]) -> Iterable[list[Any]]:
        """Yield the cells of each record, in the order of the columns."""
        names = self.names()
        for record in records:
            cells = [record.get(name) for name in names]
            if self._has_more:
                cells[names.index(MORE_METADATA)] = self._more(record)
            yield cells

    def _more(self, record: Mapping[str, Any]) -> str | None:
        rest = {
            name.removeprefix(METADATA): value
            for name, value in record.items()
            if name.startswith(METADATA) and name not in self._metadata
        }
        return json_cell(rest) if rest else None
