"""The use of a budget is reported once in its period for each limit and level: to the log and to the owner's URL."""

from __future__ import annotations

import json

import pytest
from redis import Redis

from tests.store.flow.test_limits import process_all, songs
from tests.store.life import NOW, assert_consistent
from voicequeue import VoiceQueue
from voicequeue.client.queue import in_namespace
from voicequeue.domain.budgets import period_ends
from voicequeue.domain.job import to_iso8601
from voicequeue.storage.job_store import JobStore

URL = "https://shop.example/hooks/budget"


def reports(store: JobStore, now: float = NOW) -> list[tuple[str, str, int]]:
    """Report budgets as a worker does; return the owner, the period and the level of each that is new."""
    return [(budget.owner, budget.period, budget.level) for budget in store.flow_control.report_budgets(now)]


def spend(store: JobStore, count: int, batch: str = "b") -> None:
    """Spend 19 credits for each of `count` jobs."""
    songs(store, count, batch)
    process_all(store)


def test_each_level_is_reported_once_in_a_period(store: JobStore) -> None:
    """At 80 and at 100 percent; again after the limit was raised, and in the next day."""
    store.flow_control.set_budget("account", day=100)
    spend(store, 4)
    assert reports(store) == []
    store.flow_control.set_budget("account", day=95)
    assert [reports(store), reports(store)] == [[("account", "day", 80)], []]
    spend(store, 1, "c")
    assert [reports(store), reports(store)] == [[("account", "day", 100)], []]
    store.flow_control.set_budget("account", day=118)
    assert [reports(store), reports(store)] == [[("account", "day", 80)], []]
    store.flow_control.set_budget("account", day=0)
    tomorrow = period_ends(NOW)["day"]
    assert [reports(store), reports(store, tomorrow), reports(store, tomorrow)] == [
        [("account", "day", 100)],
        [("account", "day", 100)],
        [],
    ]


def test_past_periods_are_forgotten(store: JobStore, redis: Redis, prefix: str) -> None:
    """What was reported needs no more memory than there are budgets."""
    for owner in ("namespace/shop", "namespace/news"):
        store.flow_control.set_budget(owner, day=0)
    reports(store)
    store.flow_control.set_budget("namespace/news", day=None)
    reports(store, period_ends(NOW)["day"])
    assert redis.hkeys(f"{{{prefix}}}:budgets:reported") == ["namespace/shop day"]


def test_the_owner_is_called_back_with_what_remains(store: JobStore, queue: VoiceQueue) -> None:
    """The payload has the figures and names the namespace; the source names who set the URL."""
    store.flow_control.set_budget("namespace/shop", month=20)
    queue.set_budget_callback("namespace/shop", URL)
    spend(store.in_namespace("shop"), 1)
    reports(store)
    reports(store)

    [callback_id] = store.callbacks.lease(NOW, lease_s=30)
    [claim] = store.callbacks.claim([callback_id], NOW, lease_s=60)
    body = json.loads(claim.body())
    assert (claim.url(), claim.source(), claim.job_id, body["type"]) == (URL, "library", None, "budget.used")
    assert body["data"] == {
        "owner": "namespace/shop",
        "namespace": "shop",
        "period": "month",
        "percent": 100,
        "limit": 20,
        "spent": 19,
        "reserved": 0,
        "remaining": 1,
        "hard": False,
        "resets_at": to_iso8601(period_ends(NOW)["month"]),
        "source": "library",
    }


@pytest.mark.parametrize(("owner", "source"), [("account", "library"), ("key/app", "http:app")])
def test_callbacks_about_the_account_and_keys_are_operators_only(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str, owner: str, source: str
) -> None:
    """No namespace lists them, also not the default one; that of a key is signed with the key's secret."""
    queue.set_budget_callback(owner, URL)
    store.flow_control.set_budget(owner, day=0)
    reports(store)
    assert [callback.type for callback in queue.callbacks()] == ["budget.used"]
    assert [list(in_namespace(queue, name).callbacks()) for name in ("", "shop")] == [[], []]
    [callback_id] = store.callbacks.lease(NOW, lease_s=30)
    [claim] = store.callbacks.claim([callback_id], NOW, lease_s=60)
    assert claim.source() == source
    assert store.callbacks.mark_delivered(callback_id, NOW)
    assert queue.audit() == []
    assert_consistent(redis, prefix)


def test_without_a_url_nothing_is_called(store: JobStore, queue: VoiceQueue) -> None:
    """The report is for the log and for metrics."""
    store.flow_control.set_budget("account", day=0)
    assert reports(store) == [("account", "day", 100)]
    assert list(queue.callbacks()) == []
