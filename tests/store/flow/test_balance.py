"""The account: the balance by our count, and as reported by upstream."""

from __future__ import annotations

from dataclasses import replace

from redis import Redis

from tests.store.life import NOW, accepted, brought_to, charging, named, one, put
from tests.support.jobs import sung
from voicequeue import Stage, State
from voicequeue.domain import transitions
from voicequeue.domain.balance import Balance, Drift
from voicequeue.storage.job_store import Store


def left(redis: Redis, prefix: str) -> int:
    """Return the balance by our count."""
    return int(str(redis.hget(f"{{{prefix}}}:account", "credits")))


def test_credits_are_counted_down_as_they_are_spent(store: Store, redis: Redis, prefix: str) -> None:
    """The count starts at the last report."""
    assert store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW) == 100

    brought_to(store, State.PENDING, sung(batch="b"))

    assert left(redis, prefix) == 96


def test_credits_spent_during_the_request_are_subtracted(store: Store, redis: Redis, prefix: str) -> None:
    """Whether the report includes them is unknown until the next one."""
    brought_to(store, State.PENDING, sung())

    assert store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW) == 96

    assert left(redis, prefix) == 96
    assert [balance.quiet for balance in store.controls.balances()] == [False]


def test_nothing_is_counted_before_the_first_report(store: Store, redis: Redis, prefix: str) -> None:
    """A count from zero would be wrong."""
    brought_to(store, State.PENDING, sung())

    assert redis.exists(f"{{{prefix}}}:account") == 0


def test_a_balance_is_quiet_without_concurrent_orders(store: Store) -> None:
    """During an order, the report and our count are not comparable."""
    store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW)
    [job_id] = put(store, sung())
    store.admit(NOW, at_most=1)
    charging(store, job_id)
    store.controls.note_balance(96, spent_before=0, asked=NOW + 9, now=NOW + 10)
    accepted(store, job_id)
    store.controls.note_balance(96, spent_before=4, asked=NOW + 19, now=NOW + 20)

    assert store.controls.balances() == [
        Balance(NOW - 1, NOW, 100, 0, quiet=True),
        Balance(NOW + 9, NOW + 10, 96, 0, quiet=False, charging=4),
        Balance(NOW + 19, NOW + 20, 96, 4, quiet=True, voices=1),
    ]


def test_lost_orders_are_recorded_with_the_balance(store: Store) -> None:
    """They count while unsure, and after being given up or resubmitted until one is known to be charged."""
    jobs = [brought_to(store, State.UNSURE) for _ in range(3)]
    store.apply([transitions.abandon(jobs[0], NOW), transitions.order_again(jobs[1], NOW)], NOW)
    store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW)
    store.apply([named(one(store, jobs[0].id), "t")], NOW)
    store.controls.note_balance(96, spent_before=4, asked=NOW + 9, now=NOW + 10)

    balances = store.controls.balances()
    assert [(balance.unsure, balance.unsettled, balance.spent) for balance in balances] == [
        (4, 8, 0),
        (4, 4, 4),
    ]


def test_a_drift_is_reported_once(store: Store) -> None:
    """It is reported again when its assumed price is known; a drift that is explained later is deleted."""
    drift = Drift(NOW, 420, 399)
    priced = replace(drift, stage=Stage.VOICE, price=5)

    reports = (None, drift, replace(drift, fell=421))
    assert [store.controls.note_drift(report) for report in reports] == [
        False,
        True,
        False,
    ]
    assert store.controls.account().drift == replace(drift, fell=421)
    assert [store.controls.note_drift(report) for report in (priced, priced, drift)] == [True, False, False]
    assert store.controls.note_drift(None) is False
    assert store.controls.account().drift is None


def test_one_worker_acquires_the_lock(store: Store) -> None:
    """The lock is released when its time is over."""
    assert [store.coordination.try_acquire("balance", ttl_s=30) for _ in range(3)] == [True, False, False]
    assert store.coordination.try_acquire("another", ttl_s=30)
