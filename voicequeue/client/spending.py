"""Budgets, and reports of what was spent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from voicequeue.client.reading import ReadMethods
from voicequeue.domain.budgets import Budget
from voicequeue.domain.spending import Spending, SpendingQuery, parse_groups
from voicequeue.storage.connection.errors import translated_errors


class SpendingMethods(ReadMethods):
    """Methods of `VoiceQueue` for budgets and spending."""

    def budgets(self) -> list[Budget]:
        """Return the budgets, with what was spent and reserved, and what is left.

        Those of all owners; in one namespace its own, and those of its API keys.
        """
        now = self._now()
        with translated_errors():
            return self._store.budgets(now)

    def spending(self, by: Iterable[str] = (), *, since: date | None = None) -> list[Spending]:
        """Return the credits that were charged, by columns; all reports of the same jobs have the same sum.

        An order counts on the day (UTC) of its charge. Rows without credits are left out.

        Args:
            by: Columns: `namespace`, `key`, `batch`, `day`, `month`. A batch has its namespace
                beside it. `key` cannot be combined with `namespace` or `batch`. Without columns there is one row.
            since: Only what was charged on this day (UTC) or later; None: all that was ever charged. Days are
                counted for 400 days, months permanently.

        Raises:
            ValueError: A column is unknown, columns cannot be combined, or `since` is too long ago for them.
        """
        query = SpendingQuery(parse_groups(by), since)
        query.check(self._now())
        with translated_errors():
            return self._store.spending(query)
