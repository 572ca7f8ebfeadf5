"""Transitions: each is applied completely if the version matches, or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.store.life import (
    NOW,
    REACHABLE,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    get_job,
    job_in_state,
    transition_of,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import Clip, Failure, FailureCode, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.budgets import spent_fields
from voicequeue.domain.job import Transition
from voicequeue.domain.states import IN_FLIGHT, TRANSITIONS
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

LEGAL = [(state, to) for state in REACHABLE for to in State if to in TRANSITIONS[state]]


# ── applied transitions ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_legal_transition_updates_the_record_and_every_index(
    store: JobStore, redis: Redis, prefix: str, state: State, to: State
) -> None:
    """State, version, index, slot, batch count and timeline change at once."""
    job = job_in_state(store, state, voice_with_song(batch="b"))

    after = apply_transition(store, job, to, NOW + 5, reason="because")

    assert (after.state, after.version, after.updated_at) == (to, job.version + 1, NOW + 5)
    assert {s: n for s, n in store.counts_by_state("b").items() if n} == {to: 1}
    assert store.count_in_flight() == (to in IN_FLIGHT)
    last = store.timeline(job.id)[-1]
    assert (last.at, last.state, last.stage, last.reason) == (NOW + 5, to, job.stage, "because")
    assert_consistent(redis, prefix)


def test_a_transition_sets_and_deletes_fields(store: JobStore) -> None:
    """A failure is set by the transition to it and deleted by the transition from it."""
    job = job_in_state(store, State.PENDING)
    failure = Failure(FailureCode.UPSTREAM_FAILED, Stage.VOICE, 'it said "no" — ни за что\n\0 [red]')

    failed = apply_transition(
        store, job, State.FAILED, fields={"failure": serialization.failure_text(failure), "settled": f"{NOW + 7:.6f}"}
    )
    again = apply_transition(store, failed, State.QUEUED, fields={"failure": None, "settled": None})

    assert (failed.failure, failed.settled_at) == (failure, NOW + 7)
    assert (again.failure, again.settled_at) == (None, None)


def test_a_finished_stage_leads_to_the_next(store: JobStore, redis: Redis, prefix: str) -> None:
    """The persona is stored by the transition to the song."""
    job = job_in_state(store, State.PENDING)

    after = apply_transition(
        store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p", "voice_name": "ana"}
    )

    assert (after.stage, after.persona_id, after.voice_name) == (Stage.MUSIC, "p", "ana")
    assert after.task_ids == {Stage.VOICE: f"task-voice-{job.id}"}
    assert_consistent(redis, prefix)


def test_clips_arrive_with_success(store: JobStore) -> None:
    """They are stored with upstream's names."""
    clips = (Clip("c", "succeeded", 'Ü "x" \\ [/]', "https://cdn.example/1.mp3", None, 61.25), Clip("d", "failed"))

    job = apply_transition(
        store, job_in_state(store, State.PENDING), State.SUCCEEDED, fields={"clips": serialization.clips_text(clips)}
    )

    assert job.clips == clips


def test_credits_are_counted_for_the_job_the_batch_and_in_total(store: JobStore, redis: Redis, prefix: str) -> None:
    """Each charge is counted once, by its stage."""
    job = job_in_state(store, State.PENDING, voice_with_song(batch="b"))
    apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    claim_admitted(store, job.id)
    accept_order(store, job.id)
    job_in_state(store, State.PENDING, voice())

    assert get_job(store, job.id).credits == store.credits_spent("b") == 19
    assert store.credits_spent() == 23
    counters = redis.hgetall(f"{{{prefix}}}:counters")
    paid = {"voice.charges": "2", "voice.credits": "8", "music.charges": "1", "music.credits": "15"}
    periods = dict.fromkeys(spent_fields(NOW).values(), "23")
    assert counters == {**paid, **periods, "reserved": "0", "days_from": "0", "lane_turn": counters["lane_turn"]}
    assert_consistent(redis, prefix)


def test_a_task_is_in_the_timeline(store: JobStore) -> None:
    """It is listed with its attempt."""
    job = job_in_state(store, State.PENDING)

    assert [(step.state, step.attempt, step.task_id) for step in store.timeline(job.id)] == [
        (State.QUEUED, 0, None),
        (State.ADMITTED, 0, None),
        (State.CHARGING, 1, None),
        (State.PENDING, 1, f"task-voice-{job.id}"),
    ]


def test_texts_that_are_invalid_in_utf8_are_written(store: JobStore) -> None:
    """An unpaired surrogate from upstream costs a character, not the paid task."""
    job = job_in_state(store, State.CHARGING)
    failure = Failure(FailureCode.REFUSED, Stage.VOICE, "bad \ud800 words")

    after = apply_transition(
        store, job, State.FAILED, reason=failure.message, fields={"failure": serialization.failure_text(failure)}
    )

    assert after.failure == Failure(FailureCode.REFUSED, Stage.VOICE, "bad \ufffd words")
    assert store.timeline(job.id)[-1].reason == "bad \ufffd words"


def test_one_call_applies_many_transitions(store: JobStore, redis: Redis, prefix: str) -> None:
    """Each result says whether its transition was applied."""
    job_ids = enqueue_jobs(store, *numbered_voices(300, batch="b"))
    store.admit(NOW, at_most=300)
    moves = [transition_of(get_job(store, job_id), State.CANCELLED) for job_id in job_ids]
    apply_transition(store, get_job(store, job_ids[7]), State.QUEUED)

    written = store.apply_transitions(moves, NOW)

    assert [n for n, is_applied in enumerate(written) if not is_applied] == [7]
    assert store.counts_by_state("b")[State.CANCELLED] == 299
    assert_consistent(redis, prefix)


def test_a_record_that_is_damaged_leaves_those_before_it_consistent(store: JobStore, redis: Redis, prefix: str) -> None:
    """The call fails. The indexes and counters of the jobs that it has written are written with them."""
    ids = enqueue_jobs(store, voice(key="good"), voice(key="damaged"))
    store.admit(NOW, at_most=10)
    jobs = [get_job(store, claim_admitted(store, job_id).job_id) for job_id in ids]
    redis.hset(f"{{{prefix}}}:job:{ids[1]}", "submissions", '{"1":')

    with pytest.raises(ResponseError):
        store.apply_transitions([transition_of(job, State.PENDING, credits=4) for job in jobs], NOW)

    assert [get_job(store, job_id).state for job_id in ids] == [State.PENDING, State.CHARGING]
    assert {s: n for s, n in store.counts_by_state().items() if n} == {State.PENDING: 1, State.CHARGING: 1}
    assert list(store.list_ids(state=State.PENDING)) == ids[:1]
    assert store.credits_spent() == 4


def test_no_transitions_are_no_call(store: JobStore, redis: Redis, prefix: str) -> None:
    """An empty list is allowed."""
    assert store.apply_transitions([], NOW) == []
    assert dump_keys(redis, prefix) == {}


# ── stale transitions ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_stale_transition_changes_nothing(
    store: JobStore, redis: Redis, prefix: str, state: State, to: State
) -> None:
    """No key changes after a transition for an older version."""
    job = job_in_state(store, state, voice_with_song(batch="b"))
    fields = {"voice.task": "t-late", "failure": None, "settled": "9"}
    stale = Transition(
        job.id,
        job.version - 1,
        state,
        job.stage,
        to,
        due=NOW if to in IN_FLIGHT else None,
        reason="late",
        fields=fields,
        credits=4,
    )
    before = dump_keys(redis, prefix)

    assert store.apply_transitions([stale], NOW + 9) == [False]
    assert dump_keys(redis, prefix) == before


def test_a_transition_of_a_later_version_is_stale_too(store: JobStore, redis: Redis, prefix: str) -> None:
    """Only the exact version matches."""
    job = job_in_state(store, State.PENDING)
    before = dump_keys(redis, prefix)

    ahead = Transition(job.id, job.version + 1, job.state, job.stage, State.SUCCEEDED)

    assert store.apply_transitions([ahead], NOW) == [False]
    assert dump_keys(redis, prefix) == before


def test_a_transition_does_not_recreate_a_deleted_job(store: JobStore, redis: Redis, prefix: str) -> None:
    """No partial record is written."""
    job = job_in_state(store, State.PENDING)
    redis.flushdb()

    assert store.apply_transitions([transition_of(job, State.SUCCEEDED)], NOW) == [False]
    assert dump_keys(redis, prefix) == {}


def test_of_two_transitions_of_one_job_in_one_call_the_first_is_applied(store: JobStore) -> None:
    """The second was decided for a version that is no longer current."""
    job = job_in_state(store, State.PENDING)

    assert store.apply_transitions([transition_of(job, State.SUCCEEDED), transition_of(job, State.FAILED)], NOW) == [
        True,
        False,
    ]
    assert get_job(store, job.id).state is State.SUCCEEDED


def test_of_two_concurrent_transitions_exactly_one_is_applied(store: JobStore, valkey_url: str, prefix: str) -> None:
    """For example a poll and a webhook: credits are counted once, each timeline has one entry."""
    job_ids = enqueue_jobs(store, *numbered_voices(60))
    store.admit(NOW, at_most=60)
    claims = [claim_admitted(store, job_id) for job_id in job_ids]
    moves = [
        Transition(
            c.job_id,
            c.version,
            State.CHARGING,
            c.stage,
            State.PENDING,
            due=NOW,
            credits=4,
            fields={"submitted_at": "1"},
        )
        for c in claims
    ]
    together = Barrier(2)

    def apply(order: list[Transition]) -> dict[str, bool]:
        client = connect(valkey_url)
        own = JobStore(client, prefix)
        together.wait()
        results = {transition.job_id: own.apply_transitions([transition], NOW)[0] for transition in order}
        client.close()
        return results

    with ThreadPoolExecutor(2) as threads:
        one_made, other_made = threads.map(apply, [moves, moves[::-1]])

    assert all(one_made[job_id] != other_made[job_id] for job_id in job_ids)
    assert store.credits_spent() == 60 * 4
    assert {len(store.timeline(job_id)) for job_id in job_ids} == {4}
