"""Budgets: the credits that the account or a namespace may spend in a day and in a month (UTC)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from voicequeue.domain.namespaces import namespace_name

#: The owner of all jobs.
ACCOUNT = "account"


def budget_owner(text: str) -> str:
    """Return `text` if it is an owner of budgets: `account` or `namespace/NAME`. Raises ValueError."""
    kind, _, name = text.partition("/")
    if text != ACCOUNT and (kind != "namespace" or not name):
        raise ValueError(f"{text[:60]!r} has no budget: use 'account', or 'namespace/NAME' for a namespace")
    namespace_name(name)
    return text


def budget_text(period: str, credits: float | None) -> str:
    """Return the stored text of a budget; '' is unlimited. Raises ValueError."""
    if credits is None:
        return ""
    if not (0 <= credits < 2**53 and credits == int(credits)):
        raise ValueError(f"{period}: {credits} must be a whole number of credits of at least 0")
    return str(int(credits))


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of an owner in the current day or month (UTC), in credits.

    `reserved` is the cost of jobs in flight, of unsure and of lost orders, which counts as spent. `resets_at` is the
    Unix time at which the next period begins.
    """

    owner: str
    period: str
    limit: int
    spent: int
    reserved: int
    resets_at: float

    @property
    def remaining(self) -> int:
        """Return the credits that new orders may spend in this period."""
        return max(0, self.limit - self.spent - self.reserved)


def spent_fields(now: float) -> dict[str, str]:
    """Return the counter of spent credits of the current day and month, by period."""
    at = datetime.fromtimestamp(now, UTC)
    return {"day": f"day.{int(now // 86_400)}", "month": f"month.{at:%Y%m}"}


def period_ends(now: float) -> dict[str, float]:
    """Return the Unix time at which the current day and month end (UTC), by period."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return {"day": (midnight + timedelta(days=1)).timestamp(), "month": next_month.timestamp()}
