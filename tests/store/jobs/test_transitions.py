"""Moves: each is made whole, if its job still stands where it was decided on, or not at all."""

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


# ── made ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_legal_move_changes_the_record_and_all_that_follows_from_it(
    store: Store, redis: Redis, prefix: str, state: State, to: State
) -> None:
    """State, version, index, slot, batch count and timeline, all at once."""
    job = brought_to(store, state, sung(batch="b"))

    after = make(store, job, to, NOW + 5, reason="because")

    assert (after.state, after.version, after.updated_at) == (to, job.version + 1, NOW + 5)
    assert {s: n for s, n in store.counts("b").items() if n} == {to: 1}
    assert store.in_flight() == (to in IN_FLIGHT)
    last = store.timeline(job.id)[-1]
    assert (last.at, last.state, last.stage, last.reason) == (NOW + 5, to, job.stage, "because")
    everything_agrees(redis, prefix)


def test_a_move_writes_its_fields_and_takes_others_away(store: Store) -> None:
    """A failure is written with the move into it, and is gone with the move out of it."""
    job = brought_to(store, State.PENDING)
    failure = Failure(Code.UPSTREAM_FAILED, Stage.VOICE, 'it said "no" — ни за что\n\0 [red]')

    failed = make(
        store, job, State.FAILED, fields={"failure": serialization.failure_text(failure), "settled": f"{NOW + 7:.6f}"}
    )
    again = make(store, failed, State.QUEUED, fields={"failure": None, "settled": None})

    assert (failed.failure, failed.settled_at) == (failure, NOW + 7)
    assert (again.failure, again.settled_at) == (None, None)


def test_a_stage_that_is_done_leads_to_the_next(store: Store, redis: Redis, prefix: str) -> None:
    """The persona is stored in the very move that goes on to the song."""
    job = brought_to(store, State.PENDING)

    after = make(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p", "voice_name": "ana"})

    assert (after.stage, after.persona_id, after.voice_name) == (Stage.MUSIC, "p", "ana")
    assert after.task_ids == {Stage.VOICE: f"task-voice-{job.id}"}
    everything_agrees(redis, prefix)


def test_clips_arrive_with_success(store: Store) -> None:
    """As upstream named them, whatever the names are."""
    clips = (Clip("c", "succeeded", 'Ü "x" \\ [/]', "https://cdn.example/1.mp3", None, 61.25), Clip("d", "failed"))

    job = make(
        store, brought_to(store, State.PENDING), State.SUCCEEDED, fields={"clips": serialization.clips_text(clips)}
    )

    assert job.clips == clips


def test_credits_are_counted_on_the_job_its_batch_and_in_all(store: Store, redis: Redis, prefix: str) -> None:
    """Each charge once, by its stage."""
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


def test_a_task_is_told_in_the_timeline(store: Store) -> None:
    """With the attempt that bought it."""
    job = brought_to(store, State.PENDING)

    assert [(step.state, step.attempt, step.task_id) for step in store.timeline(job.id)] == [
        (State.QUEUED, 0, None),
        (State.ADMITTED, 0, None),
        (State.CHARGING, 1, None),
        (State.PENDING, 1, f"task-voice-{job.id}"),
    ]


def test_words_that_utf8_cannot_hold_are_written_all_the_same(store: Store) -> None:
    """Upstream's half a surrogate pair costs a character, and not the task that was paid for."""
    job = brought_to(store, State.CHARGING)
    failure = Failure(Code.REFUSED, Stage.VOICE, "bad \ud800 words")

    after = make(
        store, job, State.FAILED, reason=failure.message, fields={"failure": serialization.failure_text(failure)}
    )

    assert after.failure == Failure(Code.REFUSED, Stage.VOICE, "bad \ufffd words")
    assert store.timeline(job.id)[-1].reason == "bad \ufffd words"


def test_many_moves_are_made_in_one_call(store: Store, redis: Redis, prefix: str) -> None:
    """Each is told in its place whether it was made."""
    job_ids = put(store, *numbered(300, batch="b"))
    store.admit(NOW, at_most=300)
    moves = [move(one(store, job_id), State.CANCELLED) for job_id in job_ids]
    make(store, one(store, job_ids[7]), State.QUEUED)

    written = store.apply(moves, NOW)

    assert [n for n, made in enumerate(written) if not made] == [7]
    assert store.counts("b")[State.CANCELLED] == 299
    everything_agrees(redis, prefix)


def test_no_moves_are_no_call(store: Store, redis: Redis, prefix: str) -> None:
    """An empty list is allowed."""
    assert store.apply([], NOW) == []
    assert dump(redis, prefix) == {}


# ── lost ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("state", "to"), LEGAL)
def test_a_lost_move_changes_nothing_at_all(store: Store, redis: Redis, prefix: str, state: State, to: State) -> None:
    """Not one key differs after a move that was decided on an older version of its job."""
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


def test_a_move_of_the_future_is_lost_too(store: Store, redis: Redis, prefix: str) -> None:
    """Only the very version counts."""
    job = brought_to(store, State.PENDING)
    before = dump(redis, prefix)

    ahead = Move(job.id, job.version + 1, job.state, job.stage, State.SUCCEEDED)

    assert store.apply([ahead], NOW) == [False]
    assert dump(redis, prefix) == before


def test_a_move_of_a_job_that_is_gone_brings_it_not_back(store: Store, redis: Redis, prefix: str) -> None:
    """Not as half a record."""
    job = brought_to(store, State.PENDING)
    redis.flushdb()

    assert store.apply([move(job, State.SUCCEEDED)], NOW) == [False]
    assert dump(redis, prefix) == {}


def test_of_two_moves_of_one_job_in_one_call_the_first_is_made(store: Store) -> None:
    """The second was decided on what is no more."""
    job = brought_to(store, State.PENDING)

    assert store.apply([move(job, State.SUCCEEDED), move(job, State.FAILED)], NOW) == [True, False]
    assert one(store, job.id).state is State.SUCCEEDED


def test_of_two_that_move_a_job_at_once_exactly_one_does(store: Store, valkey_url: str, prefix: str) -> None:
    """A poll and a webhook, say: the credits are counted once, and one line is in each timeline."""
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
        found = {each.job_id: own.apply([each], NOW)[0] for each in order}
        client.close()
        return found

    with ThreadPoolExecutor(2) as threads:
        one_made, other_made = threads.map(apply, [moves, moves[::-1]])

    assert all(one_made[job_id] != other_made[job_id] for job_id in job_ids)
    assert store.credits() == 60 * 4
    assert {len(store.timeline(job_id)) for job_id in job_ids} == {4}
