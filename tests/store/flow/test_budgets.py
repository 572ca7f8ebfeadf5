"""Budgets of the account and of namespaces hold at each submission, also with unsure orders that are revived."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from tests.store.flow.test_limits import lost, process_all, revived, songs
from tests.store.life import NOW, assert_consistent, claim_submit, get_job
from voicequeue import Stage, State
from voicequeue.storage.job_store import JobStore

DAY_S = 86_400


def spent_today(redis: Redis, prefix: str, counters: str = "counters") -> int:
    """Return the credits counted as spent on the day of `NOW`."""
    return int(redis.hget(f"{{{prefix}}}:{counters}", f"day.{int(NOW // DAY_S)}") or 0)


@pytest.mark.parametrize("period", ["day", "month"])
def test_the_account_never_spends_more_than_its_budget(store: JobStore, redis: Redis, prefix: str, period: str) -> None:
    """Nine jobs of 19 credits with a budget of 60 spend 57; the others stay queued."""
    limits: dict[str, Any] = {period: 60}
    store.flow_control.set_budget("account", **limits)
    songs(store, 9)
    process_all(store)
    assert spent_today(redis, prefix) == 57
    assert len(list(store.list_ids(state=State.QUEUED))) == 6
    assert_consistent(redis, prefix)


def test_an_unsure_order_counts_against_the_budget_until_it_is_revived(
    store: JobStore, redis: Redis, prefix: str
) -> None:
    """With one unsure order and a budget of 20, no other job starts, and its late webhook does not pass the budget."""
    store.flow_control.set_budget("account", day=20, month=None)
    [first, *_] = songs(store, 9)
    store.admit(NOW)
    lost(store, first)
    process_all(store)
    assert spent_today(redis, prefix) == 0
    revived(store, first)
    process_all(store)
    assert spent_today(redis, prefix) == 19


def test_a_namespace_at_its_budget_does_not_stop_another(store: JobStore, redis: Redis, prefix: str) -> None:
    """The namespace `shop` stops at its budget of 20 credits; `news` spends on."""
    store.flow_control.set_budget("namespace/shop", day=20, month=None)
    songs(store.in_namespace("shop"), 5)
    songs(store.in_namespace("news"), 5)
    process_all(store)
    assert spent_today(redis, prefix, "namespace:shop") == 19
    assert spent_today(redis, prefix, "namespace:news") == 95


def test_an_admitted_job_is_not_submitted_after_the_budget_is_lowered(store: JobStore) -> None:
    """The budget is checked again before each order."""
    [job_id] = songs(store, 1)
    store.admit(NOW)
    store.flow_control.set_budget("account", day=18, month=None)
    assert claim_submit(store, job_id, Stage.VOICE, "w", NOW, lease=90) is None
    assert get_job(store, job_id).state is State.QUEUED


def test_a_new_day_has_a_new_budget(store: JobStore) -> None:
    """Jobs that wait for the day's budget start on the next day."""
    store.flow_control.set_budget("account", day=20, month=None)
    songs(store, 3)
    process_all(store)
    assert not store.admit(NOW).by_stage
    assert store.admit(NOW + DAY_S).by_stage


def test_a_raised_budget_wakes_a_dispatcher(store: JobStore) -> None:
    """Jobs that wait for their budget start when it is raised; setting it to the same value wakes none."""
    store.flow_control.set_budget("namespace/shop", day=20, month=None)
    songs(store.in_namespace("shop"), 3)
    process_all(store)
    assert not store.coordination.wait_for_wakeup(0.001)
    store.flow_control.set_budget("namespace/shop", day=20, month=None)
    assert not store.coordination.wait_for_wakeup(0.001)
    store.flow_control.set_budget("namespace/shop", day=40, month=None)
    assert store.coordination.wait_for_wakeup(0.001)
    assert store.admit(NOW).by_stage


def test_months_follow_the_calendar(store: JobStore, redis: Redis, prefix: str) -> None:
    """Spending is counted in the month (UTC) of its time."""
    songs(store, 1)
    process_all(store)
    month = datetime.fromtimestamp(NOW, UTC).strftime("%Y%m")
    assert redis.hget(f"{{{prefix}}}:counters", f"month.{month}") == "19"


@pytest.mark.parametrize("owner", ["", "shop", "namespace", "namespace/a/b", "key/", "key/a b", "account/x"])
def test_a_budget_without_an_owner_is_refused(store: JobStore, owner: str) -> None:
    """An unknown owner raises an error instead of a budget that limits nothing."""
    with pytest.raises(ValueError, match=r"budget|must be"):
        store.flow_control.set_budget(owner, day=1, month=None)
