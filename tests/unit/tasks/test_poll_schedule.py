"""Poll schedules from the durations of recent orders."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from itertools import pairwise

import pytest

from voicequeue.domain.poll_schedule import (
    MIN_DURATIONS,
    DurationInterval,
    LogNormal,
    PollSchedulePolicy,
    fit_durations,
)

PLAN = PollSchedulePolicy(15, 25)
DURATIONS = LogNormal(math.log(60), 0.2)


def samples(count: int) -> list[float]:
    """Return durations of orders."""
    source = random.Random(7)
    return [DURATIONS.quantile(source.random()) for _ in range(count)]


def polled_every(interval_s: float, durations: list[float]) -> list[DurationInterval]:
    """Return the intervals that polls at a fixed interval show."""
    return [
        DurationInterval(duration // interval_s * interval_s, (duration // interval_s + 1) * interval_s)
        for duration in durations
    ]


def test_a_distribution_is_estimated_from_intervals_wider_than_itself() -> None:
    """The censoring is taken into account: midpoints would give a deviation that is too large."""
    estimate = fit_durations(polled_every(25, samples(200)))

    assert estimate.quantile(0.5) == pytest.approx(60, rel=0.05)
    assert estimate.deviation == pytest.approx(0.2, abs=0.04)


def test_a_schedule_needs_few_polls_and_lets_few_results_wait() -> None:
    """At most one result in twenty waits longer than 20 s, with at most two polls per order on average."""
    ages = PLAN.schedule(polled_every(25, samples(200)))
    durations = samples(1_000)
    polls = [bisect_left(ages, duration) for duration in durations]

    waits = [ages[number] - duration for number, duration in zip(polls, durations, strict=True) if number < len(ages)]
    assert len(waits) >= 990
    assert sum(wait > 20 for wait in waits) <= 50
    assert sum(number + 1 for number in polls) <= 2 * len(durations)


def test_without_enough_durations_there_is_no_schedule() -> None:
    """Neither is there one for a fixed interval."""
    spans = polled_every(25, samples(MIN_DURATIONS))

    assert PLAN.schedule(spans[1:]) == []
    assert PollSchedulePolicy(20, 20).schedule(spans) == []
    assert PLAN.schedule(spans) != []


@pytest.mark.parametrize(
    "spans",
    [
        [DurationInterval(0, 0.001)] * MIN_DURATIONS,
        [DurationInterval(0, 1), DurationInterval(9_000, 90_000)] * MIN_DURATIONS,
    ],
)
def test_a_schedule_is_bounded_for_extreme_durations(spans: list[DurationInterval]) -> None:
    """Its ages increase by at least the minimum gap."""
    ages = PLAN.schedule(spans)

    assert 1 <= len(ages) <= 150
    assert all(later - earlier >= PLAN.min_gap_s for earlier, later in pairwise(ages))
