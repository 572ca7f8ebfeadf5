"""An order without an answer counts for the budgets of its day and month, also when its job is erased or purged."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import NOW, apply_transition, assert_consistent, claim_admitted, enqueue_jobs, get_job
from tests.support.jobs import URL, voice
from voicequeue import State
from voicequeue.domain import transitions
from voicequeue.domain.budgets import DAY_S
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore


def start(store: JobStore, key: str, now: float, batch: str | None = None) -> str | None:
    """Enqueue a voice of an API key and admit it. Return its id; None if it waits."""
    spec = voice(key=key, audio_url=f"{URL}?{key}", batch=batch)
    [job_id] = enqueue_jobs(store, spec, now=now, source="http:app")
    store.admit(now, at_most=10)
    return job_id if get_job(store, job_id).state is State.ADMITTED else None


def lose_and_remove(store: JobStore, way: str, batch: str | None = None) -> None:
    """Lose the answer to an order, give the job up, and remove it."""
    job_id = start(store, "lost", NOW, batch)
    assert job_id is not None
    claim_admitted(store, job_id)
    unsure = apply_transition(store, get_job(store, job_id), State.UNSURE, NOW, reason="no answer")
    store.apply_transitions([transitions.abandon(unsure, NOW)], NOW)
    if way == "erase":
        store.erasure.erase([job_id], NOW)
    else:
        list(store.purge(NOW + 2, retention_s=1))
    assert store.get([job_id]) == [None]


@pytest.mark.parametrize("way", ["erase", "purge"])
@pytest.mark.parametrize("owner", ["account", "namespace/", "key/app"])
@pytest.mark.parametrize(("period", "later_s"), [("day", DAY_S), ("month", 31 * DAY_S)])
def test_a_removed_job_with_a_lost_order_gives_no_credits_back_in_its_period(
    store: JobStore, redis: Redis, prefix: str, way: str, owner: str, period: str, later_s: float
) -> None:
    """Upstream may have charged it: with another order the budget would be passed."""
    store.flow_control.set_budget(owner, **{period: 7})  # type: ignore[arg-type]
    lose_and_remove(store, way)
    assert [budget.remaining for budget in store.budgets(NOW + 3)] == [3]
    assert start(store, "next", NOW + 3) is None
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []
    store.admit(NOW + later_s, at_most=10)
    assert store.counts_by_state()[State.ADMITTED] == 1


@pytest.mark.parametrize("way", ["erase", "purge"])
def test_a_removed_job_with_a_lost_order_gives_its_batch_no_credits_back(
    store: JobStore, redis: Redis, prefix: str, way: str
) -> None:
    """Not even later: the limit of a batch has no end."""
    store.set_batch_limits("spring", max_credits=7)
    enqueue_jobs(store, voice(key="kept", audio_url=f"{URL}?kept", batch="spring", priority="bulk"), now=NOW)
    lose_and_remove(store, way, "spring")
    batch = store.batch("spring")
    assert batch is not None
    assert (batch.credits, batch.reserved_credits) == (0, 4)
    assert start(store, "next", NOW + 40 * DAY_S, "spring") is None
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []
    store.set_batch_limits("spring", max_credits=8)
    store.admit(NOW + 40 * DAY_S, at_most=10)
    assert store.counts_by_state()[State.ADMITTED] == 1
