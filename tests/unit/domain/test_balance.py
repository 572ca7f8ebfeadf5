"""Balances around a charge, and spending that was not counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from voicequeue.domain.balance import Balance, UncountedSpending, balance_window, uncounted_spending


def balance(at: float, credits: int, spent: int, *, quiet: bool = True, took: float = 0.5) -> Balance:
    """Return a balance that upstream reported at that time."""
    return Balance(at - took, at, credits, spent, quiet)


def test_what_left_the_account_without_a_record_is_unexplained() -> None:
    """Of 23 credits that left the account 19 are recorded: the unsure voice cost 4."""
    window = balance_window([balance(10, 1000, 50), balance(70, 977, 69)], started_at=20, ended_at=50)

    assert window is not None
    assert (window.before.credits, window.after.credits, window.unexplained) == (1000, 977, 4)


def test_the_nearest_balances_are_taken() -> None:
    """They are the last one before and the first one after the charge."""
    window = balance_window([balance(at, 1000 - at, 0) for at in (10, 20, 30, 60, 70)], started_at=35, ended_at=40)

    assert window is not None
    assert (window.before.received_at, window.after.received_at) == (30, 60)


def test_a_balance_while_something_was_charged_tells_nothing() -> None:
    """The counted credits and those of upstream do not correspond then."""
    assert balance_window([balance(10, 1000, 0), balance(70, 996, 0, quiet=False)], started_at=20, ended_at=50) is None
    assert balance_window([balance(10, 1000, 0, quiet=False), balance(70, 996, 0)], started_at=20, ended_at=50) is None


def test_a_balance_that_was_asked_for_meanwhile_is_neither_before_nor_after() -> None:
    """It is unknown whether upstream answered before or after the charge."""
    assert balance_window([balance(20.2, 1000, 0), balance(70, 996, 0)], started_at=20, ended_at=50) is None
    assert balance_window([balance(10, 1000, 0), balance(50.3, 996, 0)], started_at=20, ended_at=50) is None


def test_without_balances_nothing_is_known() -> None:
    """The same applies if those of that time are deleted."""
    assert balance_window([], started_at=20, ended_at=50) is None
    assert balance_window([balance(70, 996, 0)], started_at=20, ended_at=50) is None


# ── what was not counted ──────────────────────────────────────────────────────────────────────────


def at(minute: int, credits: int, voices: int = 0, songs: int = 0, **more: Any) -> Balance:
    """Return the balance of that minute, with the orders counted by then."""
    spent = more.pop("spent", 4 * voices + 15 * songs)
    base = balance(60 * minute, credits, spent, quiet=more.get("charging", 0) == 0)
    return replace(base, voices=voices, songs=songs, **more)


def test_what_was_counted_is_no_finding() -> None:
    """Orders are in progress, or spending and credits correspond."""
    assert uncounted_spending([]) is None
    assert uncounted_spending([at(0, 1000)]) is None
    assert uncounted_spending([at(0, 1000), at(1, 981, 1, 1), at(2, 981, 1, 1)]) is None
    assert uncounted_spending([at(0, 1000), at(1, 977, 1, 1, charging=4), at(2, 977, 2, 1)]) is None


def test_a_voice_that_costs_5_is_noticed() -> None:
    """The price is reported where only voices were ordered; otherwise a changed price is mentioned as possible."""
    voices = [at(0, 1000), at(1, 950, 10), at(2, 895, 21)]
    assert str(uncounted_spending(voices)) == (
        "the account fell by 105 while 84 were counted: another user of the account, or a changed price "
        "(5 instead of 4 a voice?)"
    )

    window = uncounted_spending([at(0, 1000), at(1, 580, 21, 21)])
    assert window is not None
    assert (window.unexplained, window.price) == (21, None)
    assert str(window) == (
        "the account fell by 420 while 399 were counted: another user of the account, or a changed price"
    )


def test_a_song_that_costs_18_is_noticed_also_between_others() -> None:
    """A price is inferred from at least three orders that all seem to have cost it."""
    mixed = [at(0, 1000), at(1, 980, 5), at(2, 926, 5, 3), at(3, 922, 6, 3)]
    assert (uncounted_spending(mixed) or UncountedSpending(0, 0, 0)).price == 18
    assert (uncounted_spending([*mixed, at(4, 907, 6, 4)]) or UncountedSpending(0, 0, 0)).price is None
    assert (uncounted_spending([at(0, 1000), at(1, 964, 0, 2)]) or UncountedSpending(0, 0, 0)).price is None


def test_spending_of_others_is_reported_without_a_price() -> None:
    """It is reported since the time it started."""
    window = uncounted_spending([at(0, 1000), at(1, 996, 1), at(2, 996, 1), at(3, 890, 2), at(4, 790, 2)])

    assert window is not None
    assert (window.since, window.decrease, window.counted, window.price) == (120, 206, 4, None)


@pytest.mark.parametrize("more", [5_000, 30])
def test_a_balance_that_rises_is_no_finding_and_begins_a_new_count(more: int) -> None:
    """The reason may be a renewal, a top-up, or a refund."""
    others = [at(0, 1000), at(1, 970)]
    assert uncounted_spending(others) is not None

    renewed = [*others, at(2, 970 + more), at(3, 970 + more - 4, 1)]
    assert uncounted_spending(renewed) is None
    window = uncounted_spending([*renewed, at(4, 970 + more - 9, 1)])
    assert window is not None
    assert window.decrease - window.counted == 5


def test_lost_orders_explain_what_they_may_have_cost() -> None:
    """This holds while they are unsure, when they are counted later, and when they were given up or resubmitted."""
    lost = [at(0, 1000), at(1, 996, unsure=4)]

    assert uncounted_spending(lost) is None
    assert uncounted_spending([*lost, at(2, 996, 1)]) is None
    assert uncounted_spending([*lost, at(2, 996, unsettled=4)]) is None
    window = uncounted_spending([*lost, at(2, 990, unsure=4)])
    assert window is not None
    assert (window.unexplained, window.lost_orders) == (6, 4)
    assert "and lost orders may have cost 4" in str(window)


def test_upstream_may_count_an_order_later_than_we_do() -> None:
    """The delay is less than the time between two balances, under a continuous load."""
    late = [at(0, 1000), *(at(n, 1000 - 19 * 10 * n + 38, 10 * n, 10 * n, charging=4) for n in range(1, 9))]

    assert uncounted_spending([*late, at(9, 1000 - 19 * 80, 80, 80)]) is None
