"""Budgets in Redis: the limits of each owner, with what was spent and reserved."""

from __future__ import annotations

from typing import Any, cast

from voicequeue.domain.budgets import ACCOUNT, Budget, period_ends, spent_fields
from voicequeue.domain.namespaces import DEFAULT
from voicequeue.storage.connection.keyspace import Keyspace


def read_budgets(space: Keyspace, now: float) -> list[Budget]:
    """Return the budgets in scope: for operators those of the account and of namespaces that ever had a job."""
    owners = {f"namespace/{name}": f"namespace:{name}" for name in space.namespaces() if name != DEFAULT}
    if space.scope.is_all:
        owners = {ACCOUNT: "counters"} | owners
    fields, ends = spent_fields(now), period_ends(now)
    pipeline = space.redis.pipeline(transaction=True)
    for owner, counters in owners.items():
        pipeline.hmget(space.key(f"budget:{owner}"), list(fields))
        pipeline.hmget(space.key(counters), [*fields.values(), "reserved", "unsettled"])
    replies = cast(list[list[Any]], pipeline.execute())
    budgets = []
    for owner, limits, amounts in zip(owners, replies[::2], replies[1::2], strict=True):
        *spent, reserved, unsettled = (int(amount or 0) for amount in amounts)
        for period, limit, credits in zip(fields, limits, spent, strict=True):
            if limit:
                budgets.append(Budget(owner, period, int(limit), credits, reserved + unsettled, ends[period]))
    return budgets
