"""Read jobs from a file as a stream: CSV with any usual delimiter, or JSON Lines.

The columns are the fields of `VoiceJob` and, on the same level, those of its song.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from voicequeue.errors import unencodable_fields
from voicequeue.ingest.cells import unguard
from voicequeue.ingest.row import (
    JOB_COLUMNS,
    JSON_COLUMNS,
    REJECTED_COLUMNS,
    SONG_COLUMNS,
    FileFormat,
    FileKind,
    Position,
    ReadOptions,
    Row,
    UnreadableFileError,
    is_metadata,
)
from voicequeue.texts import describe_json_error, replace_unencodable

DELIMITERS = ",;\t|"

_COLUMNS = frozenset((*JOB_COLUMNS, *SONG_COLUMNS, *REJECTED_COLUMNS))

_SNIFF_BYTES = 65_536

#: The most columns that an error names; the others are counted.
COLUMNS_LISTED_MAX = 20

#: The most characters of one row, so that no file can exhaust the memory.
ROW_MAX = 1_048_576


class _Borrowed(io.RawIOBase):
    """A reader of the caller's file, seekable or not, that does not close it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        # read1 returns what is available: a row of a pipe does not wait for the next.
        self._read: Callable[[int], bytes | None] = getattr(file, "read1", file.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._read(len(buffer)) or b""
        buffer[: len(piece)] = piece
        return len(piece)


_DEFAULT = ReadOptions()


class RowReader:
    """The rows of an open file. Raises UnreadableFileError before the first row, if the file is invalid.

    `columns` are the file's own; JSON Lines have one, the whole row. `format` is how the file is written.
    """

    def __init__(self, raw: BinaryIO, options: ReadOptions = _DEFAULT) -> None:
        self.options = options
        stream = io.BufferedReader(_Borrowed(raw), _SNIFF_BYTES)
        start = stream.peek(_SNIFF_BYTES)
        _check_start(start)
        # Invalid UTF-8 is kept as surrogates, so that it invalidates its own row only.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._lines = _Lines(text)
        if _starts_with(start, b"{"):
            self.columns: tuple[str, ...] = JSON_COLUMNS
            self.format = FileFormat(FileKind.JSON)
            self._rows = _json_rows(self._lines)
        else:
            self.columns, self._rows = _csv_rows(text, self._lines)
            self.format = FileFormat()

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def position(self) -> Position:
        """The place after the last row."""
        return Position(self._lines.number)

    def skip_to(self, position: Position) -> None:
        """Skip the rows before a former `position` without parsing them."""
        self._lines.skip(position.lines)


class _Lines:
    """The lines of a text, of which each row may take up to ROW_MAX characters. Call `start_row` before each row.

    `number`: the lines read after the header. Raises _TooLong instead of returning further lines of a row that is too
    long, and skips the rest of the line.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self._read = text.readline
        self.start_row()

    def start_row(self) -> None:
        """Start a new row."""
        self._remaining = ROW_MAX

    def skip(self, count: int) -> None:
        """Skip lines without parsing them."""
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
        self._remaining -= len(line)
        if self._remaining < 0:
            while line and not line.endswith("\n"):
                line = self._read(ROW_MAX)
            raise _TooLong
        return line


class _TooLong(csv.Error):
    def __str__(self) -> str:
        return f"a row has more than {ROW_MAX:,} characters"


def _starts_with(start: bytes, sign: bytes) -> bool:
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(sign)


def _check_start(start: bytes) -> None:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UnreadableFileError("the file is UTF-16; save it as UTF-8")
    if _starts_with(start, b"["):
        raise UnreadableFileError("the file is one JSON array; write each job as a JSON object on a line of its own")


def _csv_rows(text: io.TextIOWrapper, lines: _Lines) -> tuple[tuple[str, ...], Iterator[Row]]:
    header = text.readline(_SNIFF_BYTES)
    if not header.strip():
        raise UnreadableFileError("the file is empty: its first line must name the columns")
    delimiter = _delimiter(header)
    columns = _names(header, delimiter)
    if _has_rejected_rows(columns):
        columns = tuple(map(unguard, columns))
    own_columns = tuple(name for name in columns if name not in REJECTED_COLUMNS)
    if own_columns != JSON_COLUMNS:
        _check_columns(columns)
    # Strict: an unclosed quote must not take all following rows as one cell.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    return own_columns, _read_csv(reader, lines, columns)


def _has_rejected_rows(columns: tuple[str, ...]) -> bool:
    return columns[: len(REJECTED_COLUMNS)] == REJECTED_COLUMNS


def _delimiter(header: str) -> str:
    """Return the delimiter that yields the most valid column names; a comma for a single column."""
    return max(DELIMITERS, key=lambda delimiter: sum(map(_is_valid_column, _names(header, delimiter))))


def _names(header: str, delimiter: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True)))


def _is_valid_column(column: str) -> bool:
    return column in _COLUMNS or is_metadata(column)


def _check_columns(columns: tuple[str, ...]) -> None:
    for name in columns:
        if broken := unencodable_fields(name):
            raise UnreadableFileError(f"column {replace_unencodable(name)[:60]!r} {broken[0].message}")
    unknown = [name for name in columns if not _is_valid_column(name)]
    if any("://" in name for name in unknown):
        raise UnreadableFileError("the first line must name the columns; it contains a URL")
    if unknown:
        allowed = ", ".join((*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"))
        raise UnreadableFileError(f"unknown column {_first(unknown)}; allowed are {allowed}")
    if duplicates := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise UnreadableFileError(f"column {_first(duplicates)} occurs twice")
    if not {"audio_url", "persona_id"} & set(columns):
        raise UnreadableFileError("a column audio_url or persona_id is required")


def _first(columns: list[str]) -> str:
    """Return the first names, quoted, and the number of the others."""
    named = ", ".join(repr(name[:60]) for name in columns[:COLUMNS_LISTED_MAX])
    return named if len(columns) <= COLUMNS_LISTED_MAX else f"{named} and {len(columns) - COLUMNS_LISTED_MAX:,} more"


def _read_csv(reader: Any, lines: _Lines, columns: tuple[str, ...]) -> Iterator[Row]:
    is_guarded = _has_rejected_rows(columns)
    while True:
        line = lines.number + 2  # after the header
        lines.start_row()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, {}, None, _csv_error(error, line, 1 + lines.number))
            continue
        if any(value.strip() for value in values):
            yield _csv_row(line, columns, [unguard(value) for value in values] if is_guarded else values)


def _csv_row(line: int, columns: tuple[str, ...], values: list[str]) -> Row:
    pairs = dict(zip(columns, values, strict=False))
    cells = {name: value for name, value in pairs.items() if name not in REJECTED_COLUMNS}
    if len(values) > len(columns):
        trouble = (
            f"has {len(values)} cells, but the header names {len(columns)}; quote cells that contain the delimiter"
        )
        return Row(line, cells, None, trouble, tuple(values[len(columns) :]))
    if any("\0" in value for value in values):
        return Row(line, cells, None, "contains NUL bytes")
    if tuple(cells) == JSON_COLUMNS:
        return _json_row(line, cells["row"])
    return Row(line, cells, {name: value.strip() for name, value in cells.items() if value.strip()})


def _csv_error(error: csv.Error, first: int, last: int) -> str:
    if last > first:
        return f"lines {first} to {last} are not readable as CSV: {error}; is a quote opened and never closed?"
    return f"not readable as CSV: {error}"


def _json_rows(lines: _Lines) -> Iterator[Row]:
    while True:
        lines.start_row()
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
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        return Row(line, cells, None, f"not readable as JSON: {describe_json_error(error)}")
    if isinstance(fields, dict):
        return Row(line, cells, fields)
    return Row(line, cells, None, "must be a JSON object")
