"""Jobs from a file: CSV (any usual delimiter) or JSON Lines, read as a stream.

A row's columns are the fields of `VoiceJob` and, flat beside them, those of its song.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from voicequeue.domain.song import Song
from voicequeue.domain.spec import VoiceJob, parse
from voicequeue.errors import InvalidJob, Problem, VoiceQueueError, half_texts
from voicequeue.ingest.cells import unguarded
from voicequeue.texts import json_trouble, mended

JOB_COLUMNS = (
    "audio_url", "persona_id", "voice", "reuse", "audio_sha256", "name", "key", "priority", "callback_url",
    "max_credits", "start_within_s",
)  # fmt: skip
SONG_COLUMNS = tuple(Song.model_fields)
METADATA = "metadata."

#: What a file of rejected rows has in front, so that it can be mended and ingested as it is. Its cells are guarded
#: from spreadsheet programs (voicequeue/ingest/cells.py), and read without that.
REJECTED_COLUMNS = ("line", "reason")

DELIMITERS = ",;\t|"

#: The one column of a JSON Lines file, and of the file of its rejected rows.
JSON_COLUMNS = ("row",)

_KNOWN = frozenset((*JOB_COLUMNS, *SONG_COLUMNS, *REJECTED_COLUMNS))

_SNIFF_BYTES = 65_536

#: Columns that an error names; further ones are counted.
COLUMNS_NAMED = 20

#: The most characters of one row: no file, however it is made, fills the memory.
ROW_MAX = 1_048_576


class UnreadableFile(VoiceQueueError, ValueError):
    """The file as a whole cannot be taken; nothing of it was enqueued."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stood in the file; `line` is where it begins, from 1.

    `more` are cells beyond the last column: kept, lest a row that was cut could pass for a whole one.
    """

    line: int
    cells: Mapping[str, str]
    fields: Mapping[str, Any] | None  # None: it cannot be read at all
    trouble: str = ""
    more: tuple[str, ...] = ()

    @property
    def text(self) -> int:
        """How many characters it has; each cell counts as one more, for it takes room when it is empty as well."""
        return sum(len(cell) + 1 for cell in (*self.cells.values(), *self.more))

    def job(self, batch: str, *, start_within_s: float | None = None) -> VoiceJob:
        """The job that the row describes, with a key of its own. Raises InvalidJob.

        `start_within_s` is for rows that say nothing of it themselves, and no part of the key.
        """
        if self.fields is None:
            raise InvalidJob([Problem("", self.trouble)])
        try:
            job = parse(_nested(self.fields, batch)).with_row_key()
        except InvalidJob as error:
            problems = [Problem(problem.field.removeprefix("song."), problem.message) for problem in error.problems]
            raise InvalidJob(problems) from None
        if start_within_s is None or job.start_within_s is not None:
            return job
        return job.model_copy(update={"start_within_s": start_within_s})


class _Borrowed(io.RawIOBase):
    """Somebody else's file, seekable or not: it is read here, and closed by its owner."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        # What is there at once: the rows of a pipe do not wait for one another.
        self._read: Callable[[int], bytes | None] = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer)) or b""
        buffer[: len(piece)] = piece
        return len(piece)


class Rows:
    """The rows of an open file. Raises UnreadableFile before the first row, if at all.

    `columns` are the file's own; JSON Lines have one, the row as it stands.
    """

    def __init__(self, raw: BinaryIO) -> None:
        stream = io.BufferedReader(_Borrowed(raw), _SNIFF_BYTES)
        start = stream.peek(_SNIFF_BYTES)
        _check_start(start)
        # What is not UTF-8 is kept as such, and rejects its own row only.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._lines = _Lines(text)
        if _begins(start, b"{"):
            self.columns: tuple[str, ...] = JSON_COLUMNS
            self._rows = _json_rows(self._lines)
        else:
            self.columns, self._rows = _csv_rows(text, self._lines)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def lines(self) -> int:
        """How many lines were read; that of a CSV's column names does not count."""
        return self._lines.number

    def pass_over(self, lines: int) -> None:
        """Begin after so many lines, as `lines` told them, without a look at what they hold."""
        self._lines.pass_over(lines)


class _Lines:
    """The lines of a text for one row after the other, which `begin` begins; none gets more than ROW_MAX.
    `number` lines after the header were read.

    Raises _TooLong instead of giving a row's further lines; the rest of a line that is too long is passed over.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self._read = text.readline
        self.begin()

    def begin(self) -> None:
        """What comes next belongs to a new row."""
        self._left = ROW_MAX

    def pass_over(self, count: int) -> None:
        """So many lines were read before."""
        for _ in range(count):
            line = self._read(ROW_MAX + 1)
            while len(line) > ROW_MAX and not line.endswith("\n"):
                line = self._read(ROW_MAX + 1)
        self.number += count

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._read(ROW_MAX + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._left -= len(line)
        if self._left < 0:
            while line and not line.endswith("\n"):
                line = self._read(ROW_MAX)
            raise _TooLong
        return line


class _TooLong(csv.Error):
    def __str__(self) -> str:
        return f"a row has more than {ROW_MAX:,} characters"


def _begins(start: bytes, sign: bytes) -> bool:
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(sign)


def _check_start(start: bytes) -> None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnreadableFile("the file is UTF-16; save it as UTF-8")
    if _begins(start, b"["):
        raise UnreadableFile("the file is one JSON array; write each job as a JSON object on a line of its own")


def _csv_rows(text: io.TextIOWrapper, lines: _Lines) -> tuple[tuple[str, ...], Iterator[Row]]:
    header = text.readline(_SNIFF_BYTES)
    if not header.strip():
        raise UnreadableFile("the file is empty: its first line must name the columns")
    delimiter = _delimiter(header)
    columns = _names(header, delimiter)
    if _is_of_rejected_rows(columns):
        columns = tuple(map(unguarded, columns))
    kept = tuple(name for name in columns if name not in REJECTED_COLUMNS)
    if kept != JSON_COLUMNS:
        _check_columns(columns)
    # Strict: a quote that is never closed must not swallow the rows after it as one song's lyrics.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    return kept, _read_csv(reader, lines, columns)


def _is_of_rejected_rows(columns: tuple[str, ...]) -> bool:
    return columns[: len(REJECTED_COLUMNS)] == REJECTED_COLUMNS


def _delimiter(header: str) -> str:
    """The one under which most columns have a name that is known; a comma where there is but one column."""
    return max(DELIMITERS, key=lambda delimiter: sum(map(_is_known, _names(header, delimiter))))


def _names(header: str, delimiter: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True)))


def _is_known(column: str) -> bool:
    return column in _KNOWN or _is_metadata(column)


def _check_columns(columns: tuple[str, ...]) -> None:
    for name in columns:
        if broken := half_texts(name):
            raise UnreadableFile(f"column {mended(name)[:60]!r} {broken[0].message}")
    unknown = [name for name in columns if not _is_known(name)]
    if any("://" in name for name in unknown):
        raise UnreadableFile("the first line must name the columns; it holds a URL")
    if unknown:
        known = ", ".join((*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"))
        raise UnreadableFile(f"unknown column {_first(unknown)}; allowed are {known}")
    if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise UnreadableFile(f"column {_first(twice)} is there twice")
    if not {"audio_url", "persona_id"} & set(columns):
        raise UnreadableFile("a column audio_url or persona_id is required")


def _first(columns: list[str]) -> str:
    """Return the first names, quoted, and how many more there are."""
    named = ", ".join(repr(name[:60]) for name in columns[:COLUMNS_NAMED])
    return named if len(columns) <= COLUMNS_NAMED else f"{named} and {len(columns) - COLUMNS_NAMED:,} more"


def _is_metadata(column: str) -> bool:
    return column.startswith(METADATA) and len(column) > len(METADATA)


def _read_csv(reader: Any, lines: _Lines, columns: tuple[str, ...]) -> Iterator[Row]:
    is_guarded = _is_of_rejected_rows(columns)
    while True:
        line = lines.number + 2  # after the header
        lines.begin()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, {}, None, _csv_trouble(error, line, 1 + lines.number))
            continue
        if any(value.strip() for value in values):
            yield _csv_row(line, columns, [unguarded(value) for value in values] if is_guarded else values)


def _csv_row(line: int, columns: tuple[str, ...], values: list[str]) -> Row:
    pairs = dict(zip(columns, values, strict=False))
    cells = {name: value for name, value in pairs.items() if name not in REJECTED_COLUMNS}
    if len(values) > len(columns):
        trouble = f"has {len(values)} cells, but the header names {len(columns)}; quote cells that hold the delimiter"
        return Row(line, cells, None, trouble, tuple(values[len(columns) :]))
    if any("\0" in value for value in values):
        return Row(line, cells, None, "holds NUL bytes, which are no text")
    if tuple(cells) == JSON_COLUMNS:
        return _json_row(line, cells["row"])
    return Row(line, cells, {name: value.strip() for name, value in cells.items() if value.strip()})


def _csv_trouble(error: csv.Error, first: int, last: int) -> str:
    if last > first:
        return f"lines {first} to {last} are not readable as CSV: {error}; is a quote opened and never closed?"
    return f"not readable as CSV: {error}"


def _json_rows(lines: _Lines) -> Iterator[Row]:
    while True:
        lines.begin()
        try:
            row = next(lines).strip()
        except StopIteration:
            return
        except _TooLong as error:
            yield Row(lines.number, {}, None, str(error))
            continue
        if row:
            yield _json_row(lines.number, row)


def _json_row(line: int, text: str) -> Row:
    cells = {"row": text}
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter: brackets in brackets in brackets …
        return Row(line, cells, None, f"not readable as JSON: {json_trouble(error)}")
    if isinstance(fields, dict):
        return Row(line, cells, fields)
    return Row(line, cells, None, "must be a JSON object")


def _nested(fields: Mapping[str, Any], batch: str) -> dict[str, Any]:
    """A flat row in the shape of `VoiceJob`; what is nested already stays so."""
    if fields.get("batch", batch) != batch:
        raise InvalidJob([Problem("batch", f"is {batch!r} for every row of this file")])
    job: dict[str, Any] = {"batch": batch}
    song: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for name, value in fields.items():
        if name in SONG_COLUMNS:
            song[name] = value
        elif _is_metadata(name):
            metadata[name.removeprefix(METADATA)] = value
        else:
            job[name] = value
    for name, found in (("song", song), ("metadata", metadata)):
        inner = job.get(name) or {}
        if found and isinstance(inner, Mapping):  # anything else is left for `parse` to refuse
            job[name] = {**inner, **found}
    return job
