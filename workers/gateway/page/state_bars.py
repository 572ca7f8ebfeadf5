"""Bars that show how many jobs are in each state. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voicequeue import State

#: Width of a bar in its own units, and the width below which no segment is visible.
WIDTH, WIDTH_MIN = 1000, 8

#: From finished states to those that are not started.
ORDER = (
    State.SUCCEEDED,
    State.FAILED,
    State.CANCELLED,
    State.UNSURE,
    State.PENDING,
    State.CHARGING,
    State.ADMITTED,
    State.WAITING,
    State.QUEUED,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of a bar for one state; `share` is its share of all jobs in words."""

    state: State
    count: int
    share: str
    x: int
    width: int


def segments(counts: Mapping[State, int]) -> list[Segment]:
    """Return the segments of a bar, side by side and as wide as the bar; each state with a job is visible."""
    present = [state for state in ORDER if counts.get(state, 0) > 0]
    total = sum(counts[state] for state in present)
    widths = _widths([counts[state] / total for state in present])
    starts = [sum(widths[:index]) for index in range(len(widths))]
    return [
        Segment(state, counts[state], share(counts[state], total), x, width)
        for state, x, width in zip(present, starts, widths, strict=True)
    ]


def _widths(parts: Sequence[float]) -> list[int]:
    """Return whole widths in proportion to the parts, none below the minimum; the widest takes the rest."""
    widths = [max(WIDTH_MIN, int(WIDTH * part)) for part in parts]
    if widths:
        widths[widths.index(max(widths))] += WIDTH - sum(widths)
    return widths


def share(count: int, total: int) -> str:
    """Return a share in percent; 0 % and 100 % only where they are exact."""
    if count in (0, total):
        return "100 %" if count and total else "0 %"
    percent = 100 * count / total
    if percent < 0.1:
        return "under 0.1 %"
    if percent > 99.9:
        return "over 99.9 %"
    return f"{percent:.1f} %" if percent < 10 or percent > 90 else f"{percent:.0f} %"


def describe_states(counts: Mapping[State, int]) -> str:
    """Return the counts in words, such as `61 succeeded, 26,939 cancelled, of 27,000 jobs`."""
    parts = segments(counts)
    total = sum(part.count for part in parts)
    listed = ", ".join(f"{part.count:,} {part.state}" for part in parts)
    return f"{listed}, of {total:,} {'job' if total == 1 else 'jobs'}" if listed else "no jobs"
