"""The account as it is counted here, and as upstream says it is."""

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
    """Credits left by our count."""
    return int(str(redis.hget(f"{{{prefix}}}:account", "credits")))


def test_credits_are_counted_down_as_they_are_spent(store: Store, redis: Redis, prefix: str) -> None:
    """From what upstream said last."""
    assert store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW) == 100

    brought_to(store, State.PENDING, sung(batch="b"))

    assert left(redis, prefix) == 96


def test_what_is_spent_while_upstream_is_asked_is_taken_off(store: Store, redis: Redis, prefix: str) -> None:
    """Nobody knows whether its answer knew of that: the next one will."""
    brought_to(store, State.PENDING, sung())

    assert store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW) == 96

    assert left(redis, prefix) == 96
    assert [each.quiet for each in store.controls.balances()] == [False]


def test_without_an_answer_of_upstreams_nothing_is_counted(store: Store, redis: Redis, prefix: str) -> None:
    """A count that begins at nothing would be wrong."""
    brought_to(store, State.PENDING, sung())

    assert redis.exists(f"{{{prefix}}}:account") == 0


def test_a_balance_is_quiet_where_nothing_was_under_way(store: Store) -> None:
    """While a request is on the way, what upstream says and what is counted do not belong together."""
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


def test_lost_orders_are_noted_with_the_balance(store: Store) -> None:
    """While they are unsure; given up or sent again, for good, until one is found to have been charged."""
    jobs = [brought_to(store, State.UNSURE) for _ in range(3)]
    store.apply([transitions.abandon(jobs[0], NOW), transitions.order_again(jobs[1], NOW)], NOW)
    store.controls.note_balance(100, spent_before=0, asked=NOW - 1, now=NOW)
    store.apply([named(one(store, jobs[0].id), "t")], NOW)
    store.controls.note_balance(96, spent_before=4, asked=NOW + 9, now=NOW + 10)

    assert [(each.unsure, each.unsettled, each.spent) for each in store.controls.balances()] == [(4, 8, 0), (4, 4, 4)]


def test_what_left_the_account_uncounted_is_news_once(store: Store) -> None:
    """And again when the price is known that it seems to be; what is explained after all is forgotten."""
    found = Drift(NOW, 420, 399)
    priced = replace(found, stage=Stage.VOICE, price=5)

    assert [store.controls.note_drift(each) for each in (None, found, replace(found, fell=421))] == [False, True, False]
    assert store.controls.account().drift == replace(found, fell=421)
    assert [store.controls.note_drift(each) for each in (priced, priced, found)] == [True, False, False]
    assert store.controls.note_drift(None) is False
    assert store.controls.account().drift is None


def test_of_many_workers_one_gets_the_turn(store: Store) -> None:
    """Until its time is over."""
    assert [store.coordination.try_acquire("balance", ttl_s=30) for _ in range(3)] == [True, False, False]
    assert store.coordination.try_acquire("another", ttl_s=30)
