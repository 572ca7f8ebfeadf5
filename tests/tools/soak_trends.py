"""Trends of a long run: the slope of each figure, and whether it grows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

HOUR_S = 3600.0

#: The first part of a run, in which processes load their modules and the first jobs are purged, is not judged.
WARM_UP_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Allowed:
    """Growth of a figure that is allowed during the judged part of a run: this amount, or this share of its median."""

    amount: float
    share: float


#: The memory of a process or of Redis (MB), a duration (ms), and the delay of the latest poll (s).
MEMORY, LATENCY, DELAY = Allowed(10.0, 0.10), Allowed(25.0, 0.5), Allowed(2.0, 0.5)


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a figure: its level, its slope in an hour, its growth while it was judged, and what is allowed."""

    name: str
    unit: str
    level: float
    hourly: float
    growth: float
    allowed: Allowed

    @property
    def grows(self) -> bool:
        """True if it has grown by more than is allowed."""
        return self.growth > max(self.allowed.amount, self.allowed.share * self.level)

    def __str__(self) -> str:
        verdict = "GROWS" if self.grows else "steady"
        return f"{self.name:28} {self.level:9.1f} {self.unit:3} {self.hourly:+9.2f} {self.unit} an hour  {verdict}"


def trend(name: str, unit: str, samples: Sequence[tuple[float, float]], allowed: Allowed) -> Trend:
    """Return the trend of samples (seconds, figure); the slope is the median of those of all pairs (Theil and Sen),
    which single slow samples do not change."""
    start = samples[0][0] + WARM_UP_SHARE * (samples[-1][0] - samples[0][0])
    judged = [sample for sample in samples if sample[0] >= start]
    slopes = [(later - before) / (end - at) for (at, before), (end, later) in combinations(judged, 2) if end > at]
    slope = median(slopes) if slopes else 0.0
    growth = slope * (judged[-1][0] - judged[0][0])
    return Trend(name, unit, median(figure for _, figure in judged), slope * HOUR_S, growth, allowed)


#: The figures of one moment, by unit and name.
Figures = Mapping[tuple[str, str], float]

_ALLOWED = {"MB": MEMORY, "ms": LATENCY, "s": DELAY}


def trends(samples: Iterable[tuple[float, Figures]]) -> Iterator[Trend]:
    """Yield the trend of each figure of the samples (seconds, figures)."""
    by_figure: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for at, figures in samples:
        for key, figure in figures.items():
            by_figure.setdefault(key, []).append((at, figure))
    for (unit, name), of_figure in by_figure.items():
        yield trend(name, unit, of_figure, _ALLOWED[unit])
