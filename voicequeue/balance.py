"""What the account held at times, and whether that tells anything about an unsure charge. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits left on the account, as upstream said between `asked` and `at` (Unix seconds).

    `spent` is what the records had counted until then. `quiet` says that no charge was under way, so
    that the two belong together.
    """

    asked: float
    at: float
    credits: int
    spent: int
    quiet: bool


@dataclass(frozen=True, slots=True)
class Around:
    """The last quiet balance before some time and the first one after it."""

    before: Balance
    after: Balance

    @property
    def unexplained(self) -> int:
        """Credits that left the account meanwhile and that no record knows of (other users of it count too)."""
        return (self.before.credits - self.after.credits) - (self.after.spent - self.before.spent)


def around(balances: Sequence[Balance], begun: float, over: float) -> Around | None:
    """The balances around a charge, oldest first given; None where it tells nothing (yet, or any more)."""
    before = [balance for balance in balances if balance.quiet and balance.at < begun]
    after = [balance for balance in balances if balance.quiet and balance.asked > over]
    return Around(before[-1], after[0]) if before and after else None
