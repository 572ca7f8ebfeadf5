"""The header of a table: columns by the names that people give them. Pure."""

from __future__ import annotations

import csv
import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from voicequeue.errors import unencodable_fields
from voicequeue.ingest.cells import unguard
from voicequeue.ingest.row import (
    JOB_COLUMNS,
    JSON_COLUMNS,
    METADATA,
    OLD_JSON_COLUMNS,
    REJECTED_COLUMNS,
    SONG_COLUMNS,
    ExtraColumns,
    UnreadableFileError,
    has_guarded_cells,
    rejected_columns,
)
from voicequeue.texts import replace_unencodable

DELIMITERS = ",;\t|"

#: The most columns that an error names; the others are counted.
COLUMNS_LISTED_MAX = 100

#: Rows after the first that are searched for the header.
TITLE_ROWS_MAX = 20

_NAME_SHOWN = 60
_HINTS_MAX = 20

_FIELDS = (*JOB_COLUMNS, *SONG_COLUMNS)

#: Other names of columns, without spaces and signs. Each has one meaning only in a list of recordings and songs.
ALIASES = {
    "audio_url": "audio audiolink audiofile audiofileurl recording recordingurl recordinglink wavurl mp3url",
    "persona_id": "persona",
    "name": "voicename",
    "audio_sha256": "sha256",
    "key": "idempotencykey",
    "callback_url": "callback webhook webhookurl",
    "start_within_s": "startwithinseconds",
    "title": "songtitle songname",
    "prompt": "lyrics lyric songlyrics",
    "description": "songdescription",
    "tags": "style styles genre genres styletags",
    "negative_tags": "negativestyle negativestyles excludestyle excludestyles excludetags",
    "mv": "model modelversion",
    "make_instrumental": "instrumental",
    "vocal_gender": "gender voicegender",
    "style_weight": "styleinfluence",
    "weirdness_constraint": "weirdness",
    "audio_weight": "audioinfluence",
}

#: Names that may mean a column; the error asks.
_HINTS = {
    "audio_url": "url link file filename fileurl filelink path wav mp3 source download downloadurl",
    "prompt": "text words songtext",
}

_NO_LINKS = (
    "no column is named audio_url; rename the one that contains the links of the recordings to audio_url (or the one "
    "with the ids of existing voices to persona_id)"
)

_SIGNS = re.compile(r"[\W_]+")


def _squashed(name: str) -> str:
    """Return a name in lower case, without spaces, hyphens, underscores and other signs."""
    return _SIGNS.sub("", unicodedata.normalize("NFKC", name).casefold())


def _by_name(names: dict[str, str]) -> dict[str, str]:
    return {alias: field for field, aliases in names.items() for alias in aliases.split()}


_BY_NAME = {**_by_name(ALIASES), **{_squashed(field): field for field in _FIELDS}}
_BY_HINT = _by_name(_HINTS)


def field_of(name: str) -> str | None:
    """Return the field that a column means: its name, one of its aliases, or an entry of the metadata."""
    if name in _FIELDS:
        return name
    prefix, entry = name[: len(METADATA)], name[len(METADATA) :].strip()
    if prefix.casefold() == METADATA:
        return METADATA + entry if entry else None
    return _BY_NAME.get(_squashed(name))


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a table.

    `names`: as they are written, '' for a column without a name. `fields`: what each column means, None if it is
    skipped. `is_guarded`: whether the file has rejected rows, whose cells are guarded (cells.py).
    """

    names: tuple[str, ...]
    fields: tuple[str | None, ...]
    is_guarded: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the file's own columns."""
        return _own_columns(self.names)


def read_header(cells: Iterable[str], extra: ExtraColumns) -> Header:
    """Return the header in these cells. Raises UnreadableFileError."""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if is_guarded := has_guarded_cells(names):
        names = [unguard(name) for name in names]
    own_names = _own_columns(names)
    if own_names in (JSON_COLUMNS, OLD_JSON_COLUMNS):
        place = len(names) - 1 - names[::-1].index(own_names[0])
        names[place] = JSON_COLUMNS[0]
        return Header(tuple(names), tuple(name if name in JSON_COLUMNS else None for name in names), is_guarded)
    _check_texts(own_names)
    fields = {name: field_of(name) for name in own_names}
    has_no_links = not {"audio_url", "persona_id"} & set(fields.values())
    unknown = [name for name in own_names if fields[name] is None]
    if unknown and extra is ExtraColumns.METADATA:
        fields |= {name: METADATA + name for name in unknown}
    elif unknown and extra is ExtraColumns.ERROR:
        raise UnreadableFileError((f"{_NO_LINKS}; " if has_no_links else "") + _unknown(unknown))
    _check_unique(own_names, fields)
    if has_no_links:
        shown = _first([repr(name[:_NAME_SHOWN]) for name in own_names]) or "missing"
        raise UnreadableFileError(f"{_NO_LINKS}. The columns are {shown}")
    return Header(tuple(names), tuple(fields.get(name) for name in names), is_guarded)


def _own_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns without those that a file of rejected rows adds. `line` and `reason` may move."""
    own = names[len(rejected_columns(names)) :]
    return tuple(name for name in own if name and name not in ("line", "reason"))


def _check_texts(names: Sequence[str]) -> None:
    for name in names:
        if broken := unencodable_fields(name):
            shown = replace_unencodable(name)[:_NAME_SHOWN]
            raise UnreadableFileError(f"column {shown!r} {broken[0].message}")
    if any("://" in name and field_of(name) is None for name in names):
        raise UnreadableFileError("the first line must name the columns; it contains a URL")


def _unknown(names: list[str]) -> str:
    hints = {name: hint for name in names[:_HINTS_MAX] if (hint := hint_of(name))}
    shown = [
        f"{name[:_NAME_SHOWN]!r}" + (f" (did you mean {hints[name]!r}?)" if name in hints else "") for name in names
    ]
    one = len(names) == 1
    return (
        f"unknown column{'' if one else 's'} {_first(shown)}. Rename or delete {'it' if one else 'them'}, or pass "
        f"--extra ignore (skip) or --extra metadata (keep with each job). Columns are {', '.join(_FIELDS)}, metadata.*"
    )


@lru_cache(maxsize=4_096)
def hint_of(name: str) -> str | None:
    """Return the field that an unknown name may mean."""
    if len(name) > _NAME_SHOWN:
        return None
    squashed = _squashed(name)
    if squashed in _BY_HINT:
        return _BY_HINT[squashed]
    close = difflib.get_close_matches(squashed, _BY_NAME, n=1, cutoff=0.75)
    return _BY_NAME[close[0]] if close else None


def _check_unique(names: Sequence[str], fields: dict[str, str | None]) -> None:
    by_field = defaultdict(list)
    for name in names:
        by_field[fields[name] or f"\0{name}"].append(name)
    twice = {field: group for field, group in by_field.items() if len(group) > 1}
    if not twice:
        return
    same = [repr(group[0][:_NAME_SHOWN]) for group in twice.values() if len(set(group)) == 1]
    if same:
        raise UnreadableFileError(f"column {_first(same)} occurs twice; rename or delete one")
    field, group = next(iter(twice.items()))
    shown = " and ".join(repr(name[:_NAME_SHOWN]) for name in group)
    raise UnreadableFileError(f"columns {shown} both mean {field}; rename or delete one")


def _first(shown: list[str]) -> str:
    """Return the first names, and the number of the others."""
    named = ", ".join(shown[:COLUMNS_LISTED_MAX])
    return named if len(shown) <= COLUMNS_LISTED_MAX else f"{named} and {len(shown) - COLUMNS_LISTED_MAX:,} more"


def looks_like_header(cells: Iterable[str]) -> bool:
    """Return whether cells can be the header: they name the recordings or the voices, or are of rejected rows."""
    names = tuple(cell.strip() for cell in cells)
    return _has_source(names) or bool(rejected_columns(names)) or names in (JSON_COLUMNS, OLD_JSON_COLUMNS)


def _has_source(names: Iterable[str]) -> bool:
    return not {"audio_url", "persona_id"}.isdisjoint(field_of(name[:_NAME_SHOWN]) for name in names)


def misplaced(unit: str, first: int, header: int) -> UnreadableFileError:
    """Return the error of a file whose header is not its first line or row (`unit`)."""
    above = f"{unit} {first}" if header == first + 1 else f"{unit}s {first} to {header - 1}"
    return UnreadableFileError(
        f"{unit} {first} is not a header, but {unit} {header} looks like one; delete {above} above it"
    )


def split_cells(line: str, delimiter: str) -> list[str]:
    """Return the cells of a line."""
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def delimiter_of(line: str) -> str:
    """Return the delimiter that yields the most columns that are known; a comma for a single column.

    If none is known, it is the one that yields the most columns.
    """
    return max(DELIMITERS, key=lambda delimiter: _columns(line, delimiter))


def _columns(line: str, delimiter: str) -> tuple[int, int]:
    """Return the number of columns that are known, and, if none is, of all."""
    try:
        names = [cell.strip() for cell in split_cells(line, delimiter)]
    except csv.Error:
        return 0, 0
    count = sum(name in REJECTED_COLUMNS or field_of(name[:_NAME_SHOWN]) is not None for name in names if name)
    return count, 0 if count else len(names)
