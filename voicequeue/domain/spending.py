"""Reports of spending: credits that were charged, by namespace, API key, batch, day and month (UTC). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from voicequeue.domain.budgets import DAYS_KEPT

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas


class SpendingGroup(StrEnum):
    """A column by which spending is grouped."""

    NAMESPACE = "namespace"
    KEY = "key"
    BATCH = "batch"
    DAY = "day"
    MONTH = "month"


#: Pairs of columns whose credits are not counted together.
_NOT_TOGETHER = (
    (SpendingGroup.KEY, SpendingGroup.NAMESPACE),
    (SpendingGroup.KEY, SpendingGroup.BATCH),
)


@dataclass(frozen=True, slots=True)
class SpendingQuery:
    """The columns of a report, and the day (UTC) with which it begins; None: all that was ever spent.

    Raises ValueError for columns that cannot be combined.
    """

    by: frozenset[SpendingGroup]
    since: date | None = None

    def __post_init__(self) -> None:
        for pair in _NOT_TOGETHER:
            if self.by.issuperset(pair):
                raise ValueError(f"by: {pair[0]} and {pair[1]} cannot be combined; ask for one report of each")

    @property
    def period(self) -> SpendingGroup | None:
        """The shortest period by which it is grouped."""
        return next((group for group in (SpendingGroup.DAY, SpendingGroup.MONTH) if group in self.by), None)

    @property
    def counted_by(self) -> SpendingGroup | None:
        """The counters that answer it: those of days or of months; None: those of all time."""
        if self.since is None or SpendingGroup.DAY in self.by:
            return self.period if self.since is None else SpendingGroup.DAY
        return SpendingGroup.MONTH if self.since.day == 1 else SpendingGroup.DAY

    def check(self, now: float) -> None:
        """Raise ValueError if the counters of these days are not kept any longer."""
        oldest = datetime.fromtimestamp(now, UTC).date() - timedelta(days=DAYS_KEPT)
        if self.since is not None and self.since < oldest and self.counted_by is SpendingGroup.DAY:
            raise ValueError(
                f"since: {self.since} is too long ago: days are kept from {oldest} on. For an earlier time, name the "
                "first day of a month, and do not group by day"
            )


#: The texts of columns without a value, for people.
NO_VALUE: Mapping[SpendingGroup, str] = {
    SpendingGroup.NAMESPACE: "(default)",
    SpendingGroup.KEY: "(no key)",
    SpendingGroup.BATCH: "(no batch)",
    SpendingGroup.DAY: "(undated)",
    SpendingGroup.MONTH: "(undated)",
}


def columns_of(by: frozenset[SpendingGroup]) -> list[SpendingGroup]:
    """Return the columns of a report in their order; a batch has its namespace beside it."""
    shown = by | {SpendingGroup.NAMESPACE} if SpendingGroup.BATCH in by else by
    return [group for group in SpendingGroup if group in shown]


def parse_groups(names: Iterable[str]) -> frozenset[SpendingGroup]:
    """Return the columns of these names. Raises ValueError."""
    allowed = ", ".join(SpendingGroup)
    groups = set()
    for name in names:
        if name not in list(SpendingGroup):
            raise ValueError(f"by: {name[:40]!r} is unknown; use {allowed}")
        groups.add(SpendingGroup(name))
    return frozenset(groups)


@dataclass(frozen=True, slots=True)
class Spending:
    """Credits that were charged.

    A column is None if the report is not grouped by it.

    Attributes:
        credits: Number of credits.
        namespace: Name of the namespace; '' is the default one.
        key: Name of the API key that enqueued the jobs; '' is all that no key is known for.
        batch: Name of the batch; '' is jobs without a batch, and batches whose jobs were all purged.
        day: Day (UTC), such as `2026-03-01`; '' is what was not counted by day.
        month: Month (UTC), such as `2026-03`; '' is what was not counted by month.
    """

    credits: int
    namespace: str | None = None
    key: str | None = None
    batch: str | None = None
    day: str | None = None
    month: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Its columns in the order of reports; '' for those without a value."""
        return tuple(getattr(self, group) or "" for group in SpendingGroup)

    def cells(self, columns: Iterable[SpendingGroup]) -> tuple[object, ...]:
        """Return the row of a table with these columns and the credits."""
        return (*(getattr(self, column) for column in columns), self.credits)

    def as_dict(self) -> operator_schemas.Spending:
        """Return the JSON representation."""
        return {
            "namespace": self.namespace,
            "key": self.key,
            "batch": self.batch,
            "day": self.day,
            "month": self.month,
            "credits": self.credits,
        }
