"""Field access in upstream's response bodies of any shape.

Names are compared without case and punctuation, and wrapper objects ("envelopes") are unwrapped. Pure; no function
raises on an unexpected body.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from voicequeue.domain.clip import Phase, normalize, phase_of
from voicequeue.texts import parse_float, replace_unencodable

#: The fields of a JSON object, by normalized name.
Fields = Mapping[str, Any]

#: Maximum length of a message that is kept, in characters.
MESSAGE_MAX = 500

#: Fields that hold the songs of a task (a list or a single song), and fields that wrap a result.
_SONGS = ("clips", "songs", "tracks", "audios", "clip", "song", "track")
_WRAPPERS = (
    "data", "result", "results", "response", "output", "outputs", "payload", "items", "list", "records",
    "task", "tasks", "music", "voice", "persona",
)  # fmt: skip

_STATES = tuple(f"{prefix}{name}" for prefix in ("", "task", "job", "voice", "persona") for name in ("state", "status"))
#: Fields that are false in an object that is not ready.
_READY = ("ready", "isready", "finished", "isfinished", "iscompleted", "isdone")
_MESSAGES = ("error", "message", "msg", "detail", "errors", "errormessage", "errormsg", "reason", "failreason")
_ERRORS = ("error", "errors", "errormessage", "errormsg", "failreason")
_CODES = ("code", "statuscode", "errorcode", "httpcode", "status")

#: Maximum nesting of wrappers.
_DEPTH = 8

#: Of several state words in one object, the one with the lowest index counts.
_PHASE_ORDER = (Phase.FAILED, Phase.WORKING, Phase.DONE, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """One object of a body.

    `name` is the field that contains it, and `outer_state` the state word of the object around it.
    """

    fields: Fields
    outer_state: str
    name: str = ""

    @property
    def state(self) -> str:
        """The state word of the object or, failing that, of the object around it; may be empty."""
        return state_word(self.fields) or self.outer_state


@dataclass(frozen=True, slots=True)
class UnwrappedBody:
    """A body as its envelopes, outermost first, and their items; an item is None where it is not an object."""

    envelopes: list[JsonObject] = field(default_factory=list)
    items: list[JsonObject | None] = field(default_factory=list)

    @property
    def innermost_first(self) -> Iterator[JsonObject]:
        """Every object of the body."""
        yield from (item for item in self.items if item)
        yield from reversed(self.envelopes)


def unwrap(body: Any) -> UnwrappedBody:
    """Return the envelopes and items of a body."""
    unwrapped = UnwrappedBody()
    _unwrap_into(unwrapped, body, JsonObject({}, ""), is_song=False, depth=_DEPTH)
    if not unwrapped.items:
        unwrapped.items.extend(envelope for envelope in unwrapped.envelopes if has_song_fields(envelope))
    return unwrapped


def _unwrap_into(unwrapped: UnwrappedBody, value: Any, place: JsonObject, *, is_song: bool, depth: int) -> None:
    """Add the objects in `value`; `place` is their object without fields."""
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value) and depth:
        for element in value:
            _unwrap_into(unwrapped, element, place, is_song=True, depth=depth - 1)
    elif isinstance(value, dict) and depth:
        item = replace(place, fields=normalized(value))
        nested = [name for name in (*_SONGS, *_WRAPPERS) if isinstance(item.fields.get(name), dict | list)]
        if is_song and (not nested or has_song_fields(item)):
            unwrapped.items.append(item)
            return
        unwrapped.envelopes.append(item)
        for name in nested:
            inner = JsonObject({}, item.state, name)
            _unwrap_into(unwrapped, item.fields[name], inner, is_song=name in _SONGS, depth=depth - 1)
    elif is_song and not isinstance(value, list):
        unwrapped.items.append(None)


def has_song_fields(item: JsonObject) -> bool:
    """Return whether an object is a song by its fields."""
    return "clipid" in item.fields or "audiourl" in item.fields


def is_song(item: JsonObject) -> bool:
    """Return whether an object is a song by its fields or by the field that contains it."""
    return item.name in _SONGS or has_song_fields(item)


def normalized(body: Mapping[str, Any]) -> Fields:
    """Return the fields by normalized name; of two equal names the first with a value counts."""
    fields: dict[str, Any] = {}
    for name, value in body.items():
        if fields.get(normalize(name)) in (None, ""):
            fields[normalize(name)] = value
    return fields


def first_text(fields: Fields, names: Iterable[str]) -> str | None:
    """Return the first text in these fields."""
    return next((text for name in names if (text := to_text(fields.get(name)))), None)


def state_words(fields: Fields) -> list[str]:
    """Return the state words of an object in lower case; numbers in their place are left out."""
    texts = (to_text(fields.get(name)) for name in _STATES)
    words = [text.lower() for text in texts if text and to_number(text) is None]
    is_typed = normalize(to_text(fields.get("type")) or "") == "notready"
    if is_typed or any(normalize(str(fields.get(name))) == "false" for name in _READY):
        words.append("not_ready")
    return words


def state_word(fields: Fields) -> str:
    """Return the least advanced state word of an object; may be empty."""
    return least_advanced(state_words(fields))


def least_advanced(words: Iterable[str]) -> str:
    """Return the least advanced state word, an unknown one only if there is no other; may be empty."""
    return min(words, key=lambda word: _PHASE_ORDER.index(phase_of(word)), default="")


def error_text(fields: Fields) -> str | None:
    """Return the error text of an object, even if the object does not report a failure."""
    texts = (_message_text(fields.get(name)) for name in _ERRORS)
    none = ("none", "null", "noerror")
    return next(
        (text for text in texts if text and normalize(text) not in none and phase_of(text) is not Phase.DONE), None
    )


def is_unsuccessful(fields: Fields) -> bool:
    """Return whether an object explicitly says that it is not a success."""
    return any(normalize(str(fields.get(name))) == "false" for name in ("success", "succeeded", "ok"))


def message_in(body: Any) -> str | None:
    """Return the message of a body: `error`, `message` and similar, at the top or in `data`, nested or in a list."""
    if not isinstance(body, Mapping):
        return None
    data = body.get("data")
    places = [normalized(place) for place in (body, data) if isinstance(place, Mapping)]
    texts = [text for fields in places for name in _MESSAGES if (text := _message_text(fields.get(name)))]
    texts.sort(key=lambda text: phase_of(text) is Phase.DONE)  # the "success" of an envelope comes last
    return texts[0][:MESSAGE_MAX] if texts else None


def _message_text(value: Any) -> str | None:
    if isinstance(value, list):
        value = next((element for element in value if element), None)
    if isinstance(value, dict):
        return first_text(normalized(value), _MESSAGES)
    return to_text(value)


def status_code_in(body: Any) -> int | None:
    """Return the status code of a body, a number or a numeric text, at the top or in `error`."""
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    places = [normalized(place) for place in (body, inner) if isinstance(place, Mapping)]
    numbers = (to_number(fields.get(name)) for fields in places for name in _CODES)
    return next((int(number) for number in numbers if number is not None), None)


def to_number(value: Any) -> float | None:
    """Return a number or a numeric text as a float; None for any other value."""
    if is_number(value):
        return float(value)
    return parse_float(value) if isinstance(value, str) else None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Return whether a value is a number that fits into a float."""
    # In Python, JSON's true is an int, and the parser accepts NaN, Infinity and numbers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def to_text(value: Any) -> str | None:
    """Return a non-empty string that can be stored; None for any other value.

    Unpaired surrogates, which JSON may escape, are replaced: a truncated title must not lose a paid result.
    """
    if not isinstance(value, str):
        return None
    return replace_unencodable(value.strip()) or None
