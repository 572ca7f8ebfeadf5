"""Ids in upstream's response bodies: of tasks, clips and personas. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.musicapi import errors
from tasks.musicapi.response_body import Fields, UnwrappedBody, is_number, is_song, unwrap
from voicequeue.domain.clip import normalize
from voicequeue.texts import replace_unencodable

#: The form of an id that only its place identifies: it contains a digit and no space.
_BARE_ID = re.compile(r"(?=\D*\d)[\w.:~-]{1,200}", re.ASCII)
_NOT_AN_ID = frozenset({"null", "none", "nil", "undefined"})
_NUMERIC_ID_LIMIT = 10**100
#: The largest float up to which every integer is exact.
_EXACT_INTEGER_MAX = 2.0**53


def named_task_ids(body: Any) -> Iterator[Any]:
    """Yield the values of fields named `task_id`, outermost first."""
    return _values(unwrap(body), "taskid", "taskids")


def unnamed_task_ids(body: Any) -> Iterator[Any]:
    """Yield the values that are a task id by their place, the most likely first.

    An `id` beside a refusal at the top is that of the request, and an `id` in a song is that of the song.
    """
    unwrapped = unwrap(body)
    yield from _values(unwrapped, "jobid", "jobids")
    if isinstance(body, list):
        yield from filter(_is_bare_id, body[:1])
    if not isinstance(body, dict):
        return
    inner = [*unwrapped.envelopes[1:], *(item for item in unwrapped.items if item)]
    yield from (item.fields.get("id") for item in inner if item.name != "persona" and not is_song(item))
    if errors.error_status_in(body) is None:
        yield Fields.of(body).get("id")
        values = _values(UnwrappedBody(unwrapped.envelopes), "data", "result", "task")
        firsts = (value[0] if isinstance(value, list) and value else value for value in values)
        yield from (value for value in firsts if _is_bare_id(value) or is_number(value))


def _values(unwrapped: UnwrappedBody, *names: str) -> Iterator[Any]:
    """Yield the values of the fields with these names, outermost first."""
    objects = [*unwrapped.envelopes, *(item for item in unwrapped.items if item)]
    yield from (item.fields.get(name) for item in objects for name in names)


def first_id(values: Iterable[Any]) -> str | None:
    """Return the first value that is an id, even a damaged one: a later value is the id of something else."""
    return next((text for text in map(_id_text, values) if text), None)


def intact(text: str | None) -> str | None:
    """Return an id that can be sent unchanged; None for one with an unpaired surrogate, which would name another
    task once replaced."""
    return text if text is None or replace_unencodable(text) == text else None


def _is_bare_id(value: Any) -> bool:
    return isinstance(value, str) and _BARE_ID.fullmatch(value.strip()) is not None


def _id_text(value: Any) -> str | None:
    """Return an id as text: the first of a list, the own id of an object."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        fields = Fields.of(value)
        value = next((fields[name] for name in ("taskid", "id") if fields.get(name)), None)
    if isinstance(value, float) and value.is_integer() and value <= _EXACT_INTEGER_MAX:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 < value < _NUMERIC_ID_LIMIT else None
    text = value.strip() if isinstance(value, str) else ""
    return None if not text or normalize(text) in _NOT_AN_ID else text
