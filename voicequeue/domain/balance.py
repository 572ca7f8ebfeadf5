"""Account balances over time: evidence about an unsure charge, and about spending that was not counted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from voicequeue.domain.stage import PRICES, Stage

#: Minimum number of orders to infer a price from.
_ORDERS_MIN = 3


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits on the account, as upstream reported them between `requested_at` and `received_at` (Unix seconds).

    `spent` are the credits counted until then, for `voices` and `songs` orders. `is_quiet` means that no charge was in
    progress, so that `credits` and `spent` correspond. At `received_at`, orders worth `charging` credits were in
    progress and orders worth `unsure` credits had lost their answer. `unsettled` are the credits of all lost orders
    that were given up or resubmitted until then.
    """

    requested_at: float
    received_at: float
    credits: int
    spent: int
    is_quiet: bool
    charging: int = 0
    unsure: int = 0
    unsettled: int = 0
    voices: int = 0
    songs: int = 0


@dataclass(frozen=True, slots=True)
class BalanceWindow:
    """The quiet balances around a charge.

    Attributes:
        before: Last quiet balance before the charge.
        after: First quiet balance after the charge.
    """

    before: Balance
    after: Balance

    @property
    def unexplained(self) -> int:
        """The credits that left the account in between without a record; other users of the account count too."""
        return (self.before.credits - self.after.credits) - (self.after.spent - self.before.spent)


def balance_window(balances: Sequence[Balance], started_at: float, ended_at: float) -> BalanceWindow | None:
    """Return the quiet balances around a charge made between `started_at` and `ended_at` (Unix seconds); None where one
    is missing.

    `balances` are sorted, oldest first.
    """
    before = [balance for balance in balances if balance.is_quiet and balance.received_at < started_at]
    after = [balance for balance in balances if balance.is_quiet and balance.requested_at > ended_at]
    return BalanceWindow(before[-1], after[0]) if before and after else None


@dataclass(frozen=True, slots=True)
class UncountedSpending:
    """Spending after `since` (Unix seconds) that exceeds what was counted.

    The balance fell by `decrease` credits: `counted` of them are recorded, and up to `lost_orders` may be the cost of
    lost orders. `price` is set if all orders of one `stage` seem to have cost another price than expected.
    """

    since: float
    decrease: int
    counted: int
    lost_orders: int = 0
    stage: Stage | None = None
    price: int | None = None

    @property
    def unexplained(self) -> int:
        """The credits that left the account and that no order explains."""
        return self.decrease - self.counted - self.lost_orders

    def __str__(self) -> str:
        lost = f" and lost orders may have cost {self.lost_orders:,}" if self.lost_orders else ""
        price = ""
        if self.stage is not None:
            kind = {Stage.VOICE: "voice", Stage.MUSIC: "song"}[self.stage]
            price = f" ({self.price} instead of {PRICES[self.stage]} a {kind}?)"
        summary = f"the account fell by {self.decrease:,} while {self.counted:,} were counted{lost}"
        return f"{summary}: another user of the account, or a changed price{price}"


def uncounted_spending(balances: Sequence[Balance]) -> UncountedSpending | None:
    """Return the unexplained spending since credits and spending together were highest; None where there is none.

    A balance that rises (a top-up, a renewal, a refund) starts a new count. `balances` are sorted, oldest first.
    """
    start, highest = 0, None
    for index, least in enumerate(_spent_at_least(balances)):
        level = balances[index].credits + least
        if highest is None or level >= highest:
            start, highest = index, level
    if highest is None:
        return None
    first, last = balances[start], balances[-1]
    counted = last.spent + last.charging - (highest - first.credits)
    lost = max(0, last.unsure + last.unsettled - first.unsettled)
    result = UncountedSpending(
        first.received_at, first.credits - last.credits, counted, lost, *_price(balances[start:])
    )
    return result if result.unexplained > 0 else None


def _spent_at_least(balances: Sequence[Balance]) -> Iterator[int]:
    """Yield what upstream had certainly charged at each balance.

    It may count an order later than we do, but not as late as the next balance.
    """
    if balances:
        yield balances[0].spent
    yield from (before.spent for before, _ in pairwise(balances))


def _price(balances: Sequence[Balance]) -> tuple[Stage, int] | tuple[None, None]:
    """Return the stage whose orders seem to cost another price, and that price.

    It is inferred from intervals in which orders of one stage only were submitted.
    """
    samples: dict[Stage, list[tuple[int, int]]] = {stage: [] for stage in Stage}
    for before, after in pairwise(balances):
        orders = {Stage.VOICE: after.voices - before.voices, Stage.MUSIC: after.songs - before.songs}
        stages = [stage for stage, count in orders.items() if count]
        if len(stages) == 1 and before.is_quiet and after.is_quiet:
            samples[stages[0]].append((before.credits - after.credits, orders[stages[0]]))
    for stage, charges in samples.items():
        prices = {fell / count for fell, count in charges}
        if len(prices) == 1 and sum(count for _, count in charges) >= _ORDERS_MIN:
            [price] = prices
            if price > PRICES[stage] and price == int(price):
                return stage, int(price)
    return None, None
