"""Cancellation of a job whose order is being sent or was lost: no further order is sent, paid results are kept."""

from __future__ import annotations

import re
from typing import Any

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    rate_limit_order,
    report_order,
    transition_of,
)
from tests.support.jobs import voice_with_song
from tests.support.losing import lossy_proxy
from voicequeue import FailureCode, InvalidStateError, Job, Stage, State, VoiceQueue
from voicequeue.client import cancelling
from voicequeue.client.search import Filter
from voicequeue.domain import transitions
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

UNDER_WAY = [State.CHARGING, State.UNSURE]


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: JobStore) -> object:
    yield
    assert_consistent(redis, prefix)


def marked(store: JobStore, state: State, **fields: Any) -> Job:
    """Return a charging or unsure job that is marked for cancellation."""
    job = job_in_state(store, state, voice_with_song(**fields))
    [marked_job] = cancelling.cancel(store, [job], NOW)
    assert (marked_job.state, marked_job.version, marked_job.is_cancelling) == (state, job.version, True)
    return marked_job


@pytest.mark.parametrize("state", UNDER_WAY)
def test_a_marked_job_is_cancelled_when_upstream_accepted_its_order(store: JobStore, state: State) -> None:
    """The order is charged and counted, its task is polled; the song is not submitted."""
    job = marked(store, state)

    transition = report_order(job, "t-1")
    assert store.apply_transitions([transition], NOW) == [True]

    cancelled = get_job(store, job.id)
    assert (cancelled.state, cancelled.credits, cancelled.task_ids) == (State.CANCELLED, 4, {Stage.VOICE: "t-1"})
    assert (cancelled.settled_at, cancelled.is_cancelling, cancelled.may_have_late_result) == (NOW, False, True)
    assert "upstream accepted the order" in store.timeline(job.id)[-1].reason
    assert [claim.state for claim in store.claim_poll([job.id], NOW, lease_s=9)] == [State.CANCELLED]
    kept = transition_of(cancelled, State.CANCELLED, fields={"persona_id": "p-late"})
    assert store.apply_transitions([kept], NOW) == [True]
    assert get_job(store, job.id).persona_id == "p-late"
    assert store.admit(NOW).by_stage == {}
    assert store.flow_control.account().reserved == 0


@pytest.mark.parametrize("to", [State.QUEUED, State.ADMITTED])
def test_a_marked_job_is_cancelled_when_its_order_was_not_charged(store: JobStore, to: State) -> None:
    """Nothing is polled, and nothing is resubmitted."""
    job = marked(store, State.CHARGING)

    apply_transition(store, job, to, reason="slow down")

    cancelled = get_job(store, job.id)
    assert (cancelled.state, cancelled.credits, cancelled.may_have_late_result) == (State.CANCELLED, 0, False)
    assert store.count_in_flight() == 0
    assert store.lease_overdue(NOW + 1e6, overdue_s=0) == []
    assert store.admit(NOW).by_stage == {}


def test_a_marked_job_whose_response_is_lost_becomes_unsure(store: JobStore) -> None:
    """The order may have been charged, which is resolved first. A late response cancels the job."""
    job = marked(store, State.CHARGING)

    unsure = apply_transition(store, job, State.UNSURE, reason="no answer")
    assert unsure.is_cancelling
    apply_transition(store, unsure, State.ADMITTED, reason="late answer")

    assert get_job(store, job.id).state is State.CANCELLED


def test_a_marked_job_that_is_refused_fails(store: JobStore) -> None:
    """It fails with upstream's message; a retry works as for any failed job."""
    job = fail_job(store, marked(store, State.CHARGING), FailureCode.REFUSED)
    assert (job.state, job.is_cancelling) == (State.FAILED, False)

    store.apply_transitions([transitions.retry(job, NOW)], NOW)

    assert get_job(store, job.id).state is State.QUEUED
    store.admit(NOW)
    assert claim_admitted(store, job.id).attempt == 2


def test_a_refusal_of_a_marked_job_applies_to_others(store: JobStore, redis: Redis, prefix: str) -> None:
    """Rate limiting applies although the job is cancelled, and its refusal is cleared."""
    first, second = (job_in_state(store, State.CHARGING, voice_with_song(key=key)) for key in "ab")
    cancelling.cancel(store, [first, second], NOW)

    for job in (first, second):
        rate_limit_order(store, job.id)
        assert get_job(store, job.id).state is State.CANCELLED

    assert store.flow_control.gate(NOW).hold_for("cooldown")
    assert store.flow_control.refused_jobs() == []
    assert redis.exists(f"{{{prefix}}}:refused") == 0


def test_a_marked_job_is_not_resubmitted(store: JobStore, queue: VoiceQueue) -> None:
    """A decision made before the mark does not resubmit it either; given up, it can be retried."""
    unsure = job_in_state(store, State.UNSURE)
    decided_before = transitions.resubmit(unsure, NOW)
    cancelling.cancel(store, [unsure], NOW)

    with pytest.raises(InvalidStateError, match=f"job {unsure.id} is being cancelled and cannot be resubmitted"):
        queue.resubmit(unsure.id)
    assert store.apply_transitions([decided_before], NOW) == [False]

    assert queue.abandon(unsure.id).state is State.FAILED
    assert queue.retry(unsure.id).state is State.QUEUED


def test_a_mark_keeps_the_version_so_that_the_response_can_be_written(store: JobStore, queue: VoiceQueue) -> None:
    """A second request changes nothing; one event reports the mark."""
    job = job_in_state(store, State.CHARGING, voice_with_song(batch="b"))
    before = queue.last_event_id()

    assert [queue.cancel(job.id) for _ in range(2)] == [get_job(store, job.id)] * 2

    assert get_job(store, job.id).version == job.version
    [event] = queue.events(before)
    assert (event.job_id, event.state, event.reason) == (job.id, State.CHARGING, "cancellation requested")


def test_only_the_current_order_stays_reserved(store: JobStore) -> None:
    """The song of a marked job is never submitted: its credits are available at once."""
    for state in UNDER_WAY:
        marked(store, state, key=state, batch="b")

    assert store.flow_control.account().reserved == 2 * 4
    batch = store.batch("b")
    assert batch is not None
    assert batch.reserved_credits == 2 * 4


def test_a_transition_replaced_by_a_cancellation_is_reported_as_applied_after_a_retry(
    store: JobStore, valkey_url: str, prefix: str
) -> None:
    """The accepted order is written once, also if the first reply is lost."""
    job = marked(store, State.CHARGING)
    with lossy_proxy(valkey_url) as way:
        client = connect(way.url)
        way.drop_reply_to("EVALSHA")

        assert JobStore(client, prefix).apply_transitions([report_order(job, "t-1")], NOW) == [True]

        client.close()
    assert get_job(store, job.id).credits == 4


# ── shared voices ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=UNDER_WAY)
def waiting(store: JobStore, request: pytest.FixtureRequest) -> tuple[Job, str]:
    """Return a marked job that creates a voice, and the id of a job that waits for it."""
    creator, other = enqueue_jobs(store, *(voice_with_song(key=key, reuse=True) for key in ("creator", "other")))
    store.admit(NOW)
    claim_admitted(store, creator)
    if request.param is State.UNSURE:
        apply_transition(store, get_job(store, creator), State.UNSURE)
    [job] = cancelling.cancel(store, [get_job(store, creator)], NOW)
    assert get_job(store, other).state is State.WAITING
    return job, other


def test_jobs_waiting_for_the_charged_voice_of_a_marked_job_get_it(store: JobStore, waiting: tuple[Job, str]) -> None:
    """This works as for a job cancelled while upstream still works on it."""
    creator, other = waiting
    store.apply_transitions([report_order(creator, "t")], NOW)
    assert get_job(store, other).state is State.WAITING

    apply_transition(store, get_job(store, creator.id), State.CANCELLED, fields={"persona_id": "p-late"})

    assert (get_job(store, other).state, get_job(store, other).persona_id) == (State.QUEUED, "p-late")


@pytest.mark.parametrize("way", ["not charged", "given up"])
def test_a_job_waiting_for_the_uncharged_voice_of_a_marked_job_creates_it(
    store: JobStore, waiting: tuple[Job, str], way: str
) -> None:
    """One customer's cancellation does not affect another customer."""
    creator, other = waiting
    if way == "given up":
        unsure = creator if creator.state is State.UNSURE else apply_transition(store, creator, State.UNSURE)
        store.apply_transitions([transitions.abandon(unsure, NOW)], NOW)
    else:
        apply_transition(store, creator, State.ADMITTED, reason="not charged")

    assert (get_job(store, other).state, get_job(store, other).stage) == (State.QUEUED, Stage.VOICE)


# ── many jobs ─────────────────────────────────────────────────────────────────────────────────────


def under_way(store: JobStore) -> list[str]:
    """Enqueue a batch of 20 jobs: 9 can be cancelled at once, 6 are charging, 5 are unsure."""
    job_ids = enqueue_jobs(store, *(voice_with_song(key=f"{number}", batch="b") for number in range(20)))
    store.admit(NOW, at_most=15)
    for number, job_id in enumerate(job_ids[:11]):
        claim_admitted(store, job_id)
        if number % 2:
            apply_transition(store, get_job(store, job_id), State.UNSURE)
    return job_ids


def test_a_batch_is_cancelled_with_its_submitted_jobs(command: Command, store: JobStore) -> None:
    """The result counts cancelled and marked jobs; no song is submitted, for every outcome of the orders."""
    job_ids = under_way(store)

    dry = command("cancel", "--batch", "b", "--dry-run")
    ended = command("cancel", "--batch", "b", "--yes")

    assert "11 are charging or unsure; no further stage is submitted" in dry.out
    assert ended.code == 0
    assert "20 unsettled jobs found, 9 cancelled; upstream still works on 0 paid orders" in ended.out
    assert "11 are charging or unsure; no further stage is submitted" in ended.out
    for job_id in job_ids[:11]:
        store.apply_transitions([report_order(get_job(store, job_id), "t")], NOW)
        apply_transition(store, get_job(store, job_id), State.CANCELLED, fields={"persona_id": f"p-{job_id}"})
    assert store.admit(NOW).by_stage == {}
    assert store.credits_spent("b") == 11 * 4
    assert store.counts_by_state("b")[State.CANCELLED] == 20
    assert command("cancel", "--batch", "b", "--yes", "--json").json() == {
        "count": 0,
        "cancelled": 0,
        "cancelling": 0,
        "submitted": 0,
    }


def test_jobs_that_changed_since_they_were_read_are_cancelled(store: JobStore, queue: VoiceQueue) -> None:
    """Otherwise a job that changed in between would submit its song."""
    [a, b, c, d] = enqueue_jobs(store, *(voice_with_song(key=key, batch="b") for key in "abcd"))
    store.admit(NOW, at_most=3)
    plan = queue.plan_bulk("cancel", Filter(batch="b"))
    claim_admitted(store, a)
    claim_admitted(store, b)
    accept_order(store, b)
    fail_job(store, get_job(store, c), FailureCode.EXPIRED)

    queue.execute_plan("cancel", plan.token)

    jobs = [queue.get(job_id) for job_id in (a, b, c, d)]
    assert [(job.state, job.is_cancelling) for job in jobs] == [
        (State.CHARGING, True),
        (State.CANCELLED, False),
        (State.FAILED, False),
        (State.CANCELLED, False),
    ]


def test_a_plan_counts_submitted_jobs_and_marks_them(store: JobStore, queue: VoiceQueue) -> None:
    """Jobs settled by then are left alone; a second execution changes nothing."""
    job_ids = under_way(store)
    plan = queue.plan_bulk("cancel", Filter(batch="b"))
    assert (plan.count, plan.submitted, plan.uncertain) == (20, 0, 11)
    accept_order(store, job_ids[0])
    apply_transition(store, get_job(store, job_ids[-1]), State.CANCELLED)

    first, second = (queue.execute_plan("cancel", plan.token) for _ in range(2))

    assert (first.count, first.changed, first.cancelling, first.skipped) == (20, 9, 10, 1)
    assert (second.changed, second.cancelling, second.skipped) == (0, 0, 20)
    assert queue.plan_bulk("cancel", Filter(batch="b")).count == 0


def test_a_marked_job_is_shown_as_such(command: Command, store: JobStore) -> None:
    """The CLI shows the mark and the state of the order, as text and as JSON."""
    for state, why in ((State.CHARGING, "is being submitted"), (State.UNSURE, "may have been charged")):
        job = job_in_state(store, state, voice_with_song(key=state))
        ended = command("cancel", job.id)

        assert ended.code == 0
        assert re.search(f"order {why}.*: cancelled as soon as the outcome is known; no further stage", ended.err)
        assert "cancelling" in ended.out
        assert command("job", job.id, "--json").json()["cancelling"] is True
        assert "cancelling" in command("jobs").out
