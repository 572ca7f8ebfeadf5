"""What the account held before and after a charge, and whether that tells anything."""

from __future__ import annotations

from voicequeue.balance import Balance, around


def seen(at: float, credits: int, spent: int, *, quiet: bool = True, took: float = 0.5) -> Balance:
    """What upstream said then."""
    return Balance(at - took, at, credits, spent, quiet)


def test_what_left_the_account_without_a_record_is_unexplained() -> None:
    """Of 23 credits that are gone, 19 stand in the records: the unsure voice cost 4."""
    found = around([seen(10, 1000, 50), seen(70, 977, 69)], begun=20, over=50)

    assert found is not None
    assert (found.before.credits, found.after.credits, found.unexplained) == (1000, 977, 4)


def test_the_nearest_balances_are_taken() -> None:
    """The last one before, the first one after."""
    found = around([seen(at, 1000 - at, 0) for at in (10, 20, 30, 60, 70)], begun=35, over=40)

    assert found is not None
    assert (found.before.at, found.after.at) == (30, 60)


def test_a_balance_while_something_was_charged_tells_nothing() -> None:
    """What was counted and what upstream said do not belong together then."""
    assert around([seen(10, 1000, 0), seen(70, 996, 0, quiet=False)], begun=20, over=50) is None
    assert around([seen(10, 1000, 0, quiet=False), seen(70, 996, 0)], begun=20, over=50) is None


def test_a_balance_that_was_asked_for_meanwhile_is_neither_before_nor_after() -> None:
    """Nobody knows whether upstream answered before or after the charge."""
    assert around([seen(20.2, 1000, 0), seen(70, 996, 0)], begun=20, over=50) is None
    assert around([seen(10, 1000, 0), seen(50.3, 996, 0)], begun=20, over=50) is None


def test_without_balances_nothing_is_known() -> None:
    """Or where those of that time are forgotten."""
    assert around([], begun=20, over=50) is None
    assert around([seen(70, 996, 0)], begun=20, over=50) is None
