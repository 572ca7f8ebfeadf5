"""Delays between polls, attempts and leases."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.domain.timeouts import CallbackTimeouts, Timeouts


def test_polls_are_as_far_apart_as_upstream_asks() -> None:
    """By default a poll comes 15 to 25 s after the last one."""
    delays = [plan.unscheduled_delay(plan.jitter()) for plan in (PollSchedulePolicy(),) for _ in range(1_000)]

    assert 15 <= min(delays) <= max(delays) <= 25


def test_polls_do_not_come_in_waves() -> None:
    """The delays are uniformly distributed: each fifth of the interval gets its share."""
    plan = PollSchedulePolicy(10, 20, random.Random(7))
    fifths = [int((plan.unscheduled_delay(plan.jitter()) - 10) // 2) for _ in range(1_000)]

    assert all(150 <= fifths.count(fifth) <= 250 for fifth in range(5))


def test_equal_limits_give_a_constant_delay() -> None:
    """With equal limits the delay is constant."""
    assert PollSchedulePolicy(0.3, 0.3).unscheduled_delay(0.7) == pytest.approx(0.3)


def test_a_plan_with_the_same_random_source_gives_the_same_delays() -> None:
    """Only the random source decides."""
    one, other = PollSchedulePolicy(random_source=random.Random(1)), PollSchedulePolicy(random_source=random.Random(1))

    assert [one.jitter() for _ in range(5)] == [other.jitter() for _ in range(5)]


def test_a_claim_does_not_expire_while_its_post_may_be_answered() -> None:
    """The lease of a POST is longer than the last request of a task may take (30 s)."""
    timeouts = Timeouts()

    assert timeouts.submit_lease_s > timeouts.submit_s + 30


def attempt_times(timeouts: CallbackTimeouts, *, took: float = 0.0) -> list[float]:
    """Return the times of the attempts of a callback that always fails, in seconds since the first one."""
    times, now = [0.0], took
    while (due := timeouts.next_attempt_at(0.0, len(times), now)) is not None:
        times.append(due)
        now = due + took
    return times


def test_callbacks_are_tried_for_a_day_at_growing_distance() -> None:
    """The delays grow to an hour, and the last attempt is made after a day."""
    times = attempt_times(CallbackTimeouts())

    delays = [later - before for before, later in pairwise(times)]
    assert times[1:5] == [5, 20, 65, 200]
    assert max(delays) == 3_600
    assert delays[:-1] == sorted(delays[:-1])
    assert times[-1] == 86_400
    assert 25 <= len(times) <= 35


def test_a_callback_is_not_attempted_after_its_time() -> None:
    """Slow attempts reduce their number, but do not extend the time."""
    times = attempt_times(CallbackTimeouts(), took=10.0)

    assert times[-1] == 86_400
    assert CallbackTimeouts().next_attempt_at(0.0, 3, 86_400.0) is None


def test_a_receiver_may_ask_for_more_time_up_to_the_longest_wait() -> None:
    """`Retry-After` makes a delay longer, never shorter."""
    timeouts = CallbackTimeouts()

    assert timeouts.next_attempt_at(0.0, 1, 0.0, min_delay_s=60) == 60
    assert timeouts.next_attempt_at(0.0, 1, 0.0, min_delay_s=1) == 5
    assert timeouts.next_attempt_at(0.0, 1, 0.0, min_delay_s=1e9) == 3_600
    assert timeouts.next_attempt_at(0.0, 10_000, 0.0) == 3_600
