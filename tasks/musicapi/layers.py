"""Where upstream's answers have what they say: names are read without case and punctuation, and envelopes are opened.
Pure, and nothing here raises on a strange body.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from voicequeue.domain.clip import Phase, phase_of, plain
from voicequeue.texts import mended, real_number

#: An object of an answer, by plain names.
Fields = Mapping[str, Any]

#: How much of upstream's text is kept.
MESSAGE_MAX = 500

#: Where a task's songs are, as a list or as the one that there is; and what else a result is wrapped in.
_SONGS = ("clips", "songs", "tracks", "audios", "clip", "song", "track")
_INSIDE = (
    "data", "result", "results", "response", "output", "outputs", "payload", "items", "list", "records",
    "task", "tasks", "music", "voice", "persona",
)  # fmt: skip

_STATES = tuple(f"{of}{name}" for of in ("", "task", "job", "voice", "persona") for name in ("state", "status"))
#: What is false in an object that is not ready.
_READY = ("ready", "isready", "finished", "isfinished", "iscompleted", "isdone")
_MESSAGES = ("error", "message", "msg", "detail", "errors", "errormessage", "errormsg", "reason", "failreason")
_ERRORS = ("error", "errors", "errormessage", "errormsg", "failreason")
_CODES = ("code", "statuscode", "errorcode", "httpcode", "status")

#: Envelopes in envelopes, at most.
_DEPTH = 8

#: Of several words in one object the one that promises least counts.
_LEAST_FIRST = (Phase.FAILED, Phase.WORKING, Phase.DONE, Phase.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Item:
    """One object of an answer; `around` is the word for the state of what it is in, `name` what it is called there."""

    fields: Fields
    around: str
    name: str = ""

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
    def innermost_first(self) -> Iterator[Item]:
        """Every object of the answer."""
        yield from (item for item in self.items if item)
        yield from reversed(self.envelopes)


def opened(body: Any) -> Layers:
    """The layers of an answer."""
    layers = Layers()
    _open(body, Item({}, ""), layers, is_song=False, depth=_DEPTH)
    if not layers.items:
        layers.items.extend(each for each in layers.envelopes if is_of_a_song(each))
    return layers


def _open(value: Any, place: Item, layers: Layers, *, is_song: bool, depth: int) -> None:
    """Open what is at a place: an object without fields yet."""
    if isinstance(value, list) and any(isinstance(each, dict | list) for each in value) and depth:
        for each in value:
            _open(each, place, layers, is_song=True, depth=depth - 1)
    elif isinstance(value, dict) and depth:
        item = replace(place, fields=named(value))
        inside = [name for name in (*_SONGS, *_INSIDE) if isinstance(item.fields.get(name), dict | list)]
        if is_song and (not inside or is_of_a_song(item)):
            layers.items.append(item)
            return
        layers.envelopes.append(item)
        for name in inside:
            within = Item({}, item.word, name)
            _open(item.fields[name], within, layers, is_song=name in _SONGS, depth=depth - 1)
    elif is_song and not isinstance(value, list):
        layers.items.append(None)


def is_of_a_song(item: Item) -> bool:
    """Whether an object is one song, by its fields."""
    return "clipid" in item.fields or "audiourl" in item.fields


def is_called_a_song(item: Item) -> bool:
    """Whether an object is one song, by its fields or by the name of the place that it is in."""
    return item.name in _SONGS or is_of_a_song(item)


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


def words_of(fields: Fields) -> list[str]:
    """The words for its state that an object has of its own, in lower case; a number in their place is none."""
    texts = (text_of(fields.get(name)) for name in _STATES)
    words = [text.lower() for text in texts if text and number_of(text) is None]
    is_typed = plain(text_of(fields.get("type")) or "") == "notready"
    if is_typed or any(plain(str(fields.get(name))) == "false" for name in _READY):
        words.append("not_ready")
    return words


def word_of(fields: Fields) -> str:
    """The one of them that promises least; may be empty."""
    return least(words_of(fields))


def least(words: Iterable[str]) -> str:
    """The word that promises least; one that nobody knows only where there is no other; may be empty."""
    return min(words, key=lambda word: _LEAST_FIRST.index(phase_of(word)), default="")


def complaint_of(fields: Fields) -> str | None:
    """The text of an error that an object has, whether or not it says no."""
    texts = (_message_in(fields.get(name)) for name in _ERRORS)
    none = ("none", "null", "noerror")
    return next((text for text in texts if text and plain(text) not in none and phase_of(text) is not Phase.DONE), None)


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
    return next((int(found) for found in numbers if found is not None), None)


def number_of(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else."""
    if is_number(value):
        return float(value)
    return real_number(value) if isinstance(value, str) else None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number that a float can hold."""
    # JSON's true is an int to Python, and its parser lets pass NaN, Infinity and numbers too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def text_of(value: Any) -> str | None:
    """A string that has something in it, fit to be stored; None for anything else.

    What was paid for is kept though a title of it was cut: half a character, which JSON may escape, is replaced.
    """
    if not isinstance(value, str):
        return None
    return mended(value.strip()) or None
