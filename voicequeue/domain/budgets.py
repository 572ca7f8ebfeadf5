"""Budgets: what the account, a namespace or an API key may spend in a day and in a month (UTC), and have in flight."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from voicequeue.domain.job import to_iso8601
from voicequeue.domain.namespaces import ALL, namespace_name
from voicequeue.domain.stage import PRICES

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: The owner of all jobs.
ACCOUNT = "account"

#: Days of which it is kept what each owner spent; months are always kept.
DAYS_KEPT = 400

DAY_S = 86_400

#: The kinds of owners, in the order of lists.
OWNER_KINDS = (ACCOUNT, "namespace", "key")

#: The periods of budgets.
PERIODS = ("day", "month")

#: The levels of use that are reported, in percent.
LEVELS = (80, 100)

_API_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def budget_owner(text: str) -> str:
    """Return `text` if it is an owner of budgets: `account`, `namespace/NAME` (`namespace/`: the default one) or
    `key/NAME`. Raises ValueError."""
    kind, separator, name = text.partition("/")
    if kind == "namespace" and separator:
        namespace_name(name)
    elif text != ACCOUNT and not (kind == "key" and _API_KEY.fullmatch(name)):
        raise ValueError(f"{text[:60]!r} has no budget: use 'account', 'namespace/NAME' or 'key/NAME'")
    return text


def namespace_of_owner(owner: str) -> str:
    """Return the namespace that an owner is; `*` for the account and for a key."""
    kind, slash, name = owner.partition("/")
    return name if slash and kind == "namespace" else ALL


def counters_of(owner: str) -> str:
    """Return the name of the counters of an owner."""
    return "counters" if owner == ACCOUNT else owner.replace("/", ":", 1)


def budget_text(limit: str, value: float | None) -> str:
    """Return the stored text of a limit; '' is unlimited. Raises ValueError."""
    if value is None:
        return ""
    if not (0 <= value < 2**53 and value == int(value)):
        raise ValueError(f"{limit}: {value} must be a whole number of at least 0")
    return str(int(value))


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of an owner in the current day or month (UTC), in credits.

    `reserved` is the cost of jobs in flight, of unsure and of lost orders, which counts as spent. `resets_at` is the
    Unix time at which the next period begins. With `is_hard`, new jobs over the budget are refused.
    """

    owner: str
    period: str
    limit: int
    spent: int
    reserved: int
    resets_at: float
    is_hard: bool = False

    @property
    def remaining(self) -> int:
        """Return the credits that new orders may spend in this period."""
        return max(0, self.limit - self.spent - self.reserved)

    @property
    def level(self) -> int:
        """Return how much of it is used: 0, 80 (percent or more), or 100: what remains pays no voice with a song."""
        if self.remaining < sum(PRICES.values()):
            return 100
        return 80 if self.remaining <= self.limit * 0.2 else 0

    @property
    def used_part(self) -> float:
        """Return the part of the limit that is spent or reserved; at most 1."""
        return min(1.0, (self.spent + self.reserved) / self.limit) if self.limit else 1.0

    def used_dict(self) -> operator_schemas.BudgetUsed:
        """Return what a callback reports, besides its source."""
        return {**self.as_dict(), "namespace": namespace_of_owner(self.owner), "percent": self.level}

    def as_dict(self) -> operator_schemas.Budget:
        """Return the JSON representation."""
        return {
            "owner": self.owner,
            "period": self.period,
            "limit": self.limit,
            "spent": self.spent,
            "reserved": self.reserved,
            "remaining": self.remaining,
            "resets_at": to_iso8601(self.resets_at),
            "hard": self.is_hard,
        }


def spent_fields(now: float) -> dict[str, str]:
    """Return the counter of spent credits of the current day and month, by period."""
    at = datetime.fromtimestamp(now, UTC)
    return {"day": f"day.{int(now // DAY_S)}", "month": f"month.{at:%Y%m}"}


def period_ends(now: float) -> dict[str, float]:
    """Return the Unix time at which the current day and month end (UTC), by period."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return {"day": (midnight + timedelta(days=1)).timestamp(), "month": next_month.timestamp()}
