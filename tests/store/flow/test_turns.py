"""Fairness: priority first, within a priority batches take turns; jobs that may not start are skipped."""

from __future__ import annotations

from collections import Counter

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    dump_keys,
    enqueue_jobs,
    get_job,
)
from tests.support.jobs import SONG, voice, voice_with_song
from voicequeue import Priority, Stage, State, VoiceJob
from voicequeue.domain.claims import Admitted
from voicequeue.domain.status import BacklogLane
from voicequeue.storage.job_store import JobStore


def voices(count: int, batch: str | None = None, **fields: object) -> list[VoiceJob]:
    """Return voices of one batch, with keys that name it."""
    return [voice(batch=batch, key=f"{batch}-{fields.get('priority', '')}-{n}", **fields) for n in range(count)]


def song(**fields: object) -> VoiceJob:
    """Return a song without a voice stage, 15 credits."""
    return VoiceJob.model_validate({"persona_id": "p", "song": SONG, **fields})


def started(store: JobStore, at_most: int = 1000, now: float = NOW) -> list[str]:
    """Admit jobs and return their batches in that order."""
    admitted = store.admit(now, at_most=at_most)
    flat = [job_id for stage in admitted.by_stage.values() for job_id in stage]
    return [job.spec.batch or "" for job in store.get(flat) if job is not None]


def only(admitted: Admitted) -> str:
    """Return the one admitted job."""
    [[job_id]] = admitted.by_stage.values()
    return job_id


# ── turns ─────────────────────────────────────────────────────────────────────────────────────────


def test_batches_take_turns(store: JobStore, redis: Redis, prefix: str) -> None:
    """The size and age of a batch do not matter; jobs without a batch count as one batch."""
    enqueue_jobs(store, *voices(50, "large"))
    enqueue_jobs(store, *voices(3, "small"), *voices(3), now=NOW + 1)

    assert started(store, 5) == ["large", "small", "", "large", "small"]
    assert started(store, 7) == ["", "large", "small", "", "large", "large", "large"]
    assert_consistent(redis, prefix)


def test_within_a_batch_the_order_is_kept(store: JobStore) -> None:
    """Batches take turns, jobs of a batch do not."""
    first, second = enqueue_jobs(store, *voices(20, "a")), enqueue_jobs(store, *voices(20, "b"))

    [job_ids] = store.admit(NOW, at_most=30).by_stage.values()

    assert job_ids == [job_id for pair in zip(first[:15], second[:15], strict=True) for job_id in pair]


def test_a_later_batch_gets_its_turn_after_one_round(store: JobStore) -> None:
    """Thousands of jobs may precede it."""
    for name in ("a", "b", "c"):
        enqueue_jobs(store, *voices(40, name))
    started(store, 50)

    enqueue_jobs(store, *voices(20, "new"), now=NOW + 1)

    assert started(store, 4).count("new") == 1
    assert Counter(started(store, 16)) == {"a": 4, "b": 4, "c": 4, "new": 4}


def test_a_batch_of_fifty_is_not_starved_by_one_of_thousands(store: JobStore) -> None:
    """While both wait, the same number of each starts."""
    enqueue_jobs(store, *voices(2_000, "large"))
    started(store, 10)
    enqueue_jobs(store, *voices(50, "small"), now=NOW + 1)

    assert Counter(started(store, 100)) == {"large": 50, "small": 50}


def test_priority_goes_before_turns(store: JobStore) -> None:
    """A high job is admitted next; bulk jobs wait for all others."""
    enqueue_jobs(store, *voices(30, "large", priority=Priority.BULK))
    enqueue_jobs(store, *voices(3, "mine"))
    enqueue_jobs(store, *voices(1, "urgent", priority=Priority.HIGH), now=NOW + 9)

    assert started(store, 6) == ["urgent", "mine", "mine", "mine", "large", "large"]


def test_a_batch_has_its_turn_in_each_priority(store: JobStore) -> None:
    """Its bulk jobs do not only wait behind its own high ones."""
    enqueue_jobs(store, *voices(2, "a", priority=Priority.HIGH), *voices(2, "a"), *voices(2, "b"))

    assert started(store) == ["a", "a", "a", "b", "a", "b"]


def test_batches_of_one_call_take_turns_in_call_order(store: JobStore) -> None:
    """Their names do not matter."""
    names = [f"batch-{number * 7 % 20}" for number in range(20)]
    enqueue_jobs(store, *(job for name in names for job in voices(2, name)))

    assert started(store, 20) == names


def test_songs_go_before_the_voices_of_their_batch(store: JobStore) -> None:
    """Started jobs finish first, also if they were enqueued later."""
    enqueue_jobs(store, *voices(2, "b"))
    enqueue_jobs(store, song(batch="b", key="s"), now=NOW + 99)

    assert [store.admit(NOW + 100, at_most=1).by_stage.popitem()[0] for _ in range(3)] == [
        Stage.MUSIC,
        Stage.VOICE,
        Stage.VOICE,
    ]


# ── lanes ─────────────────────────────────────────────────────────────────────────────


def test_the_backlog_is_listed_by_priority_and_batch(store: JobStore) -> None:
    """Lanes are in admission order, with their size and the age of the oldest job."""
    enqueue_jobs(store, *voices(3, "a"), now=NOW)
    enqueue_jobs(store, song(batch="a", key="s"), now=NOW - 50)
    enqueue_jobs(store, *voices(2, priority=Priority.HIGH), now=NOW + 1)
    enqueue_jobs(store, song(batch="b", key="t"), now=NOW + 7)

    assert store.lanes() == [
        BacklogLane(Priority.HIGH, None, 2, NOW + 1),
        BacklogLane(Priority.NORMAL, "a", 4, NOW - 50, with_voice=1),
        BacklogLane(Priority.NORMAL, "b", 1, NOW + 7, with_voice=1),
    ]
    assert store.counts_by_state()[State.QUEUED] == 7


def test_an_empty_backlog_has_no_lanes(store: JobStore) -> None:
    """There is none before the first job and after the last."""
    assert store.lanes() == []
    [job_id] = enqueue_jobs(store, voice(batch="b"))
    apply_transition(store, get_job(store, job_id), State.CANCELLED)

    assert store.lanes() == []


# ── skipped jobs ──────────────────────────────────────────────────────────────────────────────────


def test_a_paused_batch_is_skipped_until_it_is_resumed(store: JobStore) -> None:
    """Other batches continue; its jobs keep their positions."""
    enqueue_jobs(store, *voices(3, "a"), *voices(3, "b"), *voices(1))
    store.set_batch_limits("a", paused=True)

    assert started(store) == ["b", "", "b", "b"]
    assert started(store) == []
    store.set_batch_limits("a", paused=False)
    assert started(store) == ["a", "a", "a"]


def test_a_batch_respects_its_in_flight_limit(store: JobStore) -> None:
    """Every state in flight counts; a settled job frees a slot."""
    enqueue_jobs(store, *voices(5, "a"), *voices(4, "b"))
    store.set_batch_limits("a", max_in_flight=2)
    assert Counter(started(store)) == {"a": 2, "b": 4}
    first, second, *_ = store.list_ids(batch="a")
    claim_admitted(store, first)
    accept_order(store, first)
    claim_admitted(store, second)

    assert started(store) == []
    apply_transition(store, get_job(store, first), State.SUCCEEDED)
    assert started(store) == ["a"]
    apply_transition(store, get_job(store, second), State.UNSURE)
    assert started(store) == ["a"]


def test_a_batch_respects_its_credit_limit(store: JobStore, redis: Redis, prefix: str) -> None:
    """Reserved credits count; other batches continue."""
    enqueue_jobs(store, *(voice_with_song(batch="a", key=f"a-{n}") for n in range(5)), *voices(1, "b"))
    store.set_batch_limits("a", max_credits=3 * 19 + 18)

    assert Counter(started(store)) == {"a": 3, "b": 1}
    for job_id in list(store.list_ids(batch="a"))[:3]:
        claim_admitted(store, job_id)
        pending = accept_order(store, job_id)
        apply_transition(store, pending, State.ADMITTED, to_stage=Stage.MUSIC)
        assert started(store) == []
        claim_admitted(store, job_id)
        apply_transition(store, accept_order(store, job_id), State.SUCCEEDED)
        assert started(store) == []
    assert store.credits_spent("a") == 3 * 19
    store.set_batch_limits("a", max_credits=4 * 19)
    assert started(store) == ["a"]
    assert_consistent(redis, prefix)


def test_unspent_credits_are_available_to_the_next_job(store: JobStore) -> None:
    """A job that fails before its song releases the song's credits."""
    first, _ = enqueue_jobs(store, *(voice_with_song(batch="a", key=f"a-{n}") for n in range(2)))
    store.set_batch_limits("a", max_credits=4 + 19)
    assert started(store) == ["a"]
    claim_admitted(store, first)
    pending = accept_order(store, first)
    assert started(store) == []

    apply_transition(store, pending, State.FAILED)

    assert started(store) == ["a"]


def test_a_batch_may_be_limited_before_it_has_jobs(store: JobStore) -> None:
    """It is not listed because of that."""
    assert store.set_batch_limits("later", max_in_flight=1)
    assert store.batches() == []
    assert store.batch("later") is None

    enqueue_jobs(store, *voices(3, "later"))

    assert started(store) == ["later"]


@pytest.mark.parametrize(
    ("limit", "value", "other"), [("paused", True, False), ("max_credits", 0, 9), ("max_in_flight", 3, 4)]
)
def test_batch_limits_report_whether_they_changed(store: JobStore, limit: str, value: int, other: int) -> None:
    """Setting the same value twice reports no change; other limits stay."""
    enqueue_jobs(store, voice(batch="b"))

    assert store.set_batch_limits("b", **{limit: value})
    assert not store.set_batch_limits("b", **{limit: value})
    assert not store.set_batch_limits("b", **{limit: None})
    batch = store.batch("b")
    assert batch is not None
    assert getattr(batch, "is_paused" if limit == "paused" else limit) == value
    assert store.set_batch_limits("b", **{limit: other})


def test_resuming_a_batch_that_was_never_paused_changes_nothing(store: JobStore) -> None:
    """It reports no change."""
    enqueue_jobs(store, voice(batch="b"))

    assert not store.set_batch_limits("b", paused=False)


# ── stages ────────────────────────────────────────────────────────────────────────────────────────


def test_while_voices_are_paused_songs_start(store: JobStore) -> None:
    """Also behind earlier voices, and in batches with both."""
    enqueue_jobs(store, *voices(3, "a"), song(batch="a", key="s"))
    enqueue_jobs(store, song(batch="b", key="t"))
    assert store.flow_control.pause(NOW, stage=Stage.VOICE, reason="Ana")

    assert set(store.admit(NOW).by_stage) == {Stage.MUSIC}
    assert store.admit(NOW) == Admitted({})
    assert store.flow_control.resume(NOW, stage=Stage.VOICE)
    assert len(store.admit(NOW).by_stage[Stage.VOICE]) == 3


def test_while_songs_are_paused_voices_continue(store: JobStore, redis: Redis, prefix: str) -> None:
    """A song returns to the backlog once, frees its slot, and is not admitted repeatedly."""
    job_id, other = enqueue_jobs(store, voice_with_song(key="1"), voice_with_song(key="2"))
    store.flow_control.pause(NOW, stage=Stage.MUSIC)
    assert store.admit(NOW, at_most=1).by_stage == {Stage.VOICE: [job_id]}
    claim_admitted(store, job_id)
    apply_transition(store, accept_order(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC)

    assert claim_submit(store, job_id, Stage.MUSIC, "h", NOW, lease=9) is None

    assert (get_job(store, job_id).state, store.count_in_flight()) == (State.QUEUED, 0)
    moves = len(store.timeline(job_id))
    for _ in range(3):
        store.admit(NOW)
    assert get_job(store, other).state is State.ADMITTED
    assert len(store.timeline(job_id)) == moves
    store.flow_control.resume(NOW, stage=Stage.MUSIC)
    assert only(store.admit(NOW)) == job_id
    assert_consistent(redis, prefix)


def test_with_both_stages_paused_nothing_starts(store: JobStore) -> None:
    """Each stage is resumed by itself."""
    enqueue_jobs(store, voice(), song())
    for stage in Stage:
        store.flow_control.pause(NOW, stage=stage)

    assert store.admit(NOW) == Admitted({})
    store.flow_control.resume(NOW, stage=Stage.MUSIC)
    assert set(store.admit(NOW).by_stage) == {Stage.MUSIC}


@pytest.mark.parametrize("odd", ["", "b:jobs", "*", "ü", "x" * 101])
def test_an_invalid_batch_name_is_rejected(store: JobStore, redis: Redis, prefix: str, odd: str) -> None:
    """It might denote another key."""
    enqueue_jobs(store, voice(batch="b"))
    before = dump_keys(redis, prefix)

    with pytest.raises(ValueError, match="1 to 100 characters"):
        store.set_batch_limits(odd, paused=True)

    assert dump_keys(redis, prefix) == before
