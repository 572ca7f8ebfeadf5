"""Rows of files, and how a file is read and written. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from voicequeue.domain.song import Song
from voicequeue.domain.spec import VoiceJob, parse_spec
from voicequeue.errors import InvalidJobError, Problem, VoiceQueueError

JOB_COLUMNS = (
    "audio_url", "persona_id", "voice", "reuse", "audio_sha256", "name", "key", "priority", "callback_url",
    "max_credits", "start_within_s",
)  # fmt: skip
SONG_COLUMNS = tuple(Song.model_fields)
METADATA = "metadata."

#: The first columns of a file of rejected rows, which can be corrected and ingested as it is. Its cells are guarded
#: against spreadsheet programs (voicequeue/ingest/cells.py), and unguarded when they are read.
#: `row` and `line` are those of the first input, also of rows that are rejected again.
REJECTED_COLUMNS = ("row", "line", "reason")

#: The same, as earlier versions wrote it: the row of the input is not known.
_OLD_REJECTED_COLUMNS = ("line", "reason")

#: The first columns of an export to CSV for spreadsheet programs, whose cells are guarded too.
EXPORT_COLUMNS = ("row", "id")

#: The only column of a JSON Lines file, and of the file of its rejected rows; earlier versions named it `row`.
JSON_COLUMNS = ("json",)
OLD_JSON_COLUMNS = ("row",)


class FileKind(StrEnum):
    """Kind of a file of rows."""

    CSV = "csv"
    JSON = "json"
    EXCEL = "excel"


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The format of a file, so that a file of its rejected rows opens in the same program.

    `delimiter`: of a CSV file. `has_bom`: whether the file begins with a byte order mark. `sheet`: the one
    that is read, of an Excel file.
    """

    kind: FileKind = FileKind.CSV
    delimiter: str = ","
    has_bom: bool = False
    sheet: str | None = None


class ExtraColumns(StrEnum):
    """The treatment of columns that no field of a job or a song has."""

    ERROR = "error"
    IGNORE = "ignore"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The caller's choices for reading a file.

    `encoding`: of a text file; None recognizes UTF-8 and UTF-16 and rejects others. `sheet`: of an Excel file; None
    reads the first. `accept_incomplete`: whether rows with fewer cells than the header, and a last line without a line
    end, are read; they may be cut off. `allow_excel`: whether Excel files are read, which needs a second pass.
    """

    encoding: str | None = None
    sheet: str | None = None
    extra_columns: ExtraColumns = ExtraColumns.ERROR
    accept_incomplete: bool = False
    allow_excel: bool = True


class Position(NamedTuple):
    """A place between two rows of a file: the lines read before it, and the rows as a spreadsheet program counts."""

    lines: int = 0
    rows: int = 0


class Origin(NamedTuple):
    """The place of a rejected row in the file in which it was rejected first; 0 where it is not known."""

    number: int = 0
    line: int = 0


class UnreadableFileError(VoiceQueueError, ValueError):
    """The file as a whole is invalid; none of its rows was enqueued."""

    code = "unreadable"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it is in the file.

    `line` is the number of its first line and `number` that of the row in a spreadsheet program, both from 1.
    `error`: why the row is unreadable. `extra_cells`: the cells beyond the last column, kept for the file of rejected
    rows. `origin`: of a row of such a file; None in others.
    """

    line: int
    cells: Mapping[str, str]
    fields: Mapping[str, Any] | None  # None: the row is unreadable
    error: str = ""
    extra_cells: tuple[str, ...] = ()
    number: int = 0
    origin: Origin | None = None

    @property
    def source(self) -> Origin:
        """Its place in the first input, to which results are joined."""
        return Origin(self.number, self.line) if self.origin is None else self.origin

    @property
    def length(self) -> int:
        """Its number of characters. Each cell counts as one more, because empty cells take memory too."""
        return sum(len(cell) + 1 for cell in (*self.cells.values(), *self.extra_cells))

    def to_job(self, batch: str, *, start_within_s: float | None = None) -> VoiceJob:
        """Return the job that the row describes, with a key derived from the row. Raises InvalidJobError.

        `start_within_s` is the default for rows without it, and not part of the key.
        """
        if self.fields is None:
            raise InvalidJobError([Problem("", self.error)])
        try:
            job = parse_spec({"source_row": self.source.number or None, **_nested(self.fields, batch)}).with_row_key()
        except InvalidJobError as error:
            problems = [Problem(problem.field.removeprefix("song."), problem.message) for problem in error.problems]
            raise InvalidJobError(problems) from None
        if start_within_s is None or job.start_within_s is not None:
            return job
        return job.copy_unchecked(start_within_s=start_within_s)


def has_guarded_cells(columns: Sequence[str]) -> bool:
    """Return whether the columns are those of a file whose cells `guard` wrote: rejected rows, or an export."""
    return bool(rejected_columns(columns)) or tuple(columns[:2]) == EXPORT_COLUMNS


def rejected_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the first columns if they are those that a file of rejected rows has beside its own; () if not."""
    for names in (REJECTED_COLUMNS, _OLD_REJECTED_COLUMNS):
        if tuple(columns[: len(names)]) == names:
            return names
    return ()


def _nested(fields: Mapping[str, Any], batch: str) -> dict[str, Any]:
    """Return a flat row in the shape of `VoiceJob`; nested objects are kept."""
    if fields.get("batch", batch) != batch:
        raise InvalidJobError([Problem("batch", f"must be {batch!r}, the batch of this file")])
    job: dict[str, Any] = {"batch": batch}
    song: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name, value in fields.items():
        if name in SONG_COLUMNS:
            song[name] = value
        elif is_metadata(name):
            metadata[name.removeprefix(METADATA)] = value
        else:
            job[name] = value
    for name, flat in (("song", song), ("metadata", metadata)):
        nested = job.get(name) or {}
        if flat and isinstance(nested, Mapping):  # `parse` rejects other types
            job[name] = {**nested, **flat}
    return job


def is_metadata(column: str) -> bool:
    """Return whether a column holds an entry of the metadata."""
    return column.startswith(METADATA) and len(column) > len(METADATA)
