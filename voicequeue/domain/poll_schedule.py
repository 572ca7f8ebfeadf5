"""Poll schedules: polls placed where most orders finish, from the durations of recent orders. Pure.

A poll only shows that an order took longer or less than its age, so each duration is known as an interval. A
log-normal distribution is fitted to the intervals by expectation-maximization: estimates that ignore the censoring
(quantiles of the interval ends or midpoints) need 1.5 to 2 times as many polls for the same delay. Times are in
seconds since the order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, pstdev

#: Minimum number of durations for a schedule, and the number of recent durations that are kept.
MIN_DURATIONS, MAX_DURATIONS = 50, 200

#: Share of results that may be detected later than `lateness_s` after they were ready, all by the first poll.
_LATE_SHARE = 0.0375
#: Share of orders that a schedule covers, and the maximum number of its polls; later polls are unscheduled.
_COVERED_SHARE, _POLLS_MAX = 0.9975, 150

#: Limits of the fit: iterations, the change at which it has converged, and the minimum deviation.
_ITERATIONS_MAX = 40
_TOLERANCE = 1e-4
_DEVIATION_MIN = 0.02


@dataclass(frozen=True, slots=True)
class DurationInterval:
    """Interval of a duration: the order took longer than `lower_s` and at most `upper_s` seconds."""

    lower_s: float
    upper_s: float


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Distribution of durations whose logarithm is normal with this mean and deviation."""

    mean: float
    deviation: float

    def quantile(self, share: float) -> float:
        """Return the duration in seconds within which this share of orders is ready."""
        return math.exp(NormalDist(self.mean, self.deviation).inv_cdf(share))


def fit_durations(spans: Sequence[DurationInterval]) -> LogNormal:
    """Return the log-normal distribution with the maximum likelihood for these intervals, at least one."""
    logs = [(math.log(span.lower_s) if span.lower_s > 0 else -math.inf, math.log(span.upper_s)) for span in spans]
    middles = [math.log((span.lower_s + span.upper_s) / 2) for span in spans]
    mean, deviation = fmean(middles), max(pstdev(middles), _DEVIATION_MIN)
    for _ in range(_ITERATIONS_MAX):
        moments = [_moments(low, high, mean, deviation) for low, high in logs]
        new_mean = fmean(first for first, _ in moments)
        new_deviation = math.sqrt(max(fmean(second for _, second in moments) - new_mean**2, _DEVIATION_MIN**2))
        has_converged = abs(new_mean - mean) < _TOLERANCE and abs(new_deviation - deviation) < _TOLERANCE
        mean, deviation = new_mean, new_deviation
        if has_converged:
            break
    return LogNormal(mean, deviation)


def _moments(low: float, high: float, mean: float, deviation: float) -> tuple[float, float]:
    """Return the expectation of a normal value between `low` and `high`, and of its square."""
    normal = NormalDist()
    a, b = (low - mean) / deviation, (high - mean) / deviation
    inside = normal.cdf(b) - normal.cdf(a)
    if inside < 1e-9:  # far in a tail: the nearer end
        nearer = high if b < 0 or low == -math.inf else low
        return nearer, nearer**2
    at_a, at_b = (0.0, 0.0) if a == -math.inf else (normal.pdf(a), a * normal.pdf(a)), normal.pdf(b)
    density_a, moment_a = at_a
    shift = (density_a - at_b) / inside
    spread = 1 + (moment_a - b * at_b) / inside - shift**2
    middle = mean + deviation * shift
    return middle, deviation**2 * max(spread, 0.0) + middle**2


@dataclass(frozen=True, slots=True)
class PollSchedulePolicy:
    """Poll times of an order.

    Without a schedule, polls are `min_s` to `max_s` seconds apart, uniformly distributed so that they do not come in
    waves. With `min_s` equal to `max_s` they are always exactly that far apart.
    """

    min_s: float = 15.0
    max_s: float = 25.0
    random_source: random.Random = field(default_factory=random.Random, repr=False)

    def jitter(self) -> float:
        """Return a jitter value from 0 to 1.

        Share one value per group of orders; otherwise the earliest poll of the group is always early.
        """
        return self.random_source.random()

    def unscheduled_delay(self, jitter: float) -> float:
        """Return the delay until the next poll without a schedule."""
        return self.min_s + (self.max_s - self.min_s) * jitter

    def delay_from_schedule(self, age_s: float, schedule: Sequence[float], jitter: float) -> float:
        """Return the delay until the next poll of an order of that age, by a schedule (empty: none)."""
        if not schedule or self.is_fixed:
            return self.unscheduled_delay(jitter)
        # The offset spreads the polls, and narrows the intervals of the durations over time.
        offset = self.min_gap_s * (jitter - 0.5) / 2
        next_age = next(
            (planned + offset for planned in schedule if planned + offset > age_s + self.min_gap_s / 2), None
        )
        if next_age is None:
            return self.unscheduled_delay((1 + jitter) / 2)
        return max(self.min_gap_s, next_age - age_s)

    def schedule(self, spans: Sequence[DurationInterval]) -> list[float]:
        """Return the ages at which to poll, from the durations of recent orders; empty if there are too few.

        The first poll is so late that 3.75 % of results wait longer than `lateness_s` for it. Later polls are
        `lateness_s` apart, so that no other result does.
        """
        if len(spans) < MIN_DURATIONS or self.is_fixed:
            return []
        lateness_s = (
            (self.min_s + self.max_s) / 2 * 0.92
        )  # the longest delay of unscheduled polls, with the mean interval
        durations = fit_durations(spans)
        first, last = durations.quantile(_LATE_SHARE) + lateness_s, durations.quantile(_COVERED_SHARE)
        polls = min(_POLLS_MAX, 1 + max(0, math.ceil((last - first) / lateness_s)))
        return [first + number * lateness_s for number in range(polls)]

    @property
    def is_fixed(self) -> bool:
        """True if polls have one fixed interval, so that schedules do not apply."""
        return self.min_s == self.max_s

    @property
    def coalesce_window_s(self) -> float:
        """Polls due within this many seconds of each other are made together, at the time of the first."""
        return self.min_gap_s / 4

    @property
    def coalesce_interval_s(self) -> float:
        """Seconds between two rounds of polls, each of which is made up to `coalesce_window_s` early, or up to twice as
        much late."""
        return 3 * self.coalesce_window_s

    @property
    def recheck_s(self) -> float:
        """Seconds after the first report of a failure at which a second report makes it final."""
        return 2 * self.min_gap_s

    @property
    def min_gap_s(self) -> float:
        """Minimum seconds between two polls of an order: a third of the minimum without a schedule."""
        return self.min_s / 3
