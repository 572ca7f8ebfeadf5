"""Texts and numbers from outside: which may be stored, and how they are shown. Pure.

Half a character is a surrogate without its other half (U+D800 to U+DFFF): what a cut emoji leaves in JSON, and what
Python makes of bytes that are not UTF-8. No encoding takes it, so that it could be neither stored nor sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Stands where something cannot be shown.
REPLACEMENT = "\ufffd"

_HALF = re.compile("[\ud800-\udfff]")

#: What a terminal obeys, or shows nothing of: control characters, changes of direction, line and paragraph separators,
#: invisible marks (but for those that join letters and emoji), halves of characters.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)

#: Without digits of other scripts, underscores and words such as `nan`, all of which Python reads as well.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_NUMBER_MAX = 100


#: Where a text is in a value: what it is in, and its name there.
_Path = tuple["_Path", str] | None


# ── what may be stored ─────────────────────────────────────────────────────────────────────────────


def whole(text: str) -> str:
    """Return `text`, or raise ValueError where it contains half a character."""
    if found := _HALF.search(text):
        raise ValueError(_complaint(found[0]))
    return text


def halves(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the dotted path of each text in a JSON value that contains half a character, with what is wrong with it.

    The path of a name is that of its value. Paths are `mended`.
    """
    left: list[tuple[_Path, Any]] = [(None, value)]
    while left:
        path, inner = left.pop()
        if isinstance(inner, str) and (found := _HALF.search(inner)):
            yield _dotted(path), _complaint(found[0])
        elif isinstance(inner, Mapping):
            inside = [((path, str(name)), each) for name, each in inner.items()]
            for place, _ in inside:
                if found := _HALF.search(place[1]):
                    yield _dotted(place), _complaint(found[0])
            left += reversed(inside)
        elif isinstance(inner, list | tuple):
            left += [((path, str(place)), each) for place, each in reversed(list(enumerate(inner)))]


def _dotted(path: _Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(part)
    return mended(".".join(reversed(parts)))


def _complaint(half: str) -> str:
    return f"contains half a character (U+{ord(half):04X}), as a cut emoji leaves it; send whole characters in UTF-8"


def mended(text: str) -> str:
    """Return `text` with U+FFFD for each half of a character: for what is kept whatever it is."""
    return text if text.isascii() else _HALF.sub(REPLACEMENT, text)


def mended_json(value: Any) -> Any:
    """Return a JSON value with each of its texts `mended`."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(mended(text)) if _HALF.search(text) else value


def json_trouble(error: Exception) -> str:
    """Return why a text was no JSON to Python, for who wrote the text and not for who runs Python."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    # What int() says names a function that would lift its limit.
    return "a number has too many digits" if "int_max_str_digits" in str(error) else str(error)


# ── how they are shown ─────────────────────────────────────────────────────────────────────────────


def shown(text: str, *, keep: str = "") -> str:
    """Return `text` with an escape such as `\\x1b` or `\\u202e` for each character that a terminal obeys or hides.

    Those in `keep` stay as they are.
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def json_text(value: Any, **how: Any) -> str:
    """Return one line of JSON, faithful to the letter, which a terminal may show as it is."""
    return _OBEYED.sub(_escaped_in_json, json.dumps(value, ensure_ascii=False, **how))


def _escaped_in_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


# ── numbers ────────────────────────────────────────────────────────────────────────────────────────


def whole_number(text: str, *, at_most: int) -> int | None:
    """Return the number that ASCII digits write, up to `at_most`; None for any other text.

    No more digits are read than the largest number has.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(at_most))):
        return None
    number = int(text)
    return number if number <= at_most else None


def real_number(text: str) -> float | None:
    """Return the finite number that is written in ASCII digits; None for any other text."""
    text = text.strip()
    if len(text) > _NUMBER_MAX or not _NUMBER.fullmatch(text):
        return None
    found = float(text)
    return found if math.isfinite(found) else None
