"""Compare a documented output with a real one.

Words must agree. Numbers, times, ids and the states of active jobs may differ, and `…` is anything. Ids are
learned: what a page shows as an id, its later commands use, and they must use the real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

ELLIPSIS = "…"

#: What differs from run to run, most specific first.
_VARYING = re.compile(
    r"(?P<id>\b(?=[a-z2-7]*[2-7])[a-z2-7]{16}\b)"
    r"|(?P<hex>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){0,3}(?:-[0-9a-f]{12})?\b)"
    r"|(?P<state>\b(?:queued|admitted|charging|pending)\b)"
    r"|(?P<duration>\d[\d.,]* (?:s|min|h|d)\b)"
    r"|(?P<number>\d[\d.,:T]*)"
    r"|(?P<any>…)"
    r"|(?P<space>\s+)"
)
_PATTERNS = {
    "state": r"(?:queued|admitted|charging|pending)",
    "id": r"[a-z2-7]{16}",
    "hex": r"[0-9a-f-]+",
    "number": r"[\d.,:T]*\d[\d.,:T]*",
    "any": r".*?",
    "duration": r"[\d.,]+ (?:s|min|h|d)\b",
    "space": r"\s+",
}


def pattern_of(line: str) -> re.Pattern[str]:
    """Return the pattern of a documented line in an output whose lines are joined."""
    parts, position = [], 0
    for varying in _VARYING.finditer(line := line.strip()):
        parts.append(re.escape(line[position : varying.start()]))
        kind = varying.lastgroup or ""
        parts.append(f"({_PATTERNS[kind]})" if kind == "id" else _PATTERNS[kind])
        position = varying.end()
    return re.compile("".join(parts) + re.escape(line[position:]))


def compare_lines(expected: str, actual: str) -> tuple[list[str], dict[str, str]]:
    """Return the documented lines that the output lacks, in order, and the real ids by documented ids.

    Pages break long lines, so the lines of the output are joined.
    """
    printed, position = " ".join(actual.split()), 0
    missing: list[str] = []
    learned: dict[str, str] = {}
    for line in filter(None, map(str.strip, expected.splitlines())):
        match = pattern_of(line).search(printed, position)
        if match is None:
            missing.append(line)
            continue
        ids = [varying[0] for varying in _VARYING.finditer(line) if varying.lastgroup == "id"]
        learned |= dict(zip(ids, match.groups(), strict=True))
        position = match.end()
    return missing, learned


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────


def parse_documented(text: str) -> list[Any]:
    """Return the JSON values of a block, one after the other; `…` is a value, or an entry. Raises ValueError."""
    return parse_values("".join(_quoted_ellipses(text)))


def parse_values(text: str) -> list[Any]:
    """Return the JSON values of a text. Raises ValueError."""
    decoder, values, position = json.JSONDecoder(), [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        values.append(value)
    return values


def _quoted_ellipses(text: str) -> Iterator[str]:
    inside, brackets, last = False, [], ""
    for at, char in enumerate(text):
        if char == '"' and text[at - 1 : at] != "\\":
            inside = not inside
        elif not inside and char in "[{":
            brackets.append(char)
        elif not inside and char in "]}":
            brackets.pop()
        is_entry = not inside and char == ELLIPSIS
        yield (f'"{ELLIPSIS}": 0' if brackets[-1:] == ["{"] and last != ":" else f'"{ELLIPSIS}"') if is_entry else char
        last = last if char.isspace() else char


def compare_values(expected: Any, actual: Any, at: str = "") -> tuple[list[str], dict[str, str]]:
    """Return the differences of two JSON values: fields and types. Ids and tokens are learned."""
    if expected == ELLIPSIS or expected is None or actual is None:
        return [], {}
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _compare_objects(expected, actual, at)
    if isinstance(expected, list) and isinstance(actual, list):
        pairs = zip((value for value in expected if value != ELLIPSIS), actual, strict=False)
        lacks = [f"{at} is empty"] if expected and expected[0] != ELLIPSIS and not actual else []
        return _joined(lacks, [compare_values(*pair, f"{at}[]") for pair in pairs])
    if isinstance(expected, str) and isinstance(actual, str):
        is_token = expected != actual and re.fullmatch(r"[\w-]{12,}", expected) and " " not in actual
        return [], {expected: actual} if is_token else {}
    is_same = isinstance(expected, int | float) == isinstance(actual, int | float) and isinstance(
        expected, bool
    ) == isinstance(actual, bool)
    return ([] if is_same else [f"{at}: {expected!r} is {actual!r}"]), {}


def _compare_objects(expected: dict[str, Any], actual: dict[str, Any], at: str) -> tuple[list[str], dict[str, str]]:
    names = expected.keys() - {ELLIPSIS}
    wrong = [f"{at}.{name} does not exist" for name in names - actual.keys()]
    if ELLIPSIS not in expected:
        wrong += [f"{at}.{name} is not documented" for name in actual.keys() - names]
    return _joined(
        wrong, [compare_values(expected[name], actual[name], f"{at}.{name}") for name in names & actual.keys()]
    )


def _joined(wrong: list[str], parts: list[tuple[list[str], dict[str, str]]]) -> tuple[list[str], dict[str, str]]:
    learned: dict[str, str] = {}
    for differences, ids in parts:
        wrong += differences
        learned |= ids
    return wrong, learned
