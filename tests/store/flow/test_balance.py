"""The account: the balance by our count, and as reported by upstream."""

from __future__ import annotations

from dataclasses import replace

from redis import Redis

from tests.store.life import NOW, accept_order, claim_admitted, enqueue_jobs, get_job, job_in_state, report_order
from tests.support.jobs import voice_with_song
from voicequeue import Stage, State
from voicequeue.domain import transitions
from voicequeue.domain.balance import Balance, UncountedSpending
from voicequeue.storage.job_store import JobStore


def counted_balance(redis: Redis, prefix: str) -> int:
    """Return the balance by our count."""
    return int(str(redis.hget(f"{{{prefix}}}:account", "credits")))


def test_credits_are_counted_down_as_they_are_spent(store: JobStore, redis: Redis, prefix: str) -> None:
    """The count starts at the last report."""
    assert store.flow_control.record_balance(100, spent_before=0, requested_at=NOW - 1, now=NOW) == 100

    job_in_state(store, State.PENDING, voice_with_song(batch="b"))

    assert counted_balance(redis, prefix) == 96


def test_credits_spent_during_the_request_are_subtracted(store: JobStore, redis: Redis, prefix: str) -> None:
    """The next report shows whether this one included them."""
    job_in_state(store, State.PENDING, voice_with_song())

    assert store.flow_control.record_balance(100, spent_before=0, requested_at=NOW - 1, now=NOW) == 96

    assert counted_balance(redis, prefix) == 96
    assert [balance.is_quiet for balance in store.flow_control.balances()] == [False]


def test_nothing_is_counted_before_the_first_report(store: JobStore, redis: Redis, prefix: str) -> None:
    """A count from zero would be wrong."""
    job_in_state(store, State.PENDING, voice_with_song())

    assert redis.exists(f"{{{prefix}}}:account") == 0


def test_a_balance_is_quiet_without_concurrent_orders(store: JobStore) -> None:
    """During an order, the report and our count are not comparable."""
    store.flow_control.record_balance(100, spent_before=0, requested_at=NOW - 1, now=NOW)
    [job_id] = enqueue_jobs(store, voice_with_song())
    store.admit(NOW, at_most=1)
    claim_admitted(store, job_id)
    store.flow_control.record_balance(96, spent_before=0, requested_at=NOW + 9, now=NOW + 10)
    accept_order(store, job_id)
    store.flow_control.record_balance(96, spent_before=4, requested_at=NOW + 19, now=NOW + 20)

    assert store.flow_control.balances() == [
        Balance(NOW - 1, NOW, 100, 0, is_quiet=True),
        Balance(NOW + 9, NOW + 10, 96, 0, is_quiet=False, charging=4),
        Balance(NOW + 19, NOW + 20, 96, 4, is_quiet=True, voices=1),
    ]


def test_lost_orders_are_recorded_with_the_balance(store: JobStore) -> None:
    """They count while unsure, and after being given up or resubmitted until one is known to be charged."""
    jobs = [job_in_state(store, State.UNSURE) for _ in range(3)]
    store.apply_transitions([transitions.abandon(jobs[0], NOW), transitions.resubmit(jobs[1], NOW)], NOW)
    store.flow_control.record_balance(100, spent_before=0, requested_at=NOW - 1, now=NOW)
    store.apply_transitions([report_order(get_job(store, jobs[0].id), "t")], NOW)
    store.flow_control.record_balance(96, spent_before=4, requested_at=NOW + 9, now=NOW + 10)

    balances = store.flow_control.balances()
    assert [(balance.unsure, balance.unsettled, balance.spent) for balance in balances] == [
        (4, 8, 0),
        (4, 4, 4),
    ]


def test_a_drift_is_reported_once(store: JobStore) -> None:
    """It is reported again when its assumed price is known; a drift that is explained later is deleted."""
    uncounted = UncountedSpending(NOW, 420, 399)
    priced = replace(uncounted, stage=Stage.VOICE, price=5)

    reports = (None, uncounted, replace(uncounted, decrease=421))
    assert [store.flow_control.record_uncounted(report) for report in reports] == [
        False,
        True,
        False,
    ]
    assert store.flow_control.account().uncounted == replace(uncounted, decrease=421)
    assert [store.flow_control.record_uncounted(report) for report in (priced, priced, uncounted)] == [
        True,
        False,
        False,
    ]
    assert store.flow_control.record_uncounted(None) is False
    assert store.flow_control.account().uncounted is None


def test_one_worker_acquires_the_lock(store: JobStore) -> None:
    """The lock is released when its time is over."""
    assert [store.coordination.try_acquire("balance", ttl_s=30) for _ in range(3)] == [True, False, False]
    assert store.coordination.try_acquire("another", ttl_s=30)
