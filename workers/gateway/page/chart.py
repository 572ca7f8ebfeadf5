"""Charts of throughput and durations as SVG coordinates. Pure; lengths are in the chart's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from voicequeue import TimeBucket

#: Size of a chart, and the margins for its axis labels.
WIDTH, HEIGHT, MARGIN_LEFT, MARGIN_BOTTOM = 960.0, 220.0, 56.0, 24.0


@dataclass(frozen=True, slots=True)
class Period:
    """A period to show: its length, the number of its buckets, and the `strftime` format of the labels."""

    name: str
    seconds: float
    buckets: int
    time_format: str


PERIODS: Mapping[str, Period] = {
    "hour": Period("hour", 3_600, 60, "%H:%M"),
    "day": Period("day", 86_400, 48, "%H:%M"),
    "week": Period("week", 7 * 86_400, 84, "%a %d"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar for one bucket: failed jobs on top of succeeded ones."""

    x: float
    width: float
    y: float
    height: float
    y_failed: float
    failed_height: float


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A line, with gaps where no job finished."""

    name: str
    segments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Charts:
    """Two charts of the same buckets, each with its maximum: finished jobs, and their durations in seconds."""

    buckets: tuple[TimeBucket, ...]
    bars: tuple[Bar, ...]
    max_jobs: int
    lines: tuple[ChartLine, ...]
    max_seconds: float
    ticks: tuple[tuple[float, float], ...]
    width: float = WIDTH
    height: float = HEIGHT
    margin_left: float = MARGIN_LEFT
    floor: float = HEIGHT - MARGIN_BOTTOM

    @property
    def succeeded(self) -> int:
        """Number of succeeded jobs."""
        return sum(bucket.succeeded for bucket in self.buckets)

    @property
    def failed(self) -> int:
        """Number of failed jobs."""
        return sum(bucket.failed for bucket in self.buckets)


def draw(buckets: Sequence[TimeBucket]) -> Charts:
    """Return the charts of these buckets."""
    most = max(1, *(bucket.succeeded + bucket.failed for bucket in buckets))
    longest = max([1.0, *(bucket.p90_s for bucket in buckets if bucket.p90_s is not None)])
    step = (WIDTH - MARGIN_LEFT) / len(buckets)
    high = HEIGHT - MARGIN_BOTTOM - 8
    floor = HEIGHT - MARGIN_BOTTOM
    bars = []
    for index, bucket in enumerate(buckets):
        good, bad = high * bucket.succeeded / most, high * bucket.failed / most
        x = MARGIN_LEFT + step * index + step * 0.1
        bars.append(Bar(x, step * 0.8, floor - good, good, floor - good - bad, bad))

    def line(name: str, value: Callable[[TimeBucket], float | None]) -> ChartLine:
        points = [
            (
                MARGIN_LEFT + step * (index + 0.5),
                None if (seconds := value(bucket)) is None else floor - high * seconds / longest,
            )
            for index, bucket in enumerate(buckets)
        ]
        runs = groupby(points, key=lambda point: point[1] is not None)
        pieces = (list(run) for has_value, run in runs if has_value)
        return ChartLine(name, tuple(_path(piece, step) for piece in pieces))

    lines = (
        line("p90", lambda bucket: bucket.p90_s),
        line("p50", lambda bucket: bucket.p50_s),
        line("order-p50", lambda bucket: bucket.order_p50_s),
    )
    every = max(1, len(buckets) // 6)
    ticks = tuple((MARGIN_LEFT + step * index, buckets[index].start) for index in range(0, len(buckets), every))
    return Charts(tuple(buckets), tuple(bars), most, lines, longest, ticks)


def _path(piece: Sequence[tuple[float, float | None]], step: float) -> str:
    """Return the points of a polyline; a single point becomes a dash as wide as its bucket."""
    if len(piece) == 1:
        [(x, y)] = piece
        return f"{x - step / 2:.1f},{y:.1f} {x + step / 2:.1f},{y:.1f}"
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
