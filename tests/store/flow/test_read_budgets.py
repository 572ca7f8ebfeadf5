"""Budgets are read with what was spent and reserved, by operators and by clients of one namespace."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.flow.test_limits import lost, process_all, songs
from tests.store.life import NOW
from voicequeue import VoiceQueue
from voicequeue.domain.budgets import Budget, period_ends
from voicequeue.storage.budgets import read_budgets
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.job_store import JobStore
from workers.gateway.api.metrics import QueueCollector


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


def test_each_client_sees_the_budgets_in_its_scope(queue: VoiceQueue, valkey_url: str, prefix: str) -> None:
    """An operator those of all owners, a client in a namespace its own, by owner and period."""
    operator = queue.on_behalf_of("library")
    for owner in ("namespace/shop", "namespace/news", "account"):
        operator.set_budget(owner, day=60, month=600)
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop") as shop:
        assert [(budget.owner, budget.period) for budget in shop.budgets()] == [
            ("namespace/shop", "day"),
            ("namespace/shop", "month"),
        ]
    assert [budget.owner for budget in queue.budgets()] == [
        *("account", "account", "namespace/news", "namespace/news", "namespace/shop", "namespace/shop")
    ]


def test_a_budget_that_is_removed_is_no_longer_listed(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """A period that is not given stays as it is; without a period there is no budget."""
    queue.set_budget("account", day=60, month=600)
    assert queue.set_budget("account", day=None)
    assert [(budget.period, budget.limit) for budget in queue.budgets()] == [("month", 600)]
    assert queue.set_budget("account", month=None)
    assert queue.budgets() == []
    assert not redis.exists(f"{{{prefix}}}:budgets")
    assert not queue.set_budget("account", month=None)


def test_a_month_ends_at_the_first_of_the_next() -> None:
    """31 January 2024, 12:00 UTC: the day and the month both end at the first of February."""
    assert period_ends(1_706_702_400) == {"day": 1_706_745_600, "month": 1_706_745_600}


@pytest.mark.parametrize(
    ("limit", "spent", "reserved", "level"),
    [(500, 0, 0, 0), (500, 399, 0, 0), (500, 300, 100, 80), (500, 481, 0, 80), (500, 482, 0, 100), (18, 0, 0, 100)],
)
def test_a_budget_is_reached_when_it_pays_no_voice_with_a_song(
    limit: int, spent: int, reserved: int, level: int
) -> None:
    """Jobs wait from then on, although credits remain; 80 percent is reported before."""
    assert Budget("account", "day", limit, spent, reserved, NOW).level == level


def test_the_metrics_count_budgets_by_their_highest_level(store: JobStore) -> None:
    """Labels are the kinds of owners, never their names."""
    for owner, day, month in (("account", 18, None), ("namespace/shop", 0, 0), ("namespace/news", 1000, 10)):
        store.flow_control.set_budget(owner, day=day, month=month)
    [metric] = [metric for metric in QueueCollector(store).collect() if metric.name == "voicequeue_budgets_used"]
    counts = {tuple(sample.labels.values()): sample.value for sample in metric.samples if sample.value}
    assert counts == {("account", "day", "100"): 1, ("namespace", "day", "100"): 1, ("namespace", "month", "100"): 2}
    assert len(metric.samples) == 12
