"""When to ask again: the numbers of flow control."""

from __future__ import annotations

import random

import pytest

from voicequeue.flow import Patience
from voicequeue.polling import PollPlan


def test_polls_are_as_far_apart_as_upstream_asks() -> None:
    """By default no poll of one task comes earlier than 15 s or later than 25 s after the last."""
    delays = [PollPlan().delay() for _ in range(1_000)]

    assert 15 <= min(delays) <= max(delays) <= 25


def test_polls_do_not_come_in_waves() -> None:
    """The delays spread over the whole span: each fifth of it gets its share."""
    plan = PollPlan(10, 20, random.Random(7))
    fifths = [int((plan.delay() - 10) // 2) for _ in range(1_000)]

    assert all(150 <= fifths.count(fifth) <= 250 for fifth in range(5))


def test_a_span_of_nothing_is_one_time() -> None:
    """Tests and benchmarks may ask for the same delay always."""
    assert PollPlan(0.3, 0.3).delay() == pytest.approx(0.3)


def test_a_plan_with_the_same_chance_tells_the_same_delays() -> None:
    """Nothing but the given chance decides."""
    one, other = PollPlan(chance=random.Random(1)), PollPlan(chance=random.Random(1))

    assert [one.delay() for _ in range(5)] == [other.delay() for _ in range(5)]


def test_a_charge_is_not_given_up_while_it_may_still_be_answered() -> None:
    """The lease of a POST is longer than upstream gets to answer (30 s) after the last one was begun."""
    patience = Patience()

    assert patience.charge_s > patience.submit_s + 30
