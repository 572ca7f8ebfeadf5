"""Budgets in Redis: the limits of each owner, with what was spent and reserved."""

from __future__ import annotations

import json
from typing import Any, cast

from voicequeue.domain.api_keys import from_record
from voicequeue.domain.budgets import (
    ACCOUNT,
    DAY_S,
    DAYS_KEPT,
    OWNER_KINDS,
    Budget,
    budget_owner,
    budget_text,
    counters_of,
    namespace_of_owner,
    period_ends,
    spent_fields,
)
from voicequeue.domain.namespaces import qualify
from voicequeue.domain.source import Source
from voicequeue.domain.spec import http_url
from voicequeue.errors import InvalidStateError
from voicequeue.storage.connection.keyspace import Keyspace

#: The number of owners whose days one script deletes.
_PAGE = 200


def write_budget(space: Keyspace, owner: str, *, hard: bool | None = None, **limits: float | None) -> bool:
    """Set `day`, `month` and `max_in_flight` of an owner; None is unlimited. `hard` refuses new jobs over the budget;
    None leaves it. Return whether that changed anything. Raises ValueError and InvalidStateError."""
    if owner == ACCOUNT and limits.get("max_in_flight") is not None:
        raise ValueError("max_in_flight: the account has none; limit the jobs in flight with `voicequeue limits`")
    kind, _, name = budget_owner(owner).partition("/")
    fields = [text for limit, value in limits.items() for text in (limit, budget_text(limit, value))]
    if hard is not None:
        fields += ("hard", "1" if hard else "")
    if limits and kind == "key" and space.redis.hexists(space.key("api_keys"), name):
        raise ValueError(f"{owner}: the limits of this API key are part of it; change them with `voicequeue keys edit`")
    require_complete_counters(space)
    return bool(space.run_change("set_budget", owner, *fields))


def write_budget_callback(space: Keyspace, owner: str, url: str | None, *, source: str) -> bool:
    """Set the URL that is notified of the use of an owner's budget (None: no URL) and who set it. Return whether that
    changed anything. Raises ValueError."""
    kind, _, name = budget_owner(owner).partition("/")
    setter = Source.HTTP.with_caller(name) if kind == "key" else source  # the key's secret signs
    address, setter = ("", "") if url is None else (http_url(url), setter)
    return bool(space.run_change("set_budget", owner, "callback_url", address, "callback_source", setter))


def require_complete_counters(space: Keyspace) -> None:
    """Raise InvalidStateError unless all orders in flight are counted for their owners."""
    counted_from, has_jobs = space.redis.hmget(space.key("counters"), ["days_from", "lane_turn"])
    if has_jobs and counted_from is None:
        raise InvalidStateError(
            "This queue has jobs of an earlier release, which are not counted for their owners yet. When all processes "
            "run this release, run `voicequeue doctor --audit --repair` once; then set the budget."
        )


def forget_days(space: Keyspace, now: float) -> None:
    """Delete what owners spent on days that are no longer kept."""
    position, first = 0, int(now // DAY_S) - DAYS_KEPT
    while count := int(space.run_script("forget_days", first, position, _PAGE)):
        position += count


def read_budgets(space: Keyspace, now: float) -> list[Budget]:
    """Return the budgets of all owners; in the scope of a namespace its own, and those of its keys in Redis."""
    owners, fields, ends = _owners(space), spent_fields(now), period_ends(now)
    pipeline = space.redis.pipeline(transaction=True)
    for owner in owners:
        pipeline.hmget(space.key(f"budget:{owner}"), [*fields, "hard"])
        lost = [f"lost.{field}" for field in fields.values()]
        amounts_read = [*fields.values(), *lost, "reserved", "unsettled", "purged.unsettled"]
        pipeline.hmget(space.key(counters_of(owner)), amounts_read)
    replies = cast(list[list[Any]], pipeline.execute())
    budgets = []
    for owner, limits, amounts in zip(owners, replies[::2], replies[1::2], strict=True):
        *by_period, reserved, unsettled, purged = (int(amount or 0) for amount in amounts)
        spent, lost_then = by_period[: len(fields)], by_period[len(fields) :]
        *periods, hard = limits
        for period, limit, credits, lost_credits in zip(fields, periods, spent, lost_then, strict=True):
            if limit:
                budgets.append(
                    Budget(
                        owner,
                        period,
                        int(limit),
                        credits,
                        reserved + unsettled - purged + lost_credits,
                        ends[period],
                        is_hard=hard == "1",
                    )
                )
    return budgets


def report_budgets(space: Keyspace, now: float) -> list[Budget]:
    """Write the callbacks of budgets that have come to a level of use in this period. Return these budgets, each once
    for each level in all processes."""
    used = [budget for budget in read_budgets(space, now) if budget.level]
    arguments: list[str | int] = []
    for budget in used:
        end = f"{budget.resets_at:.0f}"
        batch = qualify(namespace_of_owner(budget.owner), "")
        arguments += (budget.owner, budget.period, budget.level, end, batch, json.dumps(budget.used_dict()))
    replies = space.run_script("report_budgets", f"{now:.6f}", *arguments) if used else []
    return [budget for budget, is_new in zip(used, replies, strict=True) if is_new]


def _owners(space: Keyspace) -> list[str]:
    """Return the owners in scope that have a budget: the account, namespaces, API keys."""
    owners = cast(set[str], space.redis.smembers(space.key("budgets")))
    if not space.scope.is_all:
        owners &= {f"namespace/{space.scope.namespace}", *(f"key/{name}" for name in key_names(space))}
    return sorted(owners, key=lambda owner: (OWNER_KINDS.index(owner.partition("/")[0]), owner))


def key_names(space: Keyspace) -> list[str]:
    """Return the names of the API keys in Redis that belong to the namespace in scope, also of revoked ones."""
    records = cast(dict[str, str], space.redis.hgetall(space.key("api_keys")))
    keys = (from_record(name, text) for name, text in records.items())
    return [key.name for key in keys if key is not None and key.namespace == space.scope.namespace]
