"""Budgets are read with what was spent and reserved, by operators and by clients of one namespace."""

from __future__ import annotations

from redis import Redis

from tests.store.flow.test_limits import lost, process_all, songs
from tests.store.life import NOW
from voicequeue.domain.budgets import period_ends
from voicequeue.storage.budgets import read_budgets
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.job_store import JobStore


def test_an_operator_reads_what_is_spent_and_left(store: JobStore, redis: Redis, prefix: str) -> None:
    """Three songs of 19 credits leave 3 of 60; a client of one namespace does not see the account."""
    store.flow_control.set_budget("account", day=60, month=None)
    songs(store, 9)
    process_all(store)
    [budget] = read_budgets(Keyspace(redis, prefix), NOW)
    assert (budget.owner, budget.period, budget.limit, budget.spent, budget.remaining) == ("account", "day", 60, 57, 3)
    assert read_budgets(Keyspace(redis, prefix, namespace="shop"), NOW) == []


def test_an_unsure_order_is_reserved(store: JobStore, redis: Redis, prefix: str) -> None:
    """A lost answer is not spent, but its cost is not left either."""
    store.flow_control.set_budget("account", day=20, month=None)
    [first, *_] = songs(store, 9)
    store.admit(NOW)
    lost(store, first)
    [budget] = read_budgets(Keyspace(redis, prefix), NOW)
    assert budget.spent == 0
    assert budget.reserved > 0
    assert budget.remaining == 20 - budget.reserved


def test_a_month_ends_at_the_first_of_the_next() -> None:
    """31 January 2024, 12:00 UTC: the day and the month both end at the first of February."""
    assert period_ends(1_706_702_400) == {"day": 1_706_745_600, "month": 1_706_745_600}
