"""What the owners of jobs spent by day and month, by the records and by the counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from voicequeue.domain.budgets import spent_fields
from voicequeue.domain.namespaces import namespace_of
from voicequeue.domain.source import Source

DAY_S = 86_400


def spenders(record: dict[str, str]) -> list[str]:
    """Return the counters of a job's namespace and API key."""
    key = Source.http_caller(record["source"])
    return [f"namespace:{namespace_of(record.get('batch', ''))}", *([f"key:{key}"] if key else [])]


def spent_periods(record: dict[str, str]) -> Counter[tuple[str, str]]:
    """Return what upstream charged for a job by counters, day and month."""
    periods: Counter[tuple[str, str]] = Counter()
    orders, submissions = (json.loads(record.get(field, "{}")) for field in ("orders", "submissions"))
    for attempt in orders:
        day, credits = submissions[attempt]
        for counters in ("counters", *spenders(record)):
            periods.update({(counters, field): credits for field in spent_fields(day * DAY_S).values()})
    return periods


def counted_periods(owners: Mapping[str, Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Return what is counted by day and month for existing records, by counters."""
    periods: Counter[tuple[str, str]] = Counter()
    for name, counts in owners.items():
        for field, amount in counts.items():
            if field.startswith(("day.", "month.")):
                periods[name, field] += int(amount)
            elif field.startswith("purged.day."):
                for period in spent_fields(int(field.removeprefix("purged.day.")) * DAY_S).values():
                    periods[name, period] -= int(amount)
    return +periods
