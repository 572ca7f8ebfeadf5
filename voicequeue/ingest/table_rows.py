"""Turn the cells of a table, from CSV or Excel, into rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from voicequeue.domain.spec import SOURCE_ROW_MAX
from voicequeue.ingest.cells import unguard
from voicequeue.ingest.header import Header
from voicequeue.ingest.json_row import json_row
from voicequeue.ingest.row import JSON_COLUMNS, SONG_COLUMNS, Origin, ReadOptions, Row, rejected_columns
from voicequeue.ingest.values import SUSPECT, converter, invalid_cell

_SHOWN = 40
_SONG_FIELDS = frozenset(SONG_COLUMNS)
_WORDS = frozenset(("prompt", "description"))
_DIGITS = re.compile("[0-9]{1,16}")
_INCOMPLETE = "complete it, or pass --accept-incomplete if"


class Table:
    """The rows of a table with this header."""

    def __init__(self, header: Header, options: ReadOptions) -> None:
        self._header = header
        self._options = options
        self._width = len(header.names)
        self._is_json = header.columns == JSON_COLUMNS
        self._own_columns = frozenset(header.columns)
        self._rejected_columns = rejected_columns(header.names)
        self._has_own_columns_only = len(header.columns) == self._width
        self._nameless = [place for place, name in enumerate(header.names) if not name]
        self._has_song = not _SONG_FIELDS.isdisjoint(header.fields)
        self._columns = [(field, converter(field) if field else None) for field in header.fields]

    def row(self, line: int, number: int, values: Sequence[str], error: str = "") -> Row:
        """Return the row with these cells. `error`: why it is unreadable, if that is known already."""
        if self._header.is_guarded:
            values = [unguard(value) for value in values]
        row = self._row(line, number, values, error)
        return replace(row, origin=self._origin(values)) if self._rejected_columns else row

    def _row(self, line: int, number: int, values: Sequence[str], error: str) -> Row:
        extra = _without_empty_end(values[self._width :])
        cells = self._cells(values)
        if problem := error or self._problem_of(values, extra):
            return Row(line, cells, None, problem, extra, number)
        if self._is_json:
            return json_row(line, number, cells.get(*JSON_COLUMNS, ""), self._options)
        return self._typed(line, number, cells, values)

    def _cells(self, values: Sequence[str]) -> dict[str, str]:
        pairs = zip(self._header.names, values, strict=False)
        if self._has_own_columns_only:
            return dict(pairs)
        return {name: value for name, value in pairs if name in self._own_columns}

    def _origin(self, values: Sequence[str]) -> Origin:
        places = {name: _number(value) for name, value in zip(self._rejected_columns, values, strict=False)}
        return Origin(places.get("row", 0), places.get("line", 0))

    def _problem_of(self, values: Sequence[str], extra: tuple[str, ...]) -> str:
        width = self._width
        if extra:
            return (
                f"has {width + len(extra)} cells, but the header names {width}; quote cells that contain the "
                "delimiter, or name the further columns"
            )
        if len(values) < width and not self._options.accept_incomplete:
            cells = "1 cell" if len(values) == 1 else f"{len(values)} cells"
            return (
                f"has {cells}, but the header names {width}, so it may be cut off; {_INCOMPLETE} the "
                "missing cells are empty"
            )
        if any("\0" in value for value in values):
            return "contains NUL bytes"
        for place in self._nameless:
            if place < len(values) and (value := values[place].strip()):
                return (
                    f"has {value[:_SHOWN]!r} in column {place + 1}, which has no name in the header; name it there, or "
                    f"delete column {_letters(place)}"
                )
        if values and values[0].strip() == self._header.names[0] and self._is_header(values):
            return "repeats the header; delete the row"
        return ""

    def _is_header(self, values: Sequence[str]) -> bool:
        return tuple(value.strip() for value in values[: self._width]) == self._header.names

    def _typed(self, line: int, number: int, cells: dict[str, str], values: Sequence[str]) -> Row:
        fields = {}
        errors = []
        for (field, convert), value in zip(self._columns, values, strict=False):
            text = value.strip()
            if not text or field is None:
                continue
            if text[0] in SUSPECT and (problem := invalid_cell(text)):
                errors.append(f"{field}: {problem}")
            elif convert is None:
                fields[field] = text
            else:
                try:
                    fields[field] = convert(text)
                except ValueError as error:
                    errors.append(f"{field}: {error}")
        if self._has_song and not errors and (problem := _without_words(fields)):
            errors.append(problem)
        if errors:
            return Row(line, cells, None, "; ".join(errors), (), number)
        return Row(line, cells, fields, "", (), number)


def _without_words(fields: Mapping[str, str]) -> str:
    """Return why a row that describes a song has nothing to sing; '' if it has, or describes none."""
    if not _WORDS.isdisjoint(fields) or fields.get("custom_mode") == "false":
        return ""
    names = [name for name in fields if name in _SONG_FIELDS]
    if not names or "true" in (fields.get("make_instrumental"), fields.get("auto_lyrics")):
        return ""
    return (
        f"has {' and '.join(names)}, but no lyrics: fill in the column prompt (lyrics) or description, or write yes in "
        f"make_instrumental or auto_lyrics; for a voice without a song, clear {' and '.join(names)}"
    )


def _letters(place: int) -> str:
    """Return the letters that a spreadsheet program shows for a column, from 0."""
    before, letter = divmod(place, 26)
    return (_letters(before - 1) if before else "") + chr(65 + letter)


def _number(text: str) -> int:
    """Return the number of a row or line, which a spreadsheet program may have written as 7.0; 0 if it is none."""
    digits = text.strip().removesuffix(".0")
    number = int(digits) if _DIGITS.fullmatch(digits) else 0
    return number if number <= SOURCE_ROW_MAX else 0


def _without_empty_end(cells: Sequence[str]) -> tuple[str, ...]:
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return tuple(cells[:end])
