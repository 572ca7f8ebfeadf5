"""Untrusted texts and numbers: validation before they are stored, and escaping before they are shown. Pure.

"Half a character" is a lone surrogate (U+D800 to U+DFFF), as JSON contains it after a truncated emoji, and as Python
decodes bytes that are not UTF-8. It cannot be encoded, so it can be neither stored nor sent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Replaces what cannot be encoded.
REPLACEMENT = "\ufffd"

_HALF = re.compile("[\ud800-\udfff]")

#: Characters that a terminal interprets or hides: controls, changes of direction, line and paragraph separators,
#: invisible marks (except those that join letters and emoji), lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)

#: Stricter than float(): no digits of other scripts, no underscores, no `nan` or `inf`.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,4})?", re.ASCII | re.IGNORECASE)
_NUMBER_MAX = 100


#: The path of a text in a JSON value: the path of its parent, and its name there.
_Path = tuple["_Path", str] | None


# ── validation ─────────────────────────────────────────────────────────────────────────────────────


def require_encodable(text: str) -> str:
    """Return `text`. Raises ValueError if it contains half a character."""
    if match := _HALF.search(text):
        raise ValueError(_complaint(match[0]))
    return text


def find_unencodable(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the dotted path of each text in a JSON value that contains half a character, and a message.

    The path of a name is that of its value. Paths are valid Unicode.
    """
    stack: list[tuple[_Path, Any]] = [(None, value)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, str) and (match := _HALF.search(node)):
            yield _dotted(path), _complaint(match[0])
        elif isinstance(node, Mapping):
            children = [((path, str(name)), child) for name, child in node.items()]
            for child_path, _ in children:
                if match := _HALF.search(child_path[1]):
                    yield _dotted(child_path), _complaint(match[0])
            stack += reversed(children)
        elif isinstance(node, list | tuple):
            stack += [((path, str(index)), child) for index, child in reversed(list(enumerate(node)))]


def _dotted(path: _Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(part)
    return replace_unencodable(".".join(reversed(parts)))


def _complaint(half: str) -> str:
    return f"contains half a character (U+{ord(half):04X}), such as a truncated emoji; send valid UTF-8"


def replace_unencodable(text: str) -> str:
    """Return `text` with each half of a character replaced by U+FFFD."""
    return text if text.isascii() else _HALF.sub(REPLACEMENT, text)


def replace_unencodable_in_json(value: Any) -> Any:
    """Return a JSON value with invalid Unicode in its texts replaced."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(replace_unencodable(text)) if _HALF.search(text) else value


def describe_json_error(error: Exception) -> str:
    """Return why a text is not JSON, in words for its author."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    # Python's message names a function that raises the limit.
    return "a number has too many digits" if "int_max_str_digits" in str(error) else str(error)


# ── output ─────────────────────────────────────────────────────────────────────────────────────────


def escape_controls(text: str, *, keep: str = "") -> str:
    """Return `text` with each character that a terminal interprets or hides escaped, such as `\\x1b` or `\\u202e`.

    Characters in `keep` are not escaped.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def terminal_safe_json(value: Any, **options: Any) -> str:
    """Return JSON that is safe to print on a terminal; options are those of `json.dumps`."""
    return _UNSAFE.sub(_escaped_in_json, json.dumps(value, ensure_ascii=False, **options))


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


# ── numbers ────────────────────────────────────────────────────────────────────────────────────────


def parse_int(text: str, *, at_most: int) -> int | None:
    """Return a number up to `at_most`, written in ASCII digits; None for any other text.

    Texts with more digits than `at_most` has are rejected before they are parsed.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(at_most))):
        return None
    number = int(text)
    return number if number <= at_most else None


def parse_float(text: str) -> float | None:
    """Return a finite number, written in ASCII digits; None for any other text."""
    text = text.strip()
    if len(text) > _NUMBER_MAX or not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def pluralize(count: int, noun: str, plural: str = "") -> str:
    """Return the number with its noun: `1 job`, `12,000 jobs`. The plural ends in `s` unless it is given."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def owner_text(owner: str) -> str:
    """Return an owner in words, such as `namespace shop`."""
    kind, _, name = owner.partition("/")
    if kind == "account":
        return "the account"
    if kind == "namespace" and not name:
        return "the default namespace"
    return f"{'API key' if kind == 'key' else kind} {name}"
