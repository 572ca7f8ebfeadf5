"""Transitions: each is applied completely if the version matches, or not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    accepted,
    brought_to,
    charging,
    dump,
    everything_agrees,
    make,
    move,
    one,
    put,
)
from tests.support.jobs import numbered, sung, voice
from voicequeue import Clip, Code, Failure, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.job import IN_FLIGHT, MOVES, Move
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store

LEGAL = [(state, to) for state in REACHABLE for to in State if to in MOVES[state]]


# ── applied transitions ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_legal_transition_updates_the_record_and_every_index(
    store: Store, redis: Redis, prefix: str, state: State, to: State
) -> None:
    """State, version, index, slot, batch count and timeline change at once."""
    job = brought_to(store, state, sung(batch="b"))

    after = make(store, job, to, NOW + 5, reason="because")

    assert (after.state, after.version, after.updated_at) == (to, job.version + 1, NOW + 5)
    assert {s: n for s, n in store.counts("b").items() if n} == {to: 1}
    assert store.in_flight() == (to in IN_FLIGHT)
    last = store.timeline(job.id)[-1]
    assert (last.at, last.state, last.stage, last.reason) == (NOW + 5, to, job.stage, "because")
    everything_agrees(redis, prefix)


def test_a_transition_sets_and_deletes_fields(store: Store) -> None:
    """A failure is set by the transition to it and deleted by the transition from it."""
    job = brought_to(store, State.PENDING)
    failure = Failure(Code.UPSTREAM_FAILED, Stage.VOICE, 'it said "no" — ни за что\n\0 [red]')

    failed = make(
        store, job, State.FAILED, fields={"failure": serialization.failure_text(failure), "settled": f"{NOW + 7:.6f}"}
    )
    again = make(store, failed, State.QUEUED, fields={"failure": None, "settled": None})

    assert (failed.failure, failed.settled_at) == (failure, NOW + 7)
    assert (again.failure, again.settled_at) == (None, None)


def test_a_finished_stage_leads_to_the_next(store: Store, redis: Redis, prefix: str) -> None:
    """The persona is stored by the transition to the song."""
    job = brought_to(store, State.PENDING)

    after = make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p", "voice_name": "ana"})

    assert (after.stage, after.persona_id, after.voice_name) == (Stage.MUSIC, "p", "ana")
    assert after.task_ids == {Stage.VOICE: f"task-voice-{job.id}"}
    everything_agrees(redis, prefix)


def test_clips_arrive_with_success(store: Store) -> None:
    """They are stored with upstream's names."""
    clips = (Clip("c", "succeeded", 'Ü "x" \\ [/]', "https://cdn.example/1.mp3", None, 61.25), Clip("d", "failed"))

    job = make(
        store, brought_to(store, State.PENDING), State.SUCCEEDED, fields={"clips": serialization.clips_text(clips)}
    )

    assert job.clips == clips


def test_credits_are_counted_for_the_job_the_batch_and_in_total(store: Store, redis: Redis, prefix: str) -> None:
    """Each charge is counted once, by its stage."""
    job = brought_to(store, State.PENDING, sung(batch="b"))
    make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
    charging(store, job.id)
    accepted(store, job.id)
    brought_to(store, State.PENDING, voice())

    assert one(store, job.id).credits == store.credits("b") == 19
    assert store.credits() == 23
    counters = redis.hgetall(f"{{{prefix}}}:counters")
    paid = {"voice.charges": "2", "voice.credits": "8", "music.charges": "1", "music.credits": "15"}
    today = {f"day.{int(NOW // 86_400)}": "23"}
    assert counters == {**paid, **today, "committed": "0", "lane_turn": counters["lane_turn"]}
    everything_agrees(redis, prefix)


def test_a_task_is_in_the_timeline(store: Store) -> None:
    """It is listed with its attempt."""
    job = brought_to(store, State.PENDING)

    assert [(step.state, step.attempt, step.task_id) for step in store.timeline(job.id)] == [
        (State.QUEUED, 0, None),
        (State.ADMITTED, 0, None),
        (State.CHARGING, 1, None),
        (State.PENDING, 1, f"task-voice-{job.id}"),
    ]


def test_texts_that_are_invalid_in_utf8_are_written(store: Store) -> None:
    """An unpaired surrogate from upstream costs a character, not the paid task."""
    job = brought_to(store, State.CHARGING)
    failure = Failure(Code.REFUSED, Stage.VOICE, "bad \ud800 words")

    after = make(
        store, job, State.FAILED, reason=failure.message, fields={"failure": serialization.failure_text(failure)}
    )

    assert after.failure == Failure(Code.REFUSED, Stage.VOICE, "bad \ufffd words")
    assert store.timeline(job.id)[-1].reason == "bad \ufffd words"


def test_one_call_applies_many_transitions(store: Store, redis: Redis, prefix: str) -> None:
    """Each result says whether its transition was applied."""
    job_ids = put(store, *numbered(300, batch="b"))
    store.admit(NOW, at_most=300)
    moves = [move(one(store, job_id), State.CANCELLED) for job_id in job_ids]
    make(store, one(store, job_ids[7]), State.QUEUED)

    written = store.apply(moves, NOW)

    assert [n for n, is_applied in enumerate(written) if not is_applied] == [7]
    assert store.counts("b")[State.CANCELLED] == 299
    everything_agrees(redis, prefix)


def test_no_transitions_are_no_call(store: Store, redis: Redis, prefix: str) -> None:
    """An empty list is allowed."""
    assert store.apply([], NOW) == []
    assert dump(redis, prefix) == {}


# ── stale transitions ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_stale_transition_changes_nothing(store: Store, redis: Redis, prefix: str, state: State, to: State) -> None:
    """No key changes after a transition for an older version."""
    job = brought_to(store, state, sung(batch="b"))
    fields = {"voice.task": "t-late", "failure": None, "settled": "9"}
    stale = Move(
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
    before = dump(redis, prefix)

    assert store.apply([stale], NOW + 9) == [False]
    assert dump(redis, prefix) == before


def test_a_transition_of_a_later_version_is_stale_too(store: Store, redis: Redis, prefix: str) -> None:
    """Only the exact version matches."""
    job = brought_to(store, State.PENDING)
    before = dump(redis, prefix)

    ahead = Move(job.id, job.version + 1, job.state, job.stage, State.SUCCEEDED)

    assert store.apply([ahead], NOW) == [False]
    assert dump(redis, prefix) == before


def test_a_transition_does_not_recreate_a_deleted_job(store: Store, redis: Redis, prefix: str) -> None:
    """No partial record is written."""
    job = brought_to(store, State.PENDING)
    redis.flushdb()

    assert store.apply([move(job, State.SUCCEEDED)], NOW) == [False]
    assert dump(redis, prefix) == {}


def test_of_two_transitions_of_one_job_in_one_call_the_first_is_applied(store: Store) -> None:
    """The second was decided for a version that is no longer current."""
    job = brought_to(store, State.PENDING)

    assert store.apply([move(job, State.SUCCEEDED), move(job, State.FAILED)], NOW) == [True, False]
    assert one(store, job.id).state is State.SUCCEEDED


def test_of_two_concurrent_transitions_exactly_one_is_applied(store: Store, valkey_url: str, prefix: str) -> None:
    """For example a poll and a webhook: credits are counted once, each timeline has one entry."""
    job_ids = put(store, *numbered(60))
    store.admit(NOW, at_most=60)
    claims = [charging(store, job_id) for job_id in job_ids]
    moves = [
        Move(c.job_id, c.version, State.CHARGING, c.stage, State.PENDING, due=NOW, credits=4, fields={"since": "1"})
        for c in claims
    ]
    together = Barrier(2)

    def apply(order: list[Move]) -> dict[str, bool]:
        client = connect(valkey_url)
        own = Store(client, prefix)
        together.wait()
        results = {transition.job_id: own.apply([transition], NOW)[0] for transition in order}
        client.close()
        return results

    with ThreadPoolExecutor(2) as threads:
        one_made, other_made = threads.map(apply, [moves, moves[::-1]])

    assert all(one_made[job_id] != other_made[job_id] for job_id in job_ids)
    assert store.credits() == 60 * 4
    assert {len(store.timeline(job_id)) for job_id in job_ids} == {4}
