"""Limits of batches and of the account hold at each submission, also after lost orders, pauses and lower limits."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from redis import Redis

from tests.store.flow.test_credits import left
from tests.store.life import NOW, accepted, charge, charging, everything_agrees, make, named, one, put
from tests.support.jobs import sung, voice
from voicequeue import Job, Stage, State
from voicequeue.client.orders import Named, name_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import Charged, ChargedOrder
from voicequeue.domain.job import Move
from voicequeue.storage.job_store import Store


def songs(store: Store, count: int, batch: str = "b") -> list[str]:
    """Enqueue jobs of one batch with a voice and a song each (19 credits) and return their ids."""
    return put(store, *(sung(key=f"{batch}-{number}", batch=batch) for number in range(count)))


def lost(store: Store, job_id: str) -> None:
    """Submit the current stage; the response is lost."""
    charging(store, job_id)
    make(store, one(store, job_id), State.UNSURE, reason="no answer")


def revived(store: Store, job_id: str) -> None:
    """A webhook reports the task of the lost order."""
    assert store.apply([named(one(store, job_id), "t")], NOW) == [True]


def voice_ready(store: Store, job_id: str) -> None:
    """Finish the voice and admit the job to its song."""
    make(store, one(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": f"p-{job_id}"})


def pending_voices(store: Store, count: int, batch: str = "b") -> list[str]:
    """Return jobs with pending voices."""
    job_ids = songs(store, count, batch)
    store.admit(NOW)
    for job_id in job_ids:
        charging(store, job_id)
        accepted(store, job_id)
    return job_ids


def submitted(store: Store) -> list[str]:
    """Admit jobs and claim them for submission, like a worker; return the claimed ids."""
    store.admit(NOW)
    job_ids = sorted(store.ids(state=State.ADMITTED))
    claims = [charge(store, job_id, one(store, job_id).stage, "w", NOW, lease=90) for job_id in job_ids]
    return [claim.job_id for claim in claims if isinstance(claim, Charged)]


def process_all(store: Store, rounds: int = 20) -> None:
    """Process jobs as far as the limits allow; upstream accepts and finishes every order."""
    for _ in range(rounds):
        for job_id in submitted(store):
            accepted(store, job_id)
        for job_id in list(store.ids(state=State.PENDING)):
            job = one(store, job_id)
            if job.stage is Stage.VOICE:
                voice_ready(store, job_id)
            else:
                make(store, job, State.SUCCEEDED)


def test_lost_orders_are_counted_at_full_cost(store: Store, redis: Redis, prefix: str) -> None:
    """A batch limited to 20 credits with a lost order starts no other job, and spends 19 when the order is found."""
    store.limit_batch("b", max_credits=20)
    [first, *_] = songs(store, 9)
    store.admit(NOW)
    lost(store, first)

    process_all(store)
    assert store.counts("b")[State.QUEUED] == 8
    revived(store, first)
    process_all(store)

    assert store.credits("b") == 19
    assert store.counts("b")[State.QUEUED] == 8
    everything_agrees(redis, prefix)


def given_up(job: Job) -> Move:
    """The lost order is given up."""
    return transitions.abandon(job, NOW)


def sent_again(job: Job) -> Move:
    """The lost order is resubmitted by the policy or a person."""
    return transitions.order_again(job, NOW)


@pytest.mark.parametrize("settled", [given_up, sent_again])
def test_lost_orders_never_exceed_the_credits_of_a_batch(
    store: Store, redis: Redis, prefix: str, settled: Callable[[Job], Move]
) -> None:
    """Each order is lost and submitted repeatedly: together they cost no more than the limit."""
    store.limit_batch("b", max_credits=20)
    put(store, *(voice(key=f"{number}", batch="b") for number in range(6)))
    sent: list[ChargedOrder] = []
    for _ in range(10):
        for job_id in submitted(store):
            job = one(store, job_id)
            sent.append(ChargedOrder(job_id, job.stage, job.attempt, f"t-{len(sent)}"))
            make(store, job, State.UNSURE, reason="no answer")
        store.apply([settled(one(store, job_id)) for job_id in store.ids(state=State.UNSURE)], NOW)

    assert len(sent) == 5
    batch = store.batch("b")
    assert batch is not None
    assert (batch.credits, batch.committed) == (0, 20)
    everything_agrees(redis, prefix)
    for order in sent:
        assert name_order(store, order, NOW, reason="named") in (Named.TAKEN_UP, Named.COUNTED)
    assert submitted(store) == []
    assert store.credits("b") == 20
    everything_agrees(redis, prefix)


def test_of_an_order_that_was_given_up_only_its_price_stays_reserved(store: Store) -> None:
    """Not that of the following song: with 23 credits another job starts, with 22 none."""
    store.limit_batch("b", max_credits=22)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)
    store.apply([transitions.abandon(one(store, first), NOW)], NOW)
    assert submitted(store) == []

    store.limit_batch("b", max_credits=23)

    assert len(submitted(store)) == 1


def test_an_order_is_resubmitted_when_the_batch_can_pay_both(store: Store) -> None:
    """Until then the job waits at the head of its lane with a reason, and no other job takes its place."""
    store.limit_batch("b", max_credits=20)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)

    store.apply([transitions.order_again(one(store, first), NOW)], NOW)
    assert submitted(store) == []
    assert store.timeline(first)[-1].reason == "the credit limit of the batch is reached"
    store.limit_batch("b", max_credits=23)

    assert submitted(store) == [first]
    assert submitted(store) == []


def test_lost_orders_reserve_credits_of_the_account(store: Store) -> None:
    """They may be submitted after the balance report, and their songs follow later."""
    [first, *_] = songs(store, 3)
    left(store, 19 + 18)
    store.admit(NOW)
    lost(store, first)

    assert submitted(store) == []
    assert store.controls.account().committed == 19


def test_a_paused_batch_submits_no_songs(store: Store, redis: Redis, prefix: str) -> None:
    """They stay first in their lane with a reason, and continue after the pause."""
    job_ids = pending_voices(store, 8)
    store.limit_batch("b", paused=True)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert submitted(store) == []

    assert store.counts("b")[State.QUEUED] == 8
    assert store.timeline(job_ids[0])[-1].reason == "the batch is paused"
    assert store.in_flight() == 0
    assert store.controls.account().committed == 0
    everything_agrees(redis, prefix)
    put(store, sung(key="later", batch="b"))
    store.limit_batch("b", paused=False)
    store.admit(NOW, at_most=8)
    assert sorted(store.ids(state=State.ADMITTED)) == sorted(job_ids)


def test_a_job_admitted_before_the_pause_is_not_submitted(store: Store) -> None:
    """Neither is one that returns to its slot during the pause."""
    [first, second] = songs(store, 2)
    store.admit(NOW)
    lost(store, first)
    store.limit_batch("b", paused=True)

    assert submitted(store) == []
    store.apply([transitions.order_again(one(store, first), NOW)], NOW)
    assert submitted(store) == []

    assert [one(store, job_id).state for job_id in (first, second)] == [State.QUEUED] * 2


def test_a_lower_credit_limit_applies_to_later_songs(store: Store) -> None:
    """Of 8 submitted voices (32 credits), two get their songs within 62 credits."""
    job_ids = pending_voices(store, 8)
    store.limit_batch("b", max_credits=62)
    for job_id in job_ids:
        voice_ready(store, job_id)

    process_all(store)

    assert store.credits("b") == 62
    assert store.counts("b")[State.SUCCEEDED] == 2
    assert "the credit limit of the batch is reached" in {step.reason for step in store.timeline(job_ids[0])}
    store.limit_batch("b", max_credits=inf)
    process_all(store)
    assert store.counts("b")[State.SUCCEEDED] == 8


def test_fewer_slots_of_a_batch_apply_to_later_songs(store: Store) -> None:
    """No more songs are submitted at once than the batch may have in flight; all are submitted in the end."""
    job_ids = pending_voices(store, 5)
    store.limit_batch("b", max_in_flight=2)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert len(submitted(store)) == 2

    assert store.counts("b")[State.QUEUED] == 3
    for job_id in list(store.ids(state=State.CHARGING)):
        accepted(store, job_id)
    process_all(store)
    assert store.counts("b")[State.SUCCEEDED] == 5


def test_credits_used_by_others_hold_back_songs(store: Store) -> None:
    """No order falls below the minimum balance; the other jobs continue."""
    store.controls.set_limits(credit_floor=10)
    job_ids = pending_voices(store, 3)
    left(store, 10 + 3 * 15 - 1)
    for job_id in job_ids:
        voice_ready(store, job_id)

    process_all(store)

    assert store.counts("b")[State.SUCCEEDED] == 2
    assert store.controls.account().left == 10 + 14
    left(store, 10 + 15)
    process_all(store)
    assert store.counts("b")[State.SUCCEEDED] == 3
    assert store.controls.account().left == 10


@pytest.mark.parametrize(
    "limit", [{"paused": True}, {"max_credits": 20}, {"max_in_flight": 1}], ids=["paused", "credits", "slots"]
)
def test_a_job_returned_by_a_limit_is_not_admitted_again(store: Store, limit: dict[str, float]) -> None:
    """A job that alternates between backlog and slot would keep workers busy."""
    job_ids = pending_voices(store, 4)
    store.limit_batch("b", **limit)
    for job_id in job_ids:
        voice_ready(store, job_id)
    submitted(store)
    versions = [one(store, job_id).version for job_id in job_ids]

    for _ in range(3):
        assert store.admit(NOW).by_stage == {}

    assert [one(store, job_id).version for job_id in job_ids] == versions


def test_other_jobs_continue_while_a_batch_is_held(store: Store) -> None:
    """Both are claimed in one call."""
    held_ids, free = pending_voices(store, 2, "held"), pending_voices(store, 2, "free")
    store.limit_batch("held", paused=True)
    for job_id in (*held_ids, *free):
        voice_ready(store, job_id)

    claims = store.charge([*held_ids, *free], Stage.MUSIC, "w", NOW, lease=90)

    assert [isinstance(claim, Charged) for claim in claims] == [False, False, True, True]
