"""Limits of batches and of the account hold at each submission, also after lost orders, pauses and lower limits."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest
from redis import Redis

from tests.store.flow.test_credits import record_balance
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    get_job,
    report_order,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import Job, Stage, State
from voicequeue.client.orders import OrderEffect, record_charged_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder, SubmitClaim
from voicequeue.domain.job import Transition
from voicequeue.domain.source import Source
from voicequeue.storage.job_store import JobStore


def songs(store: JobStore, count: int, batch: str = "b", source: str = Source.LIBRARY) -> list[str]:
    """Enqueue jobs of one batch with a voice and a song each (19 credits) and return their ids."""
    keys = (f"{source}-{batch}-{number}" for number in range(count))
    return enqueue_jobs(store, *(voice_with_song(key=key, batch=batch) for key in keys), source=source)


def lost(store: JobStore, job_id: str) -> None:
    """Submit the current stage; the response is lost."""
    claim_admitted(store, job_id)
    apply_transition(store, get_job(store, job_id), State.UNSURE, reason="no answer")


def revived(store: JobStore, job_id: str) -> None:
    """Process a webhook that reports the task of the lost order."""
    assert store.apply_transitions([report_order(get_job(store, job_id), "t")], NOW) == [True]


def voice_ready(store: JobStore, job_id: str) -> None:
    """Finish the voice and admit the job to its song."""
    apply_transition(
        store, get_job(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": f"p-{job_id}"}
    )


def pending_voices(store: JobStore, count: int, batch: str = "b") -> list[str]:
    """Return jobs with pending voices."""
    job_ids = songs(store, count, batch)
    store.admit(NOW)
    for job_id in job_ids:
        claim_admitted(store, job_id)
        accept_order(store, job_id)
    return job_ids


def submitted(store: JobStore) -> list[str]:
    """Admit jobs and claim them for submission, like a worker; return the claimed ids."""
    store.admit(NOW)
    job_ids = sorted(store.list_ids(state=State.ADMITTED))
    claims = [claim_submit(store, job_id, get_job(store, job_id).stage, "w", NOW, lease=90) for job_id in job_ids]
    return [claim.job_id for claim in claims if isinstance(claim, SubmitClaim)]


def process_all(store: JobStore, rounds: int = 20) -> None:
    """Process jobs as far as the limits allow; upstream accepts and finishes every order."""
    for _ in range(rounds):
        for job_id in submitted(store):
            accept_order(store, job_id)
        for job_id in list(store.list_ids(state=State.PENDING)):
            job = get_job(store, job_id)
            if job.stage is Stage.VOICE:
                voice_ready(store, job_id)
            else:
                apply_transition(store, job, State.SUCCEEDED)


def test_lost_orders_are_counted_at_full_cost(store: JobStore, redis: Redis, prefix: str) -> None:
    """A batch limited to 20 credits with a lost order starts no other job, and spends 19 when the order is found."""
    store.set_batch_limits("b", max_credits=20)
    [first, *_] = songs(store, 9)
    store.admit(NOW)
    lost(store, first)

    process_all(store)
    assert store.counts_by_state("b")[State.QUEUED] == 8
    revived(store, first)
    process_all(store)

    assert store.credits_spent("b") == 19
    assert store.counts_by_state("b")[State.QUEUED] == 8
    assert_consistent(redis, prefix)


def given_up(job: Job) -> Transition:
    """Give up the lost order."""
    return transitions.abandon(job, NOW)


def sent_again(job: Job) -> Transition:
    """Resubmit the lost order, like the policy or an operator."""
    return transitions.resubmit(job, NOW)


@pytest.mark.parametrize("settled", [given_up, sent_again])
def test_lost_orders_never_exceed_the_credits_of_a_batch(
    store: JobStore, redis: Redis, prefix: str, settled: Callable[[Job], Transition]
) -> None:
    """Each order is lost and submitted repeatedly: together they cost no more than the limit."""
    store.set_batch_limits("b", max_credits=20)
    enqueue_jobs(store, *(voice(key=f"{number}", batch="b") for number in range(6)))
    sent: list[ChargedOrder] = []
    for _ in range(10):
        for job_id in submitted(store):
            job = get_job(store, job_id)
            sent.append(ChargedOrder(job_id, job.stage, job.attempt, f"t-{len(sent)}"))
            apply_transition(store, job, State.UNSURE, reason="no answer")
        store.apply_transitions([settled(get_job(store, job_id)) for job_id in store.list_ids(state=State.UNSURE)], NOW)

    assert len(sent) == 5
    batch = store.batch("b")
    assert batch is not None
    assert (batch.credits, batch.reserved_credits) == (0, 20)
    assert_consistent(redis, prefix)
    for order in sent:
        assert record_charged_order(store, order, NOW, reason="named") in (OrderEffect.CONTINUED, OrderEffect.COUNTED)
    assert submitted(store) == []
    assert store.credits_spent("b") == 20
    assert_consistent(redis, prefix)


def test_of_an_order_that_was_given_up_only_its_price_stays_reserved(store: JobStore) -> None:
    """Not that of the following song: with 23 credits another job starts, with 22 none."""
    store.set_batch_limits("b", max_credits=22)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)
    store.apply_transitions([transitions.abandon(get_job(store, first), NOW)], NOW)
    assert submitted(store) == []

    store.set_batch_limits("b", max_credits=23)

    assert len(submitted(store)) == 1


def test_an_order_is_resubmitted_when_the_batch_can_pay_both(store: JobStore) -> None:
    """Until then the job waits at the head of its lane with a reason, and no other job takes its place."""
    store.set_batch_limits("b", max_credits=20)
    [first, *_] = songs(store, 3)
    store.admit(NOW)
    lost(store, first)

    store.apply_transitions([transitions.resubmit(get_job(store, first), NOW)], NOW)
    assert submitted(store) == []
    assert store.timeline(first)[-1].reason == "the credit limit of the batch is reached"
    store.set_batch_limits("b", max_credits=23)

    assert submitted(store) == [first]
    assert submitted(store) == []


def test_lost_orders_reserve_credits_of_the_account(store: JobStore) -> None:
    """They may be submitted after the balance report, and their songs follow later."""
    [first, *_] = songs(store, 3)
    record_balance(store, 19 + 18)
    store.admit(NOW)
    lost(store, first)

    assert submitted(store) == []
    assert store.flow_control.account().reserved == 19


def test_a_paused_batch_submits_no_songs(store: JobStore, redis: Redis, prefix: str) -> None:
    """They stay first in their lane with a reason, and continue after the pause."""
    job_ids = pending_voices(store, 8)
    store.set_batch_limits("b", paused=True)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert submitted(store) == []

    assert store.counts_by_state("b")[State.QUEUED] == 8
    assert store.timeline(job_ids[0])[-1].reason == "the batch is paused"
    assert store.count_in_flight() == 0
    assert store.flow_control.account().reserved == 0
    assert_consistent(redis, prefix)
    enqueue_jobs(store, voice_with_song(key="later", batch="b"))
    store.set_batch_limits("b", paused=False)
    store.admit(NOW, at_most=8)
    assert sorted(store.list_ids(state=State.ADMITTED)) == sorted(job_ids)


def test_a_job_admitted_before_the_pause_is_not_submitted(store: JobStore) -> None:
    """Neither is one that returns to its slot during the pause."""
    [first, second] = songs(store, 2)
    store.admit(NOW)
    lost(store, first)
    store.set_batch_limits("b", paused=True)

    assert submitted(store) == []
    store.apply_transitions([transitions.resubmit(get_job(store, first), NOW)], NOW)
    assert submitted(store) == []

    assert [get_job(store, job_id).state for job_id in (first, second)] == [State.QUEUED] * 2


def test_a_lower_credit_limit_applies_to_later_songs(store: JobStore) -> None:
    """Of 8 submitted voices (32 credits), two get their songs within 62 credits."""
    job_ids = pending_voices(store, 8)
    store.set_batch_limits("b", max_credits=62)
    for job_id in job_ids:
        voice_ready(store, job_id)

    process_all(store)

    assert store.credits_spent("b") == 62
    assert store.counts_by_state("b")[State.SUCCEEDED] == 2
    assert "the credit limit of the batch is reached" in {step.reason for step in store.timeline(job_ids[0])}
    store.set_batch_limits("b", max_credits=inf)
    process_all(store)
    assert store.counts_by_state("b")[State.SUCCEEDED] == 8


def test_fewer_slots_of_a_batch_apply_to_later_songs(store: JobStore) -> None:
    """No more songs are submitted at once than the batch may have in flight; all are submitted in the end."""
    job_ids = pending_voices(store, 5)
    store.set_batch_limits("b", max_in_flight=2)
    for job_id in job_ids:
        voice_ready(store, job_id)

    assert len(submitted(store)) == 2

    assert store.counts_by_state("b")[State.QUEUED] == 3
    for job_id in list(store.list_ids(state=State.CHARGING)):
        accept_order(store, job_id)
    process_all(store)
    assert store.counts_by_state("b")[State.SUCCEEDED] == 5


def test_credits_used_by_others_hold_back_songs(store: JobStore) -> None:
    """No order falls below the minimum balance; the other jobs continue."""
    store.flow_control.set_limits(min_balance=10)
    job_ids = pending_voices(store, 3)
    record_balance(store, 10 + 3 * 15 - 1)
    for job_id in job_ids:
        voice_ready(store, job_id)

    process_all(store)

    assert store.counts_by_state("b")[State.SUCCEEDED] == 2
    assert store.flow_control.account().balance == 10 + 14
    record_balance(store, 10 + 15)
    process_all(store)
    assert store.counts_by_state("b")[State.SUCCEEDED] == 3
    assert store.flow_control.account().balance == 10


@pytest.mark.parametrize(
    "limit", [{"paused": True}, {"max_credits": 20}, {"max_in_flight": 1}], ids=["paused", "credits", "slots"]
)
def test_a_job_returned_by_a_limit_is_not_admitted_again(store: JobStore, limit: dict[str, float]) -> None:
    """A job that alternates between backlog and slot would keep workers busy."""
    job_ids = pending_voices(store, 4)
    store.set_batch_limits("b", **limit)
    for job_id in job_ids:
        voice_ready(store, job_id)
    submitted(store)
    versions = [get_job(store, job_id).version for job_id in job_ids]

    for _ in range(3):
        assert store.admit(NOW).by_stage == {}

    assert [get_job(store, job_id).version for job_id in job_ids] == versions


def test_other_jobs_continue_while_a_batch_is_held(store: JobStore) -> None:
    """Both are claimed in one call."""
    held_ids, free = pending_voices(store, 2, "held"), pending_voices(store, 2, "free")
    store.set_batch_limits("held", paused=True)
    for job_id in (*held_ids, *free):
        voice_ready(store, job_id)

    claims = store.claim_submit([*held_ids, *free], Stage.MUSIC, "w", NOW, lease_s=90)

    assert [isinstance(claim, SubmitClaim) for claim in claims] == [False, False, True, True]
