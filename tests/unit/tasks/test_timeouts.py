"""When to ask again: the numbers of flow control."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from voicequeue.domain.poll_schedule import PollPlan
from voicequeue.domain.timeouts import CallbackPatience, Patience


def test_polls_are_as_far_apart_as_upstream_asks() -> None:
    """By default no poll of one task comes earlier than 15 s or later than 25 s after the last."""
    delays = [plan.delay(plan.luck()) for plan in (PollPlan(),) for _ in range(1_000)]

    assert 15 <= min(delays) <= max(delays) <= 25


def test_polls_do_not_come_in_waves() -> None:
    """The delays spread over the whole span: each fifth of it gets its share."""
    plan = PollPlan(10, 20, random.Random(7))
    fifths = [int((plan.delay(plan.luck()) - 10) // 2) for _ in range(1_000)]

    assert all(150 <= fifths.count(fifth) <= 250 for fifth in range(5))


def test_a_span_of_nothing_is_one_time() -> None:
    """Tests and benchmarks may ask for the same delay always."""
    assert PollPlan(0.3, 0.3).delay(0.7) == pytest.approx(0.3)


def test_a_plan_with_the_same_chance_tells_the_same_delays() -> None:
    """Nothing but the given chance decides."""
    one, other = PollPlan(chance=random.Random(1)), PollPlan(chance=random.Random(1))

    assert [one.luck() for _ in range(5)] == [other.luck() for _ in range(5)]


def test_a_charge_is_not_given_up_while_it_may_still_be_answered() -> None:
    """The lease of a POST is longer than upstream gets to answer (30 s) after the last one was begun."""
    patience = Patience()

    assert patience.charge_s > patience.submit_s + 30


def tries(patience: CallbackPatience, *, took: float = 0.0) -> list[float]:
    """When a callback is tried that always fails, in seconds since the first try."""
    found, now = [0.0], took
    while (due := patience.next_try(0.0, len(found), now)) is not None:
        found.append(due)
        now = due + took
    return found


def test_callbacks_are_tried_for_a_day_at_growing_distance() -> None:
    """At first soon, then hourly, and the last time when the day is just over."""
    found = tries(CallbackPatience())

    apart = [later - before for before, later in pairwise(found)]
    assert found[1:5] == [5, 20, 65, 200]
    assert max(apart) == 3_600
    assert apart[:-1] == sorted(apart[:-1])
    assert found[-1] == 86_400
    assert 25 <= len(found) <= 35


def test_a_callback_is_tried_no_more_when_its_time_is_over() -> None:
    """Slow tries make them fewer, and never later."""
    found = tries(CallbackPatience(), took=10.0)

    assert found[-1] == 86_400
    assert CallbackPatience().next_try(0.0, 3, 86_400.0) is None


def test_a_receiver_may_ask_for_more_time_up_to_the_longest_wait() -> None:
    """`Retry-After` makes a wait longer, never shorter."""
    patience = CallbackPatience()

    assert patience.next_try(0.0, 1, 0.0, at_least=60) == 60
    assert patience.next_try(0.0, 1, 0.0, at_least=1) == 5
    assert patience.next_try(0.0, 1, 0.0, at_least=1e9) == 3_600
    assert patience.next_try(0.0, 10_000, 0.0) == 3_600
