"""What the account held at times, whether that tells anything about an unsure charge, and whether more has left it
than was counted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from voicequeue.domain.stage import PRICES, Stage

#: A price is inferred from at least so many orders.
_ORDERS_MIN = 3


@dataclass(frozen=True, slots=True)
class Balance:
    """Credits left on the account, as upstream said between `asked` and `at` (Unix seconds).

    `spent` is what the records had counted until then, for `voices` and `songs` orders. `quiet` says that no charge was
    under way, so that the two belong together. At `at` orders worth `charging` credits were under way and `unsure` ones
    lost; `unsettled` are the credits of all lost orders that were given up or sent again until then.
    """

    asked: float
    at: float
    credits: int
    spent: int
    quiet: bool
    charging: int = 0
    unsure: int = 0
    unsettled: int = 0
    voices: int = 0
    songs: int = 0


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


@dataclass(frozen=True, slots=True)
class Drift:
    """More has left the account `since` then (Unix seconds) than was counted: it `fell` by so many credits, of which
    the records `counted` so many, and lost orders may explain `lost` ones.

    Where the orders of one `stage` all seem to have cost another price than expected, `price` is that one.
    """

    since: float
    fell: int
    counted: int
    lost: int = 0
    stage: Stage | None = None
    price: int | None = None

    @property
    def unexplained(self) -> int:
        """Credits that left the account and that no order explains."""
        return self.fell - self.counted - self.lost

    def __str__(self) -> str:
        lost = f" and lost orders may have cost {self.lost:,}" if self.lost else ""
        price = ""
        if self.stage is not None:
            kind = {Stage.VOICE: "voice", Stage.MUSIC: "song"}[self.stage]
            price = f" ({self.price} instead of {PRICES[self.stage]} a {kind}?)"
        seen = f"the account fell by {self.fell:,} while {self.counted:,} were counted{lost}"
        return f"{seen}: another user of the account, or a changed price{price}"


def drift(balances: Sequence[Balance]) -> Drift | None:
    """Whether more has left the account than was counted, since credits and spending together were highest; None where
    all of it is explained. The oldest balance comes first.

    A balance that rises (a top-up, a renewal, a refund) is no finding, and begins a new count.
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
    found = Drift(first.at, first.credits - last.credits, counted, lost, *_price(balances[start:]))
    return found if found.unexplained > 0 else None


def _spent_at_least(balances: Sequence[Balance]) -> Iterator[int]:
    """What upstream had charged for certain when it said each balance: it may count an order somewhat later than we
    do, but not as late as when it is asked the next time."""
    if balances:
        yield balances[0].spent
    yield from (before.spent for before, _ in pairwise(balances))


def _price(balances: Sequence[Balance]) -> tuple[Stage, int] | tuple[None, None]:
    """The stage whose orders seem to cost another price, and that price: seen where nothing else was ordered."""
    seen: dict[Stage, list[tuple[int, int]]] = {stage: [] for stage in Stage}
    for before, after in pairwise(balances):
        orders = {Stage.VOICE: after.voices - before.voices, Stage.MUSIC: after.songs - before.songs}
        [*ordered] = (stage for stage, count in orders.items() if count)
        if len(ordered) == 1 and before.quiet and after.quiet:
            seen[ordered[0]].append((before.credits - after.credits, orders[ordered[0]]))
    for stage, found in seen.items():
        prices = {fell / count for fell, count in found}
        if len(prices) == 1 and sum(count for _, count in found) >= _ORDERS_MIN:
            [price] = prices
            if price > PRICES[stage] and price == int(price):
                return stage, int(price)
    return None, None
