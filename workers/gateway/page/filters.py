"""How values read on the pages: times, lengths, numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def clock(at: float | None) -> str:
    """Unix seconds as a time of day in UTC; '' for none."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def moment(at: float, told: str) -> str:
    """Unix seconds in that format of `strftime`, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime(told)


def ago(at: float, now: float) -> str:
    """How long ago that was."""
    return spoken(max(0.0, now - at))


def spoken(seconds: float | None) -> str:
    """A time in its largest unit, and the one below it where that says something; '' for none."""
    if seconds is None:
        return ""
    rest = int(seconds)
    for place, (size, unit) in enumerate(_UNITS[:-1]):
        if rest >= size:
            below, small = _UNITS[place + 1]
            more = rest % size // below
            return f"{rest // size} {unit} {more} {small}" if more and rest < 10 * size else f"{rest // size} {unit}"
    return f"{rest} s"


def roughly(seconds: float | None) -> str:
    """A time in its largest unit alone; '' for none."""
    return " ".join(spoken(seconds).split()[:2])


def length(seconds: float | None) -> str:
    """A song's length; '' where it is not known."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def count(number: int | None) -> str:
    """With thousands apart; a dash where it is not known."""
    return "–" if number is None else f"{number:,}"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "clock": clock,
    "moment": moment,
    "ago": ago,
    "spoken": spoken,
    "roughly": roughly,
    "length_of": length,
    "count": count,
}


def own_path(onward: str) -> str:
    """A path of this page; anything else (another site, say) is the beginning."""
    parts = urlsplit(onward)
    is_path = onward.startswith("/") and not onward.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    return onward if is_path and onward.isprintable() else "/"
