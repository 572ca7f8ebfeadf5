"""Template filters for times, durations and numbers, and the check of redirect targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from voicequeue.domain.stop_loss import percent
from workers.gateway.page.state_bars import describe_states, segments, share

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_time(at: float | None) -> str:
    """Format Unix seconds as date and time in UTC; '' for None."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso_time(at: float) -> str:
    """Format Unix seconds for the attribute `datetime`, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def strftime(at: float, format_: str) -> str:
    """Format Unix seconds with `strftime`, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime(format_)


def format_age(at: float, now: float) -> str:
    """Format the time that has passed since then, in the largest unit."""
    return format_duration_short(max(0.0, now - at))


def format_duration(seconds: float | None) -> str:
    """Format seconds in the largest unit and, below ten of them, the next smaller one; '' for None."""
    if seconds is None:
        return ""
    rest = int(seconds)
    for index, (size, unit) in enumerate(_UNITS[:-1]):
        if rest >= size:
            below, small = _UNITS[index + 1]
            more = rest % size // below
            return f"{rest // size} {unit} {more} {small}" if more and rest < 10 * size else f"{rest // size} {unit}"
    return f"{rest} s"


def format_duration_short(seconds: float | None) -> str:
    """Format seconds in the largest unit alone; '' for None."""
    return " ".join(format_duration(seconds).split()[:2])


def format_length(seconds: float | None) -> str:
    """Format the length of a song as m:ss; '' for None."""
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def format_number(number: int | None) -> str:
    """Format a number with thousands separators; a dash for None."""
    return "–" if number is None else f"{number:,}"


def hold_label(reason: str) -> str:
    """Return the reason of a hold of the gate in words: `out of credits`, `voice stage paused`."""
    hold, _, stage = reason.partition(".")
    return f"{stage} stage {hold}" if stage else hold.replace("_", " ")


FILTERS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        format_time,
        iso_time,
        strftime,
        format_age,
        format_duration,
        format_duration_short,
        format_length,
        format_number,
        percent,
        hold_label,
        segments,
        describe_states,
        share,
    )
}


def safe_path(path: str) -> str:
    """Return `path` if it is a path of this page; else `/`, so that no link leads to another site."""
    parts = urlsplit(path)
    is_path = path.startswith("/") and not path.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    return path if is_path and path.isprintable() else "/"
