"""Where upstream's answers have what they say: names are read without case and punctuation, and envelopes are opened.
Pure, and nothing here raises on a strange body.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from voicequeue.clip import Phase, phase_of, plain

#: An object of an answer, by plain names.
Fields = Mapping[str, Any]

#: How much of upstream's text is kept.
MESSAGE_MAX = 500

#: Where a task's songs are, as a list or as the one that there is; and what else a result is wrapped in.
_SONGS = ("clips", "songs", "tracks", "audios", "clip", "song", "track")
_INSIDE = (
    "data", "result", "results", "response", "output", "payload", "items", "task", "tasks", "music", "voice", "persona",
)  # fmt: skip

_STATES = ("state", "status", "taskstate", "taskstatus")
_MESSAGES = ("error", "message", "msg", "detail", "errors", "errormessage", "errormsg", "reason", "failreason")
_CODES = ("code", "statuscode", "errorcode", "httpcode", "status")

#: Envelopes in envelopes, at most.
_DEPTH = 8

#: Of several words in one object the one that promises least counts.
_LEAST_FIRST = (Phase.FAILED, Phase.WORKING, Phase.DONE, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a list, or a song that is alone; `around` is the word for the state of what it is in."""

    fields: Fields
    around: str

    @property
    def word(self) -> str:
        """The word for its state, its own or that of what it is in; may be empty."""
        return word_of(self.fields) or self.around


@dataclass(frozen=True, slots=True)
class Layers:
    """An answer, opened: the envelopes, outermost first, and what is in them; None for an element that is no object."""

    envelopes: list[Item] = field(default_factory=list)
    items: list[Item | None] = field(default_factory=list)

    @property
    def word(self) -> str:
        """The innermost word for the state of the task as a whole that is known; may be empty."""
        words = (word_of(each.fields) for each in reversed(self.envelopes))
        return next((word for word in words if phase_of(word) is not Phase.UNKNOWN), "")

    @property
    def innermost_first(self) -> Iterator[Item]:
        """Every object of the answer."""
        yield from (item for item in self.items if item)
        yield from reversed(self.envelopes)


def opened(body: Any) -> Layers:
    """The layers of an answer."""
    layers = Layers()
    _open(body, "", layers, is_song=False, depth=_DEPTH)
    if not layers.items:
        layers.items.extend(each for each in layers.envelopes if _is_song(each.fields))
    return layers


def _open(value: Any, around: str, layers: Layers, *, is_song: bool, depth: int) -> None:
    if isinstance(value, list) and any(isinstance(each, dict) for each in value) and depth:
        for each in value:
            _open(each, around, layers, is_song=True, depth=depth - 1)
    elif isinstance(value, dict) and depth:
        fields = named(value)
        inside = [name for name in (*_SONGS, *_INSIDE) if isinstance(fields.get(name), dict | list)]
        if is_song and (not inside or _is_song(fields)):
            layers.items.append(Item(fields, around))
            return
        layers.envelopes.append(Item(fields, around))
        for name in inside:
            _open(fields[name], word_of(fields) or around, layers, is_song=name in _SONGS, depth=depth - 1)
    elif is_song and not isinstance(value, list):
        layers.items.append(None)


def _is_song(fields: Fields) -> bool:
    return "clipid" in fields or "audiourl" in fields


def named(body: Mapping[str, Any]) -> Fields:
    """The fields by plain names; of two that become one, the first that holds anything."""
    fields: dict[str, Any] = {}
    for name, value in body.items():
        if fields.get(plain(name)) in (None, ""):
            fields[plain(name)] = value
    return fields


def first(fields: Fields, names: Iterable[str]) -> str | None:
    """The text of the first of these fields that has one."""
    return next((text for name in names if (text := text_of(fields.get(name)))), None)


def word_of(fields: Fields) -> str:
    """The word for its state that an object has of its own, in lower case; may be empty."""
    words = [text.lower() for name in _STATES if (text := text_of(fields.get(name)))]
    if plain(text_of(fields.get("type")) or "") == "notready":
        words.append("not_ready")
    return min(words, key=lambda word: _LEAST_FIRST.index(phase_of(word)), default="")


def says_no(fields: Fields) -> bool:
    """Whether an object says that it is no success, in so many words."""
    return any(plain(str(fields.get(name))) == "false" for name in ("success", "succeeded", "ok"))


def message_of(body: Any) -> str | None:
    """The text in an answer: `error`, `message` and the like, also in an object or a list there, or in `data`."""
    if not isinstance(body, Mapping):
        return None
    data = body.get("data")
    places = [named(place) for place in (body, data) if isinstance(place, Mapping)]
    texts = [text for fields in places for name in _MESSAGES if (text := _message_in(fields.get(name)))]
    texts.sort(key=lambda text: phase_of(text) is Phase.DONE)  # "success" is what an envelope says of itself
    return texts[0][:MESSAGE_MAX] if texts else None


def _message_in(value: Any) -> str | None:
    if isinstance(value, list):
        value = next((each for each in value if each), None)
    if isinstance(value, dict):
        return first(named(value), _MESSAGES)
    return text_of(value)


def code_of(body: Any) -> int | None:
    """The number by which an answer says how it went, as a number or as text, at the top or in its `error`."""
    if not isinstance(body, Mapping):
        return None
    inner = body.get("error")
    places = [named(place) for place in (body, inner) if isinstance(place, Mapping)]
    numbers = (number_of(fields.get(name)) for fields in places for name in _CODES)
    return next((int(number) for number in numbers if number is not None), None)


def number_of(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else."""
    if is_number(value):
        return float(value)
    try:
        number = float(value) if isinstance(value, str) and len(value) < MESSAGE_MAX else None
    except ValueError:
        return None
    return number if is_number(number) else None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number that a float can hold."""
    # JSON's true is an int to Python, and its parser lets pass NaN, Infinity and numbers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def text_of(value: Any) -> str | None:
    """A string that has something in it, fit to be stored; None for anything else."""
    if not isinstance(value, str):
        return None
    # JSON may escape half a character, which no encoding takes.
    return value.strip().encode(errors="replace").decode() or None
