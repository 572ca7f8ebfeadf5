"""Cost of jobs by their records, and spending of their owners by day and month, by records and by counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from voicequeue import Stage, State
from voicequeue.domain.budgets import spent_fields
from voicequeue.domain.namespaces import namespace_of, split
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES

DAY_S = 86_400


def remaining_stages(record: dict[str, str]) -> list[Stage]:
    """Return the stage of a job and the one after it, if any."""
    stages = {record["stage"], record.get("next_stage", record["stage"])}
    return [stage for stage in Stage if stage in stages]


def reserved_credits(record: dict[str, str]) -> int:
    """Return the credits reserved for a job: what it may still spend in flight or unsure."""
    stages = remaining_stages(record)
    ordered = stages[:1] if "cancelling" in record else stages
    still = {State.ADMITTED: stages, State.CHARGING: ordered, State.UNSURE: ordered, State.PENDING: stages[1:]}
    return sum(PRICES[stage] for stage in still.get(State(record["state"]), []))


def queued_credits(record: dict[str, str]) -> int:
    """Return the credits that a queued or waiting job will spend; the voice is counted for the job that creates it."""
    stages = remaining_stages(record)
    still = {State.QUEUED: stages, State.WAITING: stages[1:]}
    return sum(PRICES[stage] for stage in still.get(State(record["state"]), []))


def unsettled_credits(record: dict[str, str]) -> int:
    """Return the cost of a job's lost orders that were given up or resubmitted and never reported."""
    lost, orders = (json.loads(record.get(field, "{}")) for field in ("lost_orders", "orders"))
    return sum(PRICES[Stage(stage)] for attempt, stage in lost.items() if attempt not in orders)


def spenders(record: dict[str, str]) -> list[str]:
    """Return the counters of a job's namespace and API key."""
    key = Source.http_caller(record["source"])
    return [f"namespace:{namespace_of(record.get('batch', ''))}", *([f"key:{key}"] if key else [])]


def spent_periods(record: dict[str, str]) -> Counter[tuple[str, str]]:
    """Return what upstream charged for a job by counters, day and month."""
    periods: Counter[tuple[str, str]] = Counter()
    orders, submissions = (json.loads(record.get(field, "{}")) for field in ("orders", "submissions"))
    batch = record.get("batch", "")
    for attempt in orders:
        day, credits = submissions[attempt]
        for counters in ("counters", *spenders(record), *([batch] if split(batch)[1] else [])):
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
