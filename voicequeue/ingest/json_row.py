"""Turn a JSON object into a row. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from voicequeue.ingest.header import field_of, hint_of
from voicequeue.ingest.row import (
    JOB_COLUMNS,
    JSON_COLUMNS,
    METADATA,
    SONG_COLUMNS,
    ExtraColumns,
    ReadOptions,
    Row,
    is_metadata,
)
from voicequeue.ingest.values import json_errors
from voicequeue.texts import describe_json_error, replace_unencodable

_NAMES = frozenset((*JOB_COLUMNS, *SONG_COLUMNS, "song", "songs", "metadata", "batch"))
_SHOWN = 60
_HINTS_MAX = 3


class _InvalidJson(ValueError):
    """JSON that has no certain meaning."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise _InvalidJson(f"the field {replace_unencodable(twice)[:_SHOWN]!r} occurs twice")
    return fields


def _constant(name: str) -> float:
    raise _InvalidJson(f"{name} is not a number")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


def json_row(line: int, number: int, text: str, options: ReadOptions, *, cut: str = "") -> Row:
    """Return the row of a JSON object. `cut` is added to the error of one that is not readable."""
    cells = dict.fromkeys(JSON_COLUMNS, text)
    try:
        fields = _decode(text)
    except _InvalidJson as error:
        return Row(line, cells, None, str(error), (), number)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        return Row(line, cells, None, f"not readable as JSON: {describe_json_error(error)}{cut}", (), number)
    if not isinstance(fields, dict):
        return Row(line, cells, None, "must be a JSON object", (), number)
    if errors := json_errors(fields) or _misplaced(fields, options):
        return Row(line, cells, None, "; ".join(errors), (), number)
    return Row(line, cells, _with_texts(_with_extra(fields, options.extra_columns)), "", (), number)


def _misplaced(fields: Mapping[str, Any], options: ReadOptions) -> list[str]:
    """Return the names that are wrong here and have a cure: a list of rows inside an object, and misspelled fields."""
    unknown = [name for name in fields if name not in _NAMES and not is_metadata(name)]
    if not {"audio_url", "persona_id"} & fields.keys():
        for name in unknown:
            if isinstance(fields[name], list) and any(isinstance(element, dict) for element in fields[name]):
                return [
                    f"{replace_unencodable(name)[:_SHOWN]!r} contains a list: the list must be the outermost value of "
                    "the file, from [ to ]"
                ]
    if options.extra_columns is not ExtraColumns.ERROR:
        return []
    if len(unknown) > _HINTS_MAX:  # another kind of object; a search for each name of each row takes long
        return []
    hints = [(name, field_of(name) or hint_of(name)) for name in unknown]
    return [f"{replace_unencodable(name)}: is not known here; did you mean {hint!r}?" for name, hint in hints if hint]


def _with_extra(fields: dict[str, Any], extra: ExtraColumns) -> dict[str, Any]:
    """Return the fields as the caller treats unknown ones; others reject the row."""
    if extra is ExtraColumns.ERROR or fields.keys() <= _NAMES:
        return fields
    unknown = {name for name in fields if name not in _NAMES and not is_metadata(name)}
    if extra is ExtraColumns.IGNORE:
        return {name: value for name, value in fields.items() if name not in unknown}
    return {METADATA + name if name in unknown else name: value for name, value in fields.items()}


def _with_texts(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with numbers, booleans and null in the metadata as text; null is no entry."""
    nested = fields.get("metadata")
    if isinstance(nested, Mapping):
        fields = {**fields, "metadata": {name: _text(value) for name, value in nested.items() if value is not None}}
    if any(name.startswith(METADATA) for name in fields):
        fields = {
            name: _text(value) if is_metadata(name) else value
            for name, value in fields.items()
            if value is not None or not is_metadata(name)
        }
    return fields


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | int | float) else value
