"""Lost orders: each is counted once when upstream reports it, and used unless a newer order was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from tasks import decisions, webhooks
from tasks.webhooks import WebhookEffect
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, InvalidStateError, Job, Stage, State, VoiceJob, VoiceQueue, charges
from voicequeue.client import orders
from voicequeue.client.orders import OrderEffect
from voicequeue.client.search import Filter
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.job_store import JobStore

SPEC = voice_with_song(batch="b")


def resubmitted(store: JobStore, spec: VoiceJob = SPEC) -> Job:
    """Return a job whose first order was lost and that was resubmitted; nothing was sent yet."""
    return applied(store, transitions.resubmit(job_in_state(store, State.UNSURE, spec), NOW))


def applied(store: JobStore, move: Any) -> Job:
    """Apply a transition and return the job."""
    assert store.apply_transitions([move], NOW) == [True]
    return get_job(store, move.job_id)


def sent_again(store: JobStore) -> Job:
    """Return a job whose second order is being sent."""
    job = resubmitted(store)
    claim_admitted(store, job.id)
    return get_job(store, job.id)


def not_accepted_again(store: JobStore) -> Job:
    """Return a job whose second order was not charged."""
    return apply_transition(store, sent_again(store), State.QUEUED)


def lost_again(store: JobStore) -> Job:
    """Return a job whose second order got no response either."""
    return apply_transition(store, sent_again(store), State.UNSURE)


def expired(store: JobStore) -> Job:
    """Return a job that was not resubmitted in time."""
    job = apply_transition(store, resubmitted(store, voice_with_song(batch="b", start_within_s=60)), State.QUEUED)
    [overdue] = store.lease_expired(NOW + 61)
    assert (overdue.job_id, overdue.may_be_charged) == (job.id, True)
    return applied(store, decisions.expired(overdue, NOW + 61))


def cancelled(store: JobStore) -> Job:
    """Return a job that was cancelled before it was resubmitted."""
    return applied(store, transitions.cancel(resubmitted(store), NOW))


def abandoned(store: JobStore) -> Job:
    """Return a job whose first order was given up."""
    return applied(store, transitions.abandon(job_in_state(store, State.UNSURE, SPEC), NOW))


def refused_again(store: JobStore) -> Job:
    """Return a job whose second order was refused."""
    return fail_job(store, sent_again(store), FailureCode.REFUSED)


def at_song(store: JobStore, job: Job) -> Job:
    """Finish the voice of a job and admit it to its song."""
    return apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})


def accepted_again(store: JobStore) -> Job:
    """Return a job whose second order was accepted."""
    return accept_order(store, sent_again(store).id)


def failed_again(store: JobStore) -> Job:
    """Return a job whose second order was accepted and failed upstream."""
    return fail_job(store, accepted_again(store), FailureCode.UPSTREAM_FAILED)


def singing(store: JobStore) -> Job:
    """Return a job whose second voice exists and whose song is charging."""
    job = at_song(store, accepted_again(store))
    claim_admitted(store, job.id)
    return get_job(store, job.id)


def done(store: JobStore) -> Job:
    """Return a job that succeeded."""
    return apply_transition(store, accept_order(store, singing(store).id), State.SUCCEEDED, fields={"clips": "[]"})


Build = Callable[[JobStore], Job]


def named_by_webhook(
    store: JobStore, job: Job, *, task_id: str = "t1", stage: Stage = Stage.VOICE, attempt: int = 1
) -> WebhookEffect:
    """Process a webhook for the job's first order and return its effect."""
    return webhooks.process_webhook(store, job.id, stage, attempt, task_id)


@pytest.mark.parametrize(
    "build", [resubmitted, not_accepted_again, lost_again, expired, cancelled, abandoned, refused_again]
)
def test_a_job_without_a_newer_order_continues_with_the_lost_one(
    store: JobStore, redis: Redis, prefix: str, build: Build
) -> None:
    """The order is counted and nothing more is sent; a retry of a settled job polls it without paying."""
    job = build(store)
    assert (job.credits, store.credits_spent()) == (0, 0)

    assert named_by_webhook(store, job) is WebhookEffect.POLL

    current = get_job(store, job.id)
    assert current.state is (job.state if job.is_final else State.PENDING)
    assert (current.task_ids, current.charged_task_ids, current.credits) == ({Stage.VOICE: "t1"}, {1: "t1"}, 4)
    assert (store.credits_spent(), store.credits_spent("b")) == (4, 4)
    assert claim_submit(store, job.id, Stage.VOICE, "another", NOW, lease=90) is None
    if job.state is State.FAILED:
        assert (transitions.retry_cost(current), transitions.pays_again(current)) == (15, False)
        assert transitions.retry(current, NOW).to_state is State.PENDING
    assert_consistent(redis, prefix)


@pytest.mark.parametrize("build", [sent_again, accepted_again, failed_again, singing, done])
def test_a_job_with_a_newer_order_counts_the_lost_one(store: JobStore, redis: Redis, prefix: str, build: Build) -> None:
    """The job, and a worker that has claimed it, are not disturbed; the charge and its task are shown."""
    job = build(store)
    spent = store.credits_spent()

    assert named_by_webhook(store, job) is WebhookEffect.COUNTED

    current = get_job(store, job.id)
    assert (current.version, current.state, current.stage, current.task_ids) == (
        job.version,
        job.state,
        job.stage,
        job.task_ids,
    )
    assert (current.charged_task_ids[1], current.credits) == ("t1", job.credits + 4)
    assert (store.credits_spent(), store.credits_spent("b")) == (spent + 4, spent + 4)
    step = store.timeline(job.id)[-1]
    assert (step.stage, step.attempt, step.task_id, step.state) == (Stage.VOICE, 1, "t1", job.state)
    first, *_ = charges(store.timeline(job.id))
    assert (first.attempt, first.outcome, first.task_id) == (1, State.UNSURE, "t1")
    assert_consistent(redis, prefix)


@pytest.mark.parametrize("build", [resubmitted, expired, accepted_again, singing, done])
def test_an_order_is_counted_once_however_often_it_is_reported(store: JobStore, build: Build) -> None:
    """Webhooks may arrive one after the other or concurrently."""
    job = build(store)
    spent = store.credits_spent()
    all_at_once = threading.Barrier(5)

    def tell() -> None:
        all_at_once.wait()
        named_by_webhook(store, job)

    threads = [threading.Thread(target=tell) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    named_by_webhook(store, job)

    assert (store.credits_spent(), store.credits_spent("b")) == (spent + 4, spent + 4)
    assert get_job(store, job.id).credits == job.credits + 4


def test_a_failed_order_is_used_again_unless_a_newer_one_was_sent(store: JobStore) -> None:
    """Upstream failed it and a retry resubmits it; then upstream reports that it is ready: it is not paid twice."""
    job = fail_job(store, job_in_state(store, State.PENDING, SPEC), FailureCode.UPSTREAM_FAILED)
    applied(store, transitions.retry(job, NOW, resubmit=True))

    assert named_by_webhook(store, job, task_id=job.task_ids[Stage.VOICE]) is WebhookEffect.POLL

    current = get_job(store, job.id)
    assert (current.state, current.task_ids, current.credits) == (State.PENDING, job.task_ids, 4)


@pytest.mark.parametrize(("stage", "attempt"), [(Stage.VOICE, 0), (Stage.VOICE, 3), (Stage.MUSIC, 3)])
def test_an_order_that_was_never_sent_is_not_counted(store: JobStore, stage: Stage, attempt: int) -> None:
    """For example, of a purged job with the same id."""
    job = accepted_again(store)

    assert named_by_webhook(store, job, stage=stage, attempt=attempt) in (WebhookEffect.POLL, WebhookEffect.NOTHING)
    assert get_job(store, job.id).charged_task_ids.keys() == {2}
    assert webhooks.process_webhook(store, "purged", Stage.VOICE, 1, "t1") is WebhookEffect.UNKNOWN


def test_a_job_waiting_for_a_voice_continues_with_its_own_order(store: JobStore, redis: Redis, prefix: str) -> None:
    """It was given up and retried while another job created the voice; its first order was charged after all."""
    shared = {"voice": "ana", "batch": "b"}
    first = applied(store, transitions.abandon(job_in_state(store, State.UNSURE, voice_with_song(**shared)), NOW))
    enqueue_jobs(store, voice_with_song(key="other", **shared))
    assert applied(store, transitions.retry(first, NOW)).state is State.WAITING

    assert named_by_webhook(store, first) is WebhookEffect.POLL

    assert get_job(store, first.id).state is State.PENDING
    assert_consistent(redis, prefix)


def test_a_resubmitted_job_waits_if_another_job_creates_its_voice(store: JobStore, redis: Redis, prefix: str) -> None:
    """A retry was requested, upstream failed the order, and another job creates the voice by now."""
    shared = {"voice": "ana", "batch": "b"}
    broken = fail_job(store, job_in_state(store, State.PENDING, voice_with_song(**shared)), FailureCode.UPSTREAM_FAILED)
    [other] = enqueue_jobs(store, voice_with_song(key="other", **shared))
    store.admit(NOW)
    claim_admitted(store, other)
    retried = applied(store, transitions.retry(broken, NOW))

    again = apply_transition(
        store, retried, State.QUEUED, fields={"voice.task": None, "failure_report": None, "resubmit": None}
    )

    assert (again.state, get_job(store, other).state) == (State.WAITING, State.CHARGING)
    assert_consistent(redis, prefix)


def test_an_order_is_found_by_its_task_after_it_was_replaced(queue: VoiceQueue, store: JobStore) -> None:
    """Upstream's support knows only upstream's id."""
    job = accepted_again(store)
    named_by_webhook(store, job)

    for task_id in get_job(store, job.id).charged_task_ids.values():
        assert [match.id for match in queue.search(Filter(text=task_id)).items] == [job.id]


def test_an_operator_may_report_an_order_after_its_resubmission(queue: VoiceQueue, store: JobStore) -> None:
    """If nothing was sent yet, the job uses it. Otherwise its charge is counted. A second report is an error."""
    waiting, ordered = resubmitted(store), accepted_again(store)

    assert queue.confirm_charged(waiting.id, "t1").state is State.PENDING
    counted = queue.confirm_charged(ordered.id, "t2")

    assert (counted.state, counted.task_ids, counted.credits) == (State.PENDING, ordered.task_ids, 8)
    for job, task_id in ((waiting, "t1"), (ordered, "t2")):
        with pytest.raises(InvalidStateError):
            queue.confirm_charged(job.id, task_id)


def test_a_concurrent_transition_is_decided_again(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is resubmitted while the webhook is processed: the order is counted."""
    job = resubmitted(store)
    read, first = store.get, iter([job.id])

    def read_too_early(job_ids: Any) -> Any:
        jobs_read = read(job_ids)
        for job_id in first:
            claim_admitted(store, job_id)
        return jobs_read

    monkeypatch.setattr(store, "get", read_too_early)

    named = orders.record_charged_order(store, ChargedOrder(job.id, Stage.VOICE, 1, "t1"), NOW, reason="named")

    assert named is OrderEffect.COUNTED
    assert get_job(store, job.id).credits == 4


def test_a_batch_and_the_account_count_the_charge(store: JobStore) -> None:
    """A job without a batch works too; the balance by our count decreases."""
    store.flow_control.record_balance(100, spent_before=0, requested_at=NOW, now=NOW)
    job = apply_transition(store, job_in_state(store, State.UNSURE, voice()), State.ADMITTED)

    named_by_webhook(store, job)

    assert store.flow_control.account(NOW).balance == 96


def test_lost_orders_are_stored_by_attempt(store: JobStore, redis: Redis, prefix: str) -> None:
    """They stay in the record until upstream reports them."""
    job = applied(store, transitions.resubmit(lost_again(store), NOW))
    assert job.lost_stages == {1: Stage.VOICE, 2: Stage.VOICE}
    assert json.loads(str(redis.hget(f"{{{prefix}}}:job:{job.id}", "lost_orders"))) == {"1": "voice", "2": "voice"}

    named_by_webhook(store, job)

    assert get_job(store, job.id).lost_stages == {2: Stage.VOICE}
