"""How it went over time, as the points and bars of a picture. Pure; lengths are the picture's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from voicequeue import Stretch

#: The picture's size, and what of it stands beside and below the drawing.
WIDTH, HEIGHT, LEFT, BELOW = 960.0, 220.0, 56.0, 24.0


@dataclass(frozen=True, slots=True)
class Span:
    """A time that can be looked at: in how many stretches, and how their beginnings are told."""

    name: str
    seconds: float
    stretches: int
    told: str


SPANS: Mapping[str, Span] = {
    "hour": Span("hour", 3_600, 60, "%H:%M"),
    "day": Span("day", 86_400, 48, "%H:%M"),
    "week": Span("week", 7 * 86_400, 84, "%a %d"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar for one stretch: what failed stands on what succeeded."""

    x: float
    width: float
    y: float
    height: float
    y_failed: float
    failed_height: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line, in pieces: where nothing was finished there is none."""

    name: str
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Two drawings over the same stretches: how many were finished, and how long they took; each with its highest
    value."""

    stretches: tuple[Stretch, ...]
    bars: tuple[Bar, ...]
    most_jobs: int
    lines: tuple[Line, ...]
    longest: float
    ticks: tuple[tuple[float, float], ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    floor: float = HEIGHT - BELOW

    @property
    def succeeded(self) -> int:
        """In all."""
        return sum(each.succeeded for each in self.stretches)

    @property
    def failed(self) -> int:
        """In all."""
        return sum(each.failed for each in self.stretches)


def drawn(stretches: Sequence[Stretch]) -> Picture:
    """The picture of these."""
    most = max(1, *(each.succeeded + each.failed for each in stretches))
    longest = max([1.0, *(each.most for each in stretches if each.most is not None)])
    step = (WIDTH - LEFT) / len(stretches)
    high = HEIGHT - BELOW - 8
    floor = HEIGHT - BELOW
    bars = []
    for place, each in enumerate(stretches):
        good, bad = high * each.succeeded / most, high * each.failed / most
        x = LEFT + step * place + step * 0.1
        bars.append(Bar(x, step * 0.8, floor - good, good, floor - good - bad, bad))

    def line(name: str, value: Callable[[Stretch], float | None]) -> Line:
        points = [
            (
                LEFT + step * (place + 0.5),
                None if (seconds := value(each)) is None else floor - high * seconds / longest,
            )
            for place, each in enumerate(stretches)
        ]
        pieces = (list(some) for is_there, some in groupby(points, key=lambda point: point[1] is not None) if is_there)
        return Line(name, tuple(_path(piece, step) for piece in pieces))

    lines = (
        line("most", lambda each: each.most),
        line("half", lambda each: each.half),
        line("order", lambda each: each.order),
    )
    every = max(1, len(stretches) // 6)
    ticks = tuple((LEFT + step * place, stretches[place].begun) for place in range(0, len(stretches), every))
    return Picture(tuple(stretches), tuple(bars), most, lines, longest, ticks)


def _path(piece: Sequence[tuple[float, float | None]], step: float) -> str:
    """A single point is a dash as wide as its stretch."""
    if len(piece) == 1:
        [(x, y)] = piece
        return f"{x - step / 2:.1f},{y:.1f} {x + step / 2:.1f},{y:.1f}"
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
