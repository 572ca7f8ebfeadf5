"""The counters of owners: after an upgrade, with API keys, and of days that are no longer kept."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from tests.store.flow.test_limits import lost, process_all, songs, submitted
from tests.store.life import NOW, assert_consistent, get_job
from voicequeue import InvalidStateError, KeyLimits, State, VoiceQueue
from voicequeue.client.orders import record_charged_order
from voicequeue.domain import transitions
from voicequeue.domain.api_keys import Scope
from voicequeue.domain.budgets import DAYS_KEPT, spent_fields
from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.stage import Stage
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.job_store import JobStore

DAY_S = 86_400


def as_of_earlier_release(redis: Redis, prefix: str) -> None:
    """Delete what earlier releases did not write: counters of owners and months, and days of submission."""
    root = f"{{{prefix}}}:"
    redis.delete(f"{root}owners", f"{root}namespace:", f"{root}key:app")
    counters = map(str, redis.hkeys(f"{root}counters"))
    later = [field for field in counters if field.startswith(("month.", "purged.day."))]
    redis.hdel(f"{root}counters", "days_from", "purged.unsettled", *later)
    for key in redis.scan_iter(f"{root}job:*"):
        redis.hdel(key, "submissions")


def jobs_of_earlier_release(store: JobStore, redis: Redis, prefix: str) -> list[str]:
    """Return jobs of which one is pending, one is unsure, one has lost its order for good, and two are queued."""
    store.flow_control.set_limits(in_flight=3)
    job_ids = songs(store, 5, source="http:app")
    store.admit(NOW)
    lost(store, job_ids[1])
    lost(store, job_ids[2])
    assert store.apply_transitions([transitions.abandon(get_job(store, job_ids[2]), NOW)], NOW) == [True]
    store.flow_control.set_limits(in_flight=50)
    as_of_earlier_release(redis, prefix)
    return job_ids


@pytest.mark.parametrize("owner", ["account", "namespace/", "key/app"])
def test_a_queue_of_an_earlier_release_gets_a_budget_after_a_repair(
    store: JobStore, redis: Redis, prefix: str, owner: str
) -> None:
    """Before, its jobs in flight are not counted for their owners, and a budget would not hold."""
    job_ids = jobs_of_earlier_release(store, redis, prefix)
    with pytest.raises(InvalidStateError, match="audit --repair"):
        store.flow_control.set_budget(owner, day=50, month=None)

    repair(redis, prefix, audit(redis, prefix), NOW)
    assert audit(redis, prefix) == []
    store.flow_control.set_budget(owner, day=50, month=None)
    # 19 of the job in flight, 19 of the unsure one and 4 of the lost order are reserved.
    process_all(store)
    assert store.credits_spent() == 19
    order = ChargedOrder(job_ids[2], Stage.VOICE, 1, "late")
    record_charged_order(store, order, NOW, reason="webhook")
    assert store.credits_spent() == 23
    process_all(store)
    assert store.credits_spent() == 23
    assert audit(redis, prefix) == []


def test_days_are_counted_from_the_day_after_the_repair(store: JobStore, redis: Redis, prefix: str) -> None:
    """Those of an earlier release are neither compared nor changed; later ones are exact."""
    jobs_of_earlier_release(store, redis, prefix)
    redis.hset(f"{{{prefix}}}:counters", f"day.{int(NOW // DAY_S)}", 1_000)
    repair(redis, prefix, audit(redis, prefix), NOW)
    assert redis.hget(f"{{{prefix}}}:counters", f"day.{int(NOW // DAY_S)}") == "1000"

    store.admit(NOW + DAY_S)
    tomorrow = f"day.{int(NOW // DAY_S) + 1}"
    redis.hincrby(f"{{{prefix}}}:key:app", tomorrow, 4)
    [finding] = audit(redis, prefix)
    assert str(finding) == f"key app: counts 4 {tomorrow}, the records say 0"


def test_a_new_queue_counts_from_its_first_job(store: JobStore, redis: Redis, prefix: str) -> None:
    """A budget may be set before there is any job, and afterwards."""
    assert store.flow_control.set_budget("key/app", day=20, month=None)
    songs(store, 2, source="http:app")
    assert store.flow_control.set_budget("namespace/", day=20, month=None)
    process_all(store)
    assert store.credits_spent() == 19
    assert_consistent(redis, prefix)


def test_days_are_kept_for_400_days_and_months_always(store: JobStore, redis: Redis, prefix: str) -> None:
    """The audit compares those that are kept; the jobs of the others may still exist."""
    songs(store, 2, source="http:app")
    process_all(store)
    day, month = spent_fields(NOW).values()
    store.flow_control.forget_days(NOW + DAYS_KEPT * DAY_S)
    assert redis.hget(f"{{{prefix}}}:key:app", day) == "38"
    store.flow_control.forget_days(NOW + (DAYS_KEPT + 1) * DAY_S)
    for counters in ("counters", "namespace:", "key:app"):
        assert redis.hmget(f"{{{prefix}}}:{counters}", [day, month]) == [None, "38"]
    assert audit(redis, prefix) == []
    list(store.purge(NOW + 60, retention_s=30))
    assert audit(redis, prefix) == []


# ── API keys in Redis ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def operator(valkey_url: str, prefix: str) -> VoiceQueue:
    """Return the client of an operator."""
    return VoiceQueue(valkey_url, prefix=prefix, namespace="*")


def test_the_limits_of_a_key_are_in_force_for_its_jobs(operator: VoiceQueue, store: JobStore) -> None:
    """They change with the key, and end with the limit."""
    operator.create_api_key("app", scopes=[Scope.ENQUEUE], namespace="shop", limits=KeyLimits(max_in_flight=1))
    songs(store.in_namespace("shop"), 9, source="http:app")
    assert len(submitted(store)) == 1
    operator.edit_api_key("app", limits=KeyLimits(budget_day=60))
    process_all(store)
    assert len(list(store.list_ids(state=State.QUEUED))) == 6
    assert operator.api_keys()[0].limits == KeyLimits(budget_day=60)
    operator.edit_api_key("app", limits=KeyLimits(budget_month=80))
    process_all(store)
    assert len(list(store.list_ids(state=State.QUEUED))) == 5
    operator.edit_api_key("app", limits=KeyLimits())
    process_all(store)
    assert not list(store.list_ids(state=State.QUEUED))


def test_the_budget_of_a_key_in_redis_is_set_in_one_place(operator: VoiceQueue, store: JobStore) -> None:
    """`set_budget` would be overwritten by the next change of the key; a key of the environment has no record."""
    operator.create_api_key("app", scopes=[Scope.ENQUEUE], namespace="shop")
    with pytest.raises(ValueError, match="keys edit"):
        operator.set_budget("key/app", day=10)
    assert operator.set_budget("key/environment", day=10)


def test_a_key_gets_no_budget_before_its_orders_are_counted(
    operator: VoiceQueue, store: JobStore, redis: Redis, prefix: str
) -> None:
    """As for every other owner; a key without a budget may be created."""
    jobs_of_earlier_release(store, redis, prefix)
    operator.create_api_key("app", scopes=[Scope.ENQUEUE], namespace="shop")
    with pytest.raises(InvalidStateError, match="audit --repair"):
        operator.edit_api_key("app", limits=KeyLimits(budget_day=60))


@pytest.mark.parametrize("limits", [{"max_in_flight": -1}, {"budget_day": -1}, {"budget_month": 2**53}])
def test_a_limit_of_a_key_is_a_whole_number(operator: VoiceQueue, limits: dict[str, Any]) -> None:
    """The error names the field."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        operator.create_api_key("app", scopes=[Scope.ENQUEUE], namespace="shop", limits=KeyLimits(**limits))
