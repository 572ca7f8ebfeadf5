"""When to ask upstream: polls placed where most orders are done, from how long the last ones took. Pure.

Times are seconds since the order. A poll tells that an order took longer than its age then, or less:
durations are known as spans. A log-normal is fitted to them (by expectation and maximization), and the
polls are placed so that they are few while almost no result waits for long.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, pstdev

#: So many durations are enough to plan by, and so many of the latest are looked at.
ENOUGH, REMEMBERED = 50, 200

#: Plans are made for so many points of the distribution, on a grid of so many times.
_POINTS, _GRID = 200, 150

#: How many results may wait for longer than a plan's `late_s`.
_LATE_SHARE = 0.045

_ROUNDS = 40
_CLOSE = 1e-4
_NARROWEST = 0.02


@dataclass(frozen=True, slots=True)
class Span:
    """An order took longer than `over` and at most `within` seconds."""

    over: float
    within: float


@dataclass(frozen=True, slots=True)
class LogNormal:
    """How long orders take: the logarithm is normal, with this mean and deviation."""

    mean: float
    deviation: float

    def quantile(self, share: float) -> float:
        """Within how many seconds this share of orders is done."""
        return math.exp(NormalDist(self.mean, self.deviation).inv_cdf(share))


def fit(spans: Sequence[Span]) -> LogNormal:
    """The log-normal under which these spans are most likely; at least one is needed."""
    logs = [(math.log(span.over) if span.over > 0 else -math.inf, math.log(span.within)) for span in spans]
    middles = [math.log((span.over + span.within) / 2) for span in spans]
    mean, deviation = fmean(middles), max(pstdev(middles), _NARROWEST)
    for _ in range(_ROUNDS):
        moments = [_moments(low, high, mean, deviation) for low, high in logs]
        new_mean = fmean(first for first, _ in moments)
        new_deviation = math.sqrt(max(fmean(second for _, second in moments) - new_mean**2, _NARROWEST**2))
        settled = abs(new_mean - mean) < _CLOSE and abs(new_deviation - deviation) < _CLOSE
        mean, deviation = new_mean, new_deviation
        if settled:
            break
    return LogNormal(mean, deviation)


def _moments(low: float, high: float, mean: float, deviation: float) -> tuple[float, float]:
    """What a normal value is on average, and its square, if it is known to lie between `low` and `high`."""
    normal = NormalDist()
    a, b = (low - mean) / deviation, (high - mean) / deviation
    inside = normal.cdf(b) - normal.cdf(a)
    if inside < 1e-9:  # far out: the nearer end
        nearer = high if b < 0 or low == -math.inf else low
        return nearer, nearer**2
    at_a, at_b = (0.0, 0.0) if a == -math.inf else (normal.pdf(a), a * normal.pdf(a)), normal.pdf(b)
    density_a, moment_a = at_a
    shift = (density_a - at_b) / inside
    spread = 1 + (moment_a - b * at_b) / inside - shift**2
    middle = mean + deviation * shift
    return middle, deviation**2 * max(spread, 0.0) + middle**2


def schedule(took: LogNormal, *, gap_s: float, late_s: float, apart_s: float) -> list[float]:
    """The ages at which to ask: as few polls as possible, while at most 4.5 % of results wait over `late_s`.

    Polls are at least `gap_s` and at most `apart_s` apart; the first may be as late as that allows.
    """
    points = [took.quantile((number + 0.5) / _POINTS) for number in range(_POINTS)]
    grid = _Grid(points, gap_s=gap_s, late_s=late_s, apart_s=apart_s)
    cheap, dear, best = 0.0, float(_POINTS), grid.cheapest(float(_POINTS))
    for _ in range(12):
        price = (cheap + dear) / 2
        found = grid.cheapest(price)
        if found.late <= _LATE_SHARE * _POINTS:
            best, dear = found, price
        else:
            cheap = price
    return best.ages


@dataclass(frozen=True, slots=True)
class _Found:
    ages: list[float]
    late: int


class _Grid:
    """Every way to place polls on a grid of times, for orders that take as long as `points` say."""

    def __init__(self, points: Sequence[float], *, gap_s: float, late_s: float, apart_s: float) -> None:
        first, last = max(gap_s, points[0] / 2), points[-1] + apart_s
        step = (last - first) / _GRID
        self._times = [first + number * step for number in range(_GRID + 1)]
        self._done = [bisect_right(points, time) for time in self._times]
        self._long_done = [bisect_right(points, time - late_s) for time in self._times]
        self._count = len(points)
        self._near = max(1, math.ceil(gap_s / step))
        self._far = max(self._near, int(apart_s / step))

    def cheapest(self, price: float) -> _Found:
        """The way that costs least if a poll costs 1 and a result that waits too long `price`."""
        size = len(self._times)
        cost, after = [0.0] * size, [size] * size
        for here in range(size - 1, -1, -1):
            if (waiting := self._count - self._done[here]) and here + self._near < size:
                ways = range(here + self._near, min(size, here + self._far + 1))
                after[here] = min(ways, key=lambda there: price * self._late(here, there) + cost[there])
                cost[here] = waiting + price * self._late(here, after[here]) + cost[after[here]]
        first = min(range(size), key=lambda there: price * self._long_done[there] + cost[there])
        ages, late, here = [self._times[first]], self._long_done[first], first
        while (there := after[here]) < size:
            ages.append(self._times[there])
            late += self._late(here, there)
            here = there
        return _Found(ages, late)

    def _late(self, here: int, there: int) -> int:
        """How many results come after the poll at `here` and wait too long for the one at `there`."""
        return max(0, self._long_done[there] - self._done[here])


@dataclass(frozen=True, slots=True)
class PollPlan:
    """When to ask about an order. Before enough is known, polls are `min_s` to `max_s` apart, spread evenly so
    that they do not come in waves; then they follow a schedule. Where the two are the same, polls are
    exactly that far apart for ever."""

    min_s: float = 15.0
    max_s: float = 25.0
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def luck(self) -> float:
        """Chance, from 0 to 1. Orders that are asked about together share it: by the luck of each, the first of many
        would always be early."""
        return self.chance.random()

    def delay(self, luck: float) -> float:
        """How long to wait before the next poll where nothing is known."""
        return self.min_s + (self.max_s - self.min_s) * luck

    def after(self, age: float, ages: Sequence[float], luck: float) -> float:
        """How long to wait before the next poll of an order of that age, by this schedule (empty: none yet)."""
        if not ages or self.is_fixed:
            return self.delay(luck)
        # A little off each time: that spreads the polls, and tells what lies between them.
        off = self.gap_s * (luck - 0.5) / 2
        coming = next((planned + off for planned in ages if planned + off > age + self.gap_s / 2), None)
        if coming is None:
            return self.delay((1 + luck) / 2)
        return max(self.gap_s, coming - age)

    def schedule(self, spans: Sequence[Span]) -> list[float]:
        """The ages at which to ask, from how long the last orders took; none where that is not enough."""
        if len(spans) < ENOUGH or self.is_fixed:
            return []
        late_s = (self.min_s + self.max_s) / 2 * 0.92  # what polls in the middle of the two would give at worst
        return schedule(fit(spans), gap_s=self.gap_s, late_s=late_s, apart_s=self.max_s)

    @property
    def is_fixed(self) -> bool:
        """Whether somebody wants polls at one interval, whatever is known."""
        return self.min_s == self.max_s

    @property
    def near_s(self) -> float:
        """Polls that are planned within so many seconds of one another are made together, at the first one's time."""
        return self.gap_s / 4

    @property
    def recheck_s(self) -> float:
        """How long after a task was first reported as failed (seconds) a second such answer makes that final."""
        return 2 * self.gap_s

    @property
    def gap_s(self) -> float:
        """The least between two planned polls: a third of what is asked for without a plan."""
        return self.min_s / 3
