"""Field access in upstream's response bodies of any shape.

Names are compared without case and punctuation, and wrapper objects ("envelopes") are unwrapped. Pure; no function
raises on an unexpected body.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeGuard, TypeVar

from voicequeue.domain.clip import Phase, normalize, phase_of
from voicequeue.texts import parse_float, replace_unencodable

#: Maximum length of a message that is kept, in characters.
MESSAGE_MAX = 500

#: Fields that hold the songs of a task (a list or a single song), and fields that wrap a result.
_SONGS = ("clips", "songs", "tracks", "audios", "clip", "song", "track")
_WRAPPERS = (
    "data", "result", "results", "response", "output", "outputs", "payload", "items", "list", "records",
    "task", "tasks", "music", "voice", "persona",
)  # fmt: skip

_NESTED = (*_SONGS, *_WRAPPERS)

_STATES = tuple(f"{prefix}{name}" for prefix in ("", "task", "job", "voice", "persona") for name in ("state", "status"))
#: Fields that are false in an object that is not ready.
_READY = ("ready", "isready", "finished", "isfinished", "iscompleted", "isdone")
_MESSAGES = ("error", "message", "msg", "detail", "errors", "errormessage", "errormsg", "reason", "failreason")
_ERRORS = ("error", "errors", "errormessage", "errormsg", "failreason")
_SUCCESS = ("success", "succeeded", "ok")
_NO_ERROR = ("none", "null", "noerror")
_CODES = ("code", "statuscode", "errorcode", "httpcode", "status")

#: Names by which songs are known outside a field for songs.
_SONG = ("clipid", "audiourl")

#: Bits of the groups that a name belongs to. Most objects have no field of most groups, and their names need not be
#: looked for one by one.
_STATE_BIT, _READY_BIT, _MESSAGE_BIT, _ERROR_BIT, _SUCCESS_BIT, _CODE_BIT, _NESTED_BIT, _SONG_BIT = (
    1 << n for n in range(8)
)
_GROUPS = (
    (_STATE_BIT, _STATES), (_READY_BIT, (*_READY, "type")), (_MESSAGE_BIT, _MESSAGES), (_ERROR_BIT, _ERRORS),
    (_SUCCESS_BIT, _SUCCESS), (_CODE_BIT, _CODES), (_NESTED_BIT, _NESTED), (_SONG_BIT, _SONG),
)  # fmt: skip

#: The number of names whose groups are kept, and their maximum length.
_KEPT_NAMES, _KEPT_LENGTH = 500, 60

#: Maximum nesting of wrappers.
_DEPTH = 8

#: Of several state words in one object, the one with the lowest index counts.
_PHASE_ORDER = (Phase.FAILED, Phase.WORKING, Phase.DONE, Phase.UNKNOWN)


T = TypeVar("T")


class _derived_property(Generic[T]):  # noqa: N801  it is used like `property`
    """A property that is computed once. Unlike that of functools (before Python 3.12), it has no lock."""

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        value: T = self._function(instance)
        instance.__dict__[self._name] = value
        return value


class Fields(dict[str, Any]):
    """The fields of a JSON object, by normalized name; of two equal names the first with a value counts.

    What they say is derived once, as one body is examined from several sides.
    """

    #: Bits of the groups of which it has fields.
    groups = 0

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Fields:
        """Return the fields of an object."""
        if isinstance(body, Fields):
            return body
        fields, groups = cls(), 0
        for name, value in body.items():
            key, groups_of_name = _named(name) if len(name) <= _KEPT_LENGTH else (normalize(name), 0)
            groups |= groups_of_name
            if fields.get(key) in (None, ""):
                fields[key] = value
        fields.groups = groups
        return fields

    def nested(self, name: str) -> Any:
        """Return the value of a field; an object as its fields, which are kept."""
        value = self.get(name)
        if isinstance(value, dict) and not isinstance(value, Fields):
            value = self[name] = Fields.of(value)
        return value

    def with_objects_in(self, name: str) -> list[Fields]:
        """Return these fields, and those of the object in a field."""
        inner = self.nested(name)
        return [self, inner] if isinstance(inner, Fields) else [self]

    @_derived_property
    def state_words(self) -> list[str]:
        """The state words in lower case; numbers in their place are left out."""
        words: list[str] = []
        if self.groups & _STATE_BIT:
            texts = [text for name in _STATES if name in self and (text := to_text(self[name]))]
            words = [text.lower() for text in texts if to_number(text) is None]
        if self.groups & _READY_BIT and (
            self._is_false(_READY) or ("type" in self and normalize(to_text(self["type"]) or "") == "notready")
        ):
            words.append("not_ready")
        return words

    @_derived_property
    def state_word(self) -> str:
        """The least advanced state word; may be empty."""
        return least_advanced(self.state_words)

    @_derived_property
    def message(self) -> str | None:
        """The message: `error`, `message` and similar, at the top or in `data`, nested or in a list."""
        texts = [text for fields in self.with_objects_in("data") for text in fields._message_texts()]
        texts.sort(key=lambda text: phase_of(text) is Phase.DONE)  # the "success" of an envelope comes last
        return texts[0][:MESSAGE_MAX] if texts else None

    @_derived_property
    def error_text(self) -> str | None:
        """The error text, even if the object does not report a failure."""
        names = _ERRORS if self.groups & _ERROR_BIT else ()
        texts = (text for name in names if name in self and (text := _message_text(self[name])))
        errors = (text for text in texts if normalize(text) not in _NO_ERROR)
        return next((text for text in errors if phase_of(text) is not Phase.DONE), None)

    @_derived_property
    def status_code(self) -> int | None:
        """The status code, a number or a numeric text, at the top or in `error`."""
        for fields in self.with_objects_in("error"):
            for name in _CODES if fields.groups & _CODE_BIT else ():
                if name in fields and (number := to_number(fields[name])) is not None:
                    return int(number)
        return None

    @_derived_property
    def is_unsuccessful(self) -> bool:
        """True if the object explicitly says that it is not a success."""
        return bool(self.groups & _SUCCESS_BIT) and self._is_false(_SUCCESS)

    @property
    def has_song(self) -> bool:
        """True if it is a song by its fields."""
        return bool(self.groups & _SONG_BIT)

    @_derived_property
    def wrapped(self) -> list[str]:
        """The names of the fields that may wrap a result or songs."""
        if not self.groups & _NESTED_BIT:
            return []
        return [name for name in _NESTED if name in self and isinstance(self[name], dict | list)]

    def _is_false(self, names: Iterable[str]) -> bool:
        return any(name in self and normalize(str(self[name])) == "false" for name in names)

    def _message_texts(self) -> list[str]:
        if not self.groups & _MESSAGE_BIT:
            return []
        return [text for name in _MESSAGES if name in self and (text := _message_text(self[name]))]


@lru_cache(_KEPT_NAMES)
def _named(name: str) -> tuple[str, int]:
    """Return a name normalized, and the bits of its groups."""
    key = normalize(name)
    return key, sum(bit for bit, names in _GROUPS if key in names)


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
        return self.fields.state_word or self.outer_state


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
    _unwrap_into(unwrapped, body, ("", ""), is_song=False, depth=_DEPTH)
    if not unwrapped.items:
        unwrapped.items.extend(envelope for envelope in unwrapped.envelopes if envelope.fields.has_song)
    return unwrapped


def _unwrap_into(unwrapped: UnwrappedBody, value: Any, place: tuple[str, str], *, is_song: bool, depth: int) -> None:
    """Add the objects in `value`; `place` is the state word around them and the field that contains them."""
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value) and depth:
        for element in value:
            _unwrap_into(unwrapped, element, place, is_song=True, depth=depth - 1)
    elif isinstance(value, dict) and depth:
        item = JsonObject(Fields.of(value), *place)
        if is_song and (not item.fields.wrapped or item.fields.has_song):
            unwrapped.items.append(item)
            return
        unwrapped.envelopes.append(item)
        for name in item.fields.wrapped:
            inner = item.fields.nested(name)
            _unwrap_into(unwrapped, inner, (item.state, name), is_song=name in _SONGS, depth=depth - 1)
    elif is_song and not isinstance(value, list):
        unwrapped.items.append(None)


def is_song(item: JsonObject) -> bool:
    """Return whether an object is a song by its fields or by the field that contains it."""
    return item.name in _SONGS or item.fields.has_song


def first_text(fields: Fields, names: Iterable[str]) -> str | None:
    """Return the first text in these fields."""
    for name in names:
        if name in fields and (text := to_text(fields[name])):
            return text
    return None


def least_advanced(words: Iterable[str]) -> str:
    """Return the least advanced state word, an unknown one only if there is no other; may be empty."""
    return min(words, key=lambda word: _PHASE_ORDER.index(phase_of(word)), default="")


def message_in(body: Any) -> str | None:
    """Return the message of a body."""
    return Fields.of(body).message if isinstance(body, Mapping) else None


def _message_text(value: Any) -> str | None:
    if isinstance(value, list):
        value = next((element for element in value if element), None)
    if isinstance(value, dict):
        return first_text(Fields.of(value), _MESSAGES)
    return to_text(value)


def status_code_in(body: Any) -> int | None:
    """Return the status code of a body."""
    return Fields.of(body).status_code if isinstance(body, Mapping) else None


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
