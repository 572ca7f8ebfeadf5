"""Cancelling and retrying: what is allowed, and what it costs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    accept_order,
    apply_transition,
    claim_admitted,
    dump_keys,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import SONG, voice, voice_with_song
from voicequeue import FailureCode, InvalidStateError, Job, Stage, State, VoiceQueue
from voicequeue.client import bulk_operations
from voicequeue.client.search import Filter
from voicequeue.domain.job import FailureReport
from voicequeue.storage.job_store import JobStore

# ── cancel ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [State.QUEUED, State.ADMITTED, State.PENDING])
def test_a_job_can_be_cancelled_before_it_settles(queue: VoiceQueue, store: JobStore, state: State) -> None:
    """Its slot is released at once; its credits stay counted."""
    job = job_in_state(store, state)

    cancelled = queue.cancel(job.id)

    assert (cancelled.state, cancelled.credits) == (State.CANCELLED, job.credits)
    assert cancelled.settled_at is not None
    assert store.count_in_flight() == 0
    assert ("a late result is kept" in queue.timeline(job.id)[-1].reason) is (state is State.PENDING)
    assert cancelled.may_have_late_result is (state is State.PENDING)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (State.SUCCEEDED, "succeeded already"),
        (State.FAILED, "failed already"),
        (State.CANCELLED, "cancelled already"),
    ],
)
def test_a_job_that_cannot_be_cancelled_says_why(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str, state: State, why: str
) -> None:
    """And is unchanged."""
    job = job_in_state(store, state)
    before = dump_keys(redis, prefix)

    with pytest.raises(InvalidStateError, match=why):
        queue.cancel(job.id)

    assert dump_keys(redis, prefix) == before


@pytest.mark.parametrize("job_filter", [Filter(batch="spring"), Filter()])
def test_a_plan_cancels_waiting_jobs_before_the_one_that_creates_the_voice(
    queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch, job_filter: Filter
) -> None:
    """Otherwise a waiting job would become the voice's creator and differ from the plan; also across pages."""
    monkeypatch.setattr(bulk_operations, "CHUNK", 1)
    queue.enqueue({"audio_url": "https://a.example/b.wav", "songs": [SONG] * 4, "batch": "spring"})

    done = queue.execute_plan("cancel", queue.plan_bulk("cancel", job_filter).token)

    assert (done.count, done.changed) == (4, 4)
    assert queue.status().states[State.CANCELLED] == 4


def test_all_jobs_of_a_voice_are_cancelled_together(queue: VoiceQueue) -> None:
    """In the order of enqueueing, across pages."""
    orders = [{"audio_url": f"https://a.example/{n}.wav", "songs": [SONG] * 100, "batch": "b"} for n in range(6)]
    queue.enqueue_many(orders)

    cancelled = queue.execute_plan("cancel", queue.plan_bulk("cancel", Filter(batch="b")).token)

    assert (cancelled.count, cancelled.changed) == (600, 600)


def test_of_two_concurrent_cancels_one_succeeds(queue: VoiceQueue) -> None:
    """The other raises an error; nothing is done twice."""
    for job in [queue.enqueue(voice()) for _ in range(20)]:
        outcomes: list[object] = []
        threads = [threading.Thread(target=_cancelling, args=(queue, job, outcomes)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, outcomes)) == ["cancelled", "refused"]
        assert len(queue.timeline(job.id)) == 2


def _cancelling(queue: VoiceQueue, job: Job, outcomes: list[object]) -> None:
    try:
        outcomes.append(queue.cancel(job.id).state)
    except InvalidStateError:
        outcomes.append("refused")


# ── retry ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [FailureCode.REFUSED, FailureCode.MODERATED, FailureCode.EXPIRED])
def test_a_failed_job_goes_back_to_the_stage_that_failed(queue: VoiceQueue, store: JobStore, code: FailureCode) -> None:
    """Its failure is cleared, and the stage is charged."""
    job = fail_job(store, job_in_state(store, State.CHARGING), code)

    again = queue.retry(job.id)

    assert (again.state, again.stage, again.failure, again.settled_at) == (State.QUEUED, Stage.VOICE, None, None)
    assert queue.timeline(job.id)[-1].reason == "retry"


def test_a_retry_polls_a_failed_order_first_unless_it_resubmits(queue: VoiceQueue, store: JobStore) -> None:
    """Upstream may have finished it after all; `resubmit` pays in any case."""
    polled, resubmitted = (
        fail_job(store, job_in_state(store, State.PENDING, voice_with_song(key=key)), FailureCode.UPSTREAM_FAILED)
        for key in "ab"
    )

    assert (queue.retry(polled.id).state, queue.timeline(polled.id)[-1].task_id) == (State.PENDING, None)
    [claim] = store.claim_poll([polled.id], time.time(), lease_s=90)
    assert (claim.resubmits, claim.failure_report) == (True, FailureReport(0.0, "no"))
    again = queue.retry(resubmitted.id, resubmit=True)
    assert (again.state, again.task_ids) == (State.QUEUED, {})
    assert queue.timeline(resubmitted.id)[-1].reason == "retry: resubmit"


def test_a_retry_of_a_version_does_not_pay_for_a_later_failure(
    queue: VoiceQueue, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the job changes after it was read: what was agreed to is the cost of that version."""
    job = fail_job(store, job_in_state(store, State.CHARGING), FailureCode.REFUSED)
    apply = JobStore.apply_transitions

    def change_first(*arguments: Any) -> list[bool]:
        monkeypatch.setattr(JobStore, "apply_transitions", apply)
        queue.retry(job.id)
        fail_job(store, get_job(store, job.id), FailureCode.REFUSED)
        return apply(*arguments)

    monkeypatch.setattr(JobStore, "apply_transitions", change_first)
    with pytest.raises(InvalidStateError, match=f"has changed since version {job.version}"):
        queue.retry(job.id, version=job.version)

    changed = get_job(store, job.id)
    assert (changed.state, changed.version) == (State.FAILED, job.version + 2)
    with pytest.raises(InvalidStateError, match="has changed"):
        queue.retry(job.id, version=job.version, audio_url="https://recordings.example/other.wav")
    assert queue.retry(job.id, version=changed.version).state is State.QUEUED


def test_a_finished_voice_is_not_paid_for_again(queue: VoiceQueue, store: JobStore) -> None:
    """A retried song uses the existing persona."""
    with_voice = apply_transition(
        store, job_in_state(store, State.PENDING), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}
    )
    claim_admitted(store, with_voice.id)
    fail_job(store, accept_order(store, with_voice.id), FailureCode.UPSTREAM_FAILED)

    again = queue.retry(with_voice.id, resubmit=True)

    assert (again.state, again.stage, again.persona_id, again.credits) == (State.QUEUED, Stage.MUSIC, "p", 19)
    store.admit(NOW, at_most=1)
    assert claim_admitted(store, with_voice.id).stage is Stage.MUSIC


def test_a_paid_order_past_its_deadline_is_polled_again_for_free(queue: VoiceQueue, store: JobStore) -> None:
    """It is due at once, with a new deadline."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.DEADLINE)
    before = time.time()

    again = queue.retry(job.id)

    assert (again.state, again.credits, again.failure) == (State.PENDING, job.credits, None)
    [claim] = store.claim_poll([job.id], time.time(), lease_s=90)
    assert claim.task_id == f"task-voice-{job.id}"
    assert claim.submitted_at >= before


def test_a_deadline_before_the_charge_returns_to_the_backlog(queue: VoiceQueue, store: JobStore) -> None:
    """This stage has no task to poll, even if the one before had."""
    with_voice = apply_transition(
        store, job_in_state(store, State.PENDING), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}
    )
    fail_job(store, with_voice, FailureCode.DEADLINE)

    assert queue.retry(with_voice.id).state is State.QUEUED


@pytest.mark.parametrize("state", [state for state in REACHABLE if state is not State.FAILED])
def test_only_a_failed_job_can_be_retried(
    queue: VoiceQueue, store: JobStore, redis: Redis, prefix: str, state: State
) -> None:
    """The error names the state; the job is unchanged."""
    job = job_in_state(store, state)
    before = dump_keys(redis, prefix)

    with pytest.raises(InvalidStateError, match=f"is {state}"):
        queue.retry(job.id)

    assert dump_keys(redis, prefix) == before
