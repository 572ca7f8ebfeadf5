"""Jobs from a file: CSV (any usual delimiter) or JSON Lines, read as a stream.

A row's columns are the fields of `VoiceJob` and, flat beside them, those of its song.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from voicequeue.errors import InvalidJob, Problem, VoiceQueueError
from voicequeue.song import Song
from voicequeue.spec import VoiceJob, parse

JOB_COLUMNS = ("audio_url", "persona_id", "name", "key", "priority", "callback_url", "max_credits")
SONG_COLUMNS = tuple(Song.model_fields)
METADATA = "metadata."

#: What a file of rejected rows has in front, so that it can be mended and ingested as it is.
REJECTED_COLUMNS = ("line", "reason")

DELIMITERS = ",;\t|: "

_SNIFF_BYTES = 65_536


class UnreadableFile(VoiceQueueError, ValueError):
    """The file as a whole cannot be taken; nothing of it was enqueued."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stood in the file; `line` is where it begins, from 1."""

    line: int
    cells: Mapping[str, str]
    fields: Mapping[str, Any] | None  # None: it cannot be read at all
    trouble: str = ""

    def job(self, batch: str) -> VoiceJob:
        """The job that the row describes, with a key of its own. Raises InvalidJob."""
        if self.fields is None:
            raise InvalidJob([Problem("", self.trouble)])
        try:
            return parse(_nested(self.fields, batch)).with_row_key()
        except InvalidJob as error:
            problems = [Problem(problem.field.removeprefix("song."), problem.message) for problem in error.problems]
            raise InvalidJob(problems) from None


class Rows:
    """The rows of an open file. Raises UnreadableFile before the first row, if at all.

    `columns` are the file's own; JSON Lines have one, the row as it stands.
    """

    def __init__(self, raw: BinaryIO) -> None:
        stream = io.BufferedReader(raw, _SNIFF_BYTES) if isinstance(raw, io.RawIOBase) else raw
        start = stream.peek(_SNIFF_BYTES) if isinstance(stream, io.BufferedReader) else b""
        # What is not UTF-8 is kept as such, and rejects its own row only.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            self.columns: tuple[str, ...] = ("row",)
            self._rows = _json_rows(text)
        else:
            self.columns, self._rows = _csv_rows(text)

    def __iter__(self) -> Iterator[Row]:
        return self._rows


def _csv_rows(text: io.TextIOWrapper) -> tuple[tuple[str, ...], Iterator[Row]]:
    header = text.readline()
    if not header.strip():
        raise UnreadableFile("the file is empty: its first line must name the columns")
    delimiter = _delimiter(header)
    columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=delimiter, skipinitialspace=True)))
    _check_columns(columns)
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
    kept = tuple(name for name in columns if name not in REJECTED_COLUMNS)
    return kept, _read_csv(reader, columns)


def _delimiter(header: str) -> str:
    try:
        return csv.Sniffer().sniff(header, DELIMITERS).delimiter
    except csv.Error:
        return ","  # one column


def _check_columns(columns: tuple[str, ...]) -> None:
    allowed = {*JOB_COLUMNS, *SONG_COLUMNS, *REJECTED_COLUMNS}
    unknown = [name for name in columns if name not in allowed and not _is_metadata(name)]
    if unknown:
        known = ", ".join((*JOB_COLUMNS, *SONG_COLUMNS, "metadata.*"))
        raise UnreadableFile(f"unknown column {', '.join(map(repr, unknown))}; allowed are {known}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UnreadableFile(f"column {', '.join(map(repr, twice))} is there twice")
    if not {"audio_url", "persona_id"} & set(columns):
        raise UnreadableFile("a column audio_url or persona_id is required")


def _is_metadata(column: str) -> bool:
    return column.startswith(METADATA) and len(column) > len(METADATA)


def _read_csv(reader: Any, columns: tuple[str, ...]) -> Iterator[Row]:
    ended = 1  # the header
    while True:
        line = ended + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, {}, None, f"not readable as CSV: {error}")
            continue
        finally:
            ended = 1 + reader.line_num
        if any(value.strip() for value in values):
            yield _csv_row(line, columns, values)


def _csv_row(line: int, columns: tuple[str, ...], values: list[str]) -> Row:
    pairs = dict(zip(columns, values, strict=False))
    cells = {name: value for name, value in pairs.items() if name not in REJECTED_COLUMNS}
    if len(values) > len(columns):
        trouble = f"has {len(values)} cells, but the header names {len(columns)}; quote cells that hold the delimiter"
        return Row(line, cells, None, trouble)
    return Row(line, cells, {name: value for name, value in cells.items() if value.strip()})


def _json_rows(text: io.TextIOWrapper) -> Iterator[Row]:
    for line, row in enumerate(text, start=1):
        if not row.strip():
            continue
        cells = {"row": row.strip()}
        try:
            fields = json.loads(row)
        except ValueError as error:
            yield Row(line, cells, None, f"not readable as JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield Row(line, cells, fields)
        else:
            yield Row(line, cells, None, "must be a JSON object")


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
        if found:
            inner = job.get(name)
            job[name] = {**(inner if isinstance(inner, Mapping) else {}), **found}
    return job
