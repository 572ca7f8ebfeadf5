"""Charts of finished jobs and of durations as SVG coordinates. Pure; lengths are in the chart's own units.

The SVG is stretched to the width of the page. Its labels are HTML beside it, so that they stay legible on a phone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from voicequeue import TimeBucket

#: Size of a chart, and the number of times below it.
WIDTH, HEIGHT, TICKS = 960.0, 200.0, 6

#: Durations (seconds) at which an axis may end; longer ones end at whole days.
_DURATIONS = (10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True)
class Period:
    """A period to show: its length, the number of its buckets, and how the times below a chart are shown: `clock`, or
    the `day`."""

    name: str
    seconds: float
    buckets: int
    time_format: str


PERIODS: Mapping[str, Period] = {
    "hour": Period("hour", 3_600, 60, "clock"),
    "day": Period("day", 86_400, 48, "clock"),
    "week": Period("week", 7 * 86_400, 84, "day"),
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
    """Two charts of the same buckets, each with the value at its top: finished jobs, and their durations in seconds."""

    buckets: tuple[TimeBucket, ...]
    bars: tuple[Bar, ...]
    max_jobs: int
    lines: tuple[ChartLine, ...]
    max_seconds: float
    ticks: tuple[float, ...]
    width: float = WIDTH
    height: float = HEIGHT

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
    max_jobs = round_up_count(max(bucket.succeeded + bucket.failed for bucket in buckets))
    max_seconds = round_up_duration(max((bucket.p90_s or 0.0 for bucket in buckets), default=0.0))
    lines = (
        line("p90", [bucket.p90_s for bucket in buckets], max_seconds),
        line("median", [bucket.p50_s for bucket in buckets], max_seconds),
        line("order-median", [bucket.order_p50_s for bucket in buckets], max_seconds),
    )
    ticks = tuple(bucket.start for bucket in buckets[:: max(1, len(buckets) // TICKS)])
    return Charts(tuple(buckets), tuple(_bars(buckets, max_jobs)), max_jobs, lines, max_seconds, ticks)


def _bars(buckets: Sequence[TimeBucket], max_jobs: int) -> Iterator[Bar]:
    step = WIDTH / len(buckets)
    for index, bucket in enumerate(buckets):
        good, bad = HEIGHT * bucket.succeeded / max_jobs, HEIGHT * bucket.failed / max_jobs
        yield Bar(step * (index + 0.1), step * 0.8, HEIGHT - good, good, HEIGHT - good - bad, bad)


def line(name: str, values: Sequence[float | None], maximum: float) -> ChartLine:
    """Return a line of these values, one for each bucket."""
    step = WIDTH / len(values)
    points = [
        (step * (index + 0.5), None if value is None else HEIGHT - HEIGHT * value / maximum)
        for index, value in enumerate(values)
    ]
    runs = groupby(points, key=lambda point: point[1] is not None)
    return ChartLine(name, tuple(_path(list(run), step) for has_value, run in runs if has_value))


def round_up_count(count: int) -> int:
    """Return the number at the top of an axis for this count: even, so that its middle is whole too."""
    size = 1
    while True:
        for factor in (2, 4, 6, 10):
            if count <= factor * size:
                return factor * size
        size *= 10


def round_up_duration(seconds: float) -> float:
    """Return the duration at the top of an axis for this one."""
    days = -(-seconds // 86_400)
    return float(next((limit for limit in _DURATIONS if seconds <= limit), 86_400 * days))


def _path(piece: Sequence[tuple[float, float | None]], step: float) -> str:
    """Return the points of a polyline; a single point becomes a dash as wide as its bucket."""
    if len(piece) == 1:
        [(x, y)] = piece
        return f"{x - step / 2:.1f},{y:.1f} {x + step / 2:.1f},{y:.1f}"
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
