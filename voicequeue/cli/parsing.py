"""Values of options: durations, times, percentages and pairs."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime

import typer

from voicequeue.texts import parse_float

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `30m`, `24h` or `7d`. Raises BadParameter."""
    match = re.fullmatch(r"([\d.]+)\s*(s|m|min|h|d)", text.strip())
    count = parse_float(match[1]) if match else None
    if not match or not count:
        raise typer.BadParameter(f"{text!r} must be a number with s, m, h or d, such as 24h")
    return count * _UNITS[match[2]]


def parse_overlap(text: str) -> float:
    """Return the seconds of a duration, or of none: `0s`. Raises BadParameter."""
    return 0.0 if text.strip() in ("0", "0s") else parse_duration(text)


def parse_wait(text: str) -> float:
    """Return the seconds of a duration, or of a number of seconds. Raises BadParameter."""
    seconds = parse_float(text)
    return parse_duration(text) if seconds is None or seconds < 0 else seconds


def parse_time(text: str) -> float:
    """Return the time (Unix seconds) of a date, of ISO 8601, or of a duration before now. Raises BadParameter."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp()
    try:
        return time.time() - parse_duration(text)
    except typer.BadParameter:
        raise typer.BadParameter(
            f"{text!r} must be a duration before now such as 24h or 7d, or a date such as 2026-03-01"
        ) from None


def parse_pairs(option: str, texts: list[str]) -> dict[str, str]:
    """Return texts such as `order=4711` as a mapping. Raises BadParameter."""
    pairs = [text.partition("=") for text in texts]
    if invalid := [text for text, (name, equals, _) in zip(texts, pairs, strict=True) if not (name and equals)]:
        raise typer.BadParameter(f"must be NAME=VALUE, not {invalid[0]!r}", param_hint=option)
    return {name: value for name, _, value in pairs}


def parse_percentage(text: str) -> float:
    """Return the fraction of a text such as `20%` or `0.2`. Raises BadParameter."""
    from voicequeue.domain.stop_loss import parse_fraction  # noqa: PLC0415

    try:
        return parse_fraction(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
