"""Purges: settled jobs are deleted after the retention period with all their data, and nothing that is still needed."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    apply_transition,
    assert_consistent,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    job_with_song,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import FailureCode, Stage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder, EnqueueOutcome
from voicequeue.domain.states import SETTLED
from voicequeue.domain.status import Batch
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.callbacks import UndeliverableError
from voicequeue.storage.job_store import JobStore

OVER = sorted(SETTLED)
LATER = NOW + 1_000

#: How long jobs are kept here (seconds).
KEPT_S = 50.0


def purge(store: JobStore, before: float, **more: int) -> int:
    """Purge jobs settled before that time and return their number."""
    return sum(store.purge(before + KEPT_S, retention_s=KEPT_S, **more))


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: JobStore) -> object:
    yield
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []


def keys_of(redis: Redis, prefix: str, job_id: str) -> set[str]:
    """Return the keys that contain a job, without its callbacks."""
    streams = {f"{{{prefix}}}:events", f"{{{prefix}}}:purged"}
    return {key for key, value in dump_keys(redis, prefix).items() if job_id in f"{key} {value}"} - streams


# ── purged jobs ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", OVER)
def test_a_job_is_purged_with_all_its_data(redis: Redis, store: JobStore, prefix: str, state: State) -> None:
    """Its record, timeline and index entries are deleted; its credits stay counted."""
    job = job_in_state(store, state, voice(batch="spring", start_within_s=60))
    spent = store.credits_spent()

    assert purge(store, NOW + 1) == 1

    assert store.get([job.id]) == [None]
    assert store.timeline(job.id) == []
    assert list(store.list_ids()) == []
    assert keys_of(redis, prefix, job.id) <= {f"{{{prefix}}}:voice:{job.spec.recording_voice()}"}
    assert store.counts_by_state_and_stage() == dict.fromkeys(store.counts_by_state_and_stage(), 0)
    assert store.failures_by_code() == {}
    assert (store.credits_spent(), store.orders_by_stage()[Stage.VOICE]) == (spent, (spent // 4, spent))


def test_the_cost_of_a_lost_order_stays_reserved_when_its_job_is_purged(store: JobStore) -> None:
    """Of two given up, one is purged: upstream may have charged it for the batch. Reported orders stay spent."""
    first, second = (job_in_state(store, State.UNSURE, voice(key=key, batch="spring")) for key in "ab")
    store.apply_transitions([transitions.resubmit(first, NOW)], NOW)
    claim_admitted(store, first.id)
    store.count_order(ChargedOrder(first.id, Stage.VOICE, 1, "t"), NOW, reason="named")
    apply_transition(store, get_job(store, first.id), State.UNSURE)
    store.apply_transitions([transitions.abandon(get_job(store, first.id), NOW)], NOW)
    store.apply_transitions([transitions.abandon(second, NOW + 10)], NOW + 10)
    batch = store.batch("spring")
    assert batch is not None
    assert (batch.credits, batch.reserved_credits) == (4, 2 * 4)

    assert purge(store, NOW + 1) == 1

    batch = store.batch("spring")
    assert batch is not None
    assert (batch.credits, batch.reserved_credits) == (4, 2 * 4)


def test_a_wrong_index_entry_is_left_to_the_audit(redis: Redis, store: JobStore, prefix: str) -> None:
    """The record is authoritative, not the index."""
    job = job_in_state(store, State.PENDING)
    listed = f"{{{prefix}}}:state:succeeded"
    redis.zadd(listed, {job.id: NOW, "ghost": NOW})

    assert purge(store, LATER) == 0
    assert get_job(store, job.id) == job
    redis.zrem(listed, job.id, "ghost")


@pytest.mark.parametrize("state", sorted(set(State) - SETTLED - {State.WAITING}))
def test_a_job_that_is_not_settled_stays(store: JobStore, state: State) -> None:
    """An unsure job stays too: it needs a person."""
    job = job_in_state(store, state)

    assert purge(store, NOW + 10**9) == 0
    assert get_job(store, job.id) == job


def test_the_retention_starts_at_the_last_transition(store: JobStore) -> None:
    """It starts neither at the creation nor at the first final state."""
    job = fail_job(store, job_in_state(store, State.PENDING), FailureCode.UPSTREAM_FAILED, NOW + 10)
    assert purge(store, NOW + 10) == 0

    store.apply_transitions([transitions.retry(job, NOW + 20)], NOW + 20)
    cancelled = apply_transition(store, get_job(store, job.id), State.CANCELLED, NOW + 30)

    assert purge(store, NOW + 30) == 0
    assert purge(store, NOW + 30.001) == 1
    assert cancelled.version > job.version


def test_each_step_examines_some_jobs(store: JobStore) -> None:
    """A step blocks Redis briefly. The oldest jobs are purged first."""
    jobs = [
        apply_transition(store, get_job(store, job_id), State.CANCELLED, NOW + n)
        for n, job_id in enumerate(enqueue_jobs(store, *numbered_voices(7)))
    ]

    steps = store.purge(LATER + KEPT_S, retention_s=KEPT_S, at_most=3)

    assert next(steps) == 3
    assert set(store.list_ids()) == {job.id for job in jobs[3:]}
    assert list(steps) == [3, 1, 0, 0]


def test_the_key_of_a_purged_job_can_be_used_again(store: JobStore) -> None:
    """It can be used for the same content, and for another."""
    job_in_state(store, State.SUCCEEDED, voice(key="ana"))
    purge(store, LATER)

    again = voice(key="ana", name="Another Ana")

    assert store.enqueue([(again.job_id(), again)], LATER) == [EnqueueOutcome.NEW]
    assert get_job(store, again.job_id()).credits == 0


# ── jobs that stay ────────────────────────────────────────────────────────────────────────────────


def test_a_job_with_a_late_result_pending_stays(store: JobStore) -> None:
    """It stays until it is no longer polled."""
    pending = job_in_state(store, State.PENDING)
    store.apply_transitions([transitions.cancel(pending, NOW)], NOW)

    assert purge(store, LATER) == 0

    apply_transition(store, get_job(store, pending.id), State.CANCELLED)
    assert purge(store, LATER) == 1


@pytest.mark.parametrize("told_of", ["job", "batch"])
def test_a_job_stays_until_its_callbacks_are_delivered(queue: VoiceQueue, store: JobStore, told_of: str) -> None:
    """Callbacks of the job and of its batch need the record."""
    hook = "https://hooks.example/"
    if told_of == "batch":
        queue.set_batch_callback("spring", hook)
    job_in_state(store, State.SUCCEEDED, voice(batch="spring", callback_url=hook if told_of == "job" else None))
    [callback] = store.callbacks.lease(LATER, lease_s=60)

    assert purge(store, LATER) == 0

    store.callbacks.mark_delivered(callback, LATER)
    assert purge(store, LATER) == 1


def test_a_job_whose_songs_are_not_archived_stays(redis: Redis, prefix: str) -> None:
    """It stays until they are archived or given up."""
    store = JobStore(redis, prefix, archives=True)
    kept, given_up = job_with_song(store, key="a"), job_with_song(store, key="b")
    assert purge(store, LATER) == 0

    claims = [store.archive.claim(job.id, "me", LATER, lease_s=60) for job in (kept, given_up)]
    done, failed = filter(None, claims)
    assert store.archive.mark_done(done, LATER)
    assert store.archive.mark_failed(failed, LATER, "the link is gone")

    assert purge(store, LATER) == 2


# ── what remains ──────────────────────────────────────────────────────────────────────────────────


def test_a_created_voice_outlives_its_job(store: JobStore) -> None:
    """A new song on the same recording uses it and pays for no voice."""
    song = job_with_song(store, reuse=True)
    assert purge(store, LATER) == 1

    [again] = enqueue_jobs(store, voice_with_song(reuse=True), now=LATER)

    assert (get_job(store, again).stage, get_job(store, again).persona_id) == (Stage.MUSIC, song.persona_id)
    assert [(persona.persona_id, persona.job_id) for persona in store.personas.list_all()] == [
        (song.persona_id, song.id)
    ]


def test_a_purged_creator_leaves_no_job_waiting(store: JobStore) -> None:
    """The creator was cancelled and purged; the next job creates the voice."""
    [first] = enqueue_jobs(store, voice_with_song(key="first", reuse=True))
    store.apply_transitions([transitions.cancel(get_job(store, first), NOW)], NOW)
    assert purge(store, LATER) == 1

    [second] = enqueue_jobs(store, voice_with_song(key="second", reuse=True), now=LATER)

    assert get_job(store, second).state is State.QUEUED


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def batch(store: JobStore, name: str = "spring") -> Batch:
    """Return an existing batch."""
    existing = store.batch(name)
    assert existing is not None
    return existing


def test_a_batch_counts_remaining_jobs_and_all_credits(store: JobStore) -> None:
    """So its credit limit applies to all its jobs."""
    store.set_batch_limits("spring", max_credits=20)
    job_with_song(store, batch="spring", key="a")
    enqueue_jobs(store, voice_with_song(batch="spring", key="b"), now=LATER)

    assert purge(store, LATER) == 1

    assert (batch(store).total, batch(store).credits) == (1, 19)
    assert store.admit(LATER).by_stage == {}


def test_a_batch_is_deleted_with_its_last_job(redis: Redis, store: JobStore, prefix: str) -> None:
    """All its keys are deleted."""
    for spec in numbered_voices(2, batch="spring"):
        job_in_state(store, State.SUCCEEDED, spec)

    steps = store.purge(LATER + KEPT_S, retention_s=KEPT_S, at_most=1)
    while not next(steps):
        pass
    assert store.batches() == ["spring"]
    assert sum(steps) == 1

    assert (store.batches(), store.batch("spring")) == ([], None)
    assert [key for key in dump_keys(redis, prefix) if ":batch:" in key] == []


def test_the_callback_url_of_a_batch_outlives_its_jobs(queue: VoiceQueue, store: JobStore) -> None:
    """Later jobs of the batch use it."""
    queue.set_batch_callback("spring", "https://hooks.example/")
    job_in_state(store, State.CANCELLED, voice(batch="spring"))
    [callback] = store.callbacks.lease(LATER, lease_s=60)
    store.callbacks.mark_delivered(callback, LATER)
    purge(store, LATER)

    job_in_state(store, State.SUCCEEDED, voice(batch="spring"), now=LATER)

    assert len(store.callbacks.lease(LATER, lease_s=60)) == 1


def test_limits_of_a_batch_outlive_its_jobs(store: JobStore) -> None:
    """Its spent credits stay too: later jobs of the batch pay from the rest."""
    store.set_batch_limits("spring", max_credits=20)
    job_with_song(store, batch="spring", key="a")
    purge(store, LATER)

    enqueue_jobs(store, voice_with_song(batch="spring", key="b"), now=LATER)

    assert (batch(store).max_credits, batch(store).total, batch(store).credits) == (20, 1, 19)
    assert store.admit(LATER).by_stage == {}


@pytest.mark.parametrize("name", [None, "spring"])
def test_the_name_of_a_voice_can_be_used_again_after_its_last_job(
    redis: Redis, store: JobStore, prefix: str, name: str | None
) -> None:
    """It may denote another recording, in a batch of that name or without one."""
    job_with_song(store, batch=name, voice="ana", key="a")
    [kept] = enqueue_jobs(store, voice_with_song(batch=name, voice="ana", key="b"), now=LATER)
    other = voice_with_song(batch=name, voice="ana", key="c", audio_url="https://recordings.example/another.wav")
    assert purge(store, LATER) == 1
    assert store.enqueue([(other.job_id(), other)], LATER) == [EnqueueOutcome.OTHER_VOICE]

    apply_transition(store, get_job(store, kept), State.CANCELLED, LATER)
    assert purge(store, LATER + 1) == 1

    assert [key for key in dump_keys(redis, prefix) if ":voice:named-" in key] == []
    assert store.enqueue([(other.job_id(), other)], LATER) == [EnqueueOutcome.NEW]


def test_a_voice_that_was_never_created_leaves_no_key(redis: Redis, store: JobStore, prefix: str) -> None:
    """Its failure was needed only by waiting jobs."""
    fail_job(store, job_in_state(store, State.PENDING, voice(reuse=True)), FailureCode.UPSTREAM_FAILED)

    assert purge(store, LATER) == 1
    assert [key for key in dump_keys(redis, prefix) if ":voice:" in key] == []


def test_jobs_that_stay_do_not_block_others(store: JobStore) -> None:
    """Older jobs that stay are skipped."""
    for number in range(7):
        job_in_state(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/", key=f"told-{number}"))
    free = [apply_transition(store, get_job(store, job_id), State.SUCCEEDED, NOW + 1) for job_id in pending(store, 3)]

    assert sum(store.purge(LATER + KEPT_S, retention_s=KEPT_S, at_most=2)) == 3
    assert not {job.id for job in free} & set(store.list_ids())


def pending(store: JobStore, count: int) -> list[str]:
    """Return jobs with pending voices."""
    return [job_in_state(store, State.PENDING, spec).id for spec in numbered_voices(count)]


# ── undelivered callbacks ─────────────────────────────────────────────────────────────────────────


def test_an_old_undelivered_callback_is_purged_and_then_its_job(redis: Redis, store: JobStore, prefix: str) -> None:
    """Before that, an operator can have it delivered again."""
    job_in_state(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/"))
    [callback] = store.callbacks.lease(NOW, lease_s=60)
    store.callbacks.mark_undelivered(callback, LATER, "410", is_attempted=True)

    assert purge(store, LATER) == 0
    assert (purge(store, LATER + 1), purge(store, LATER + 1)) == (1, 1)

    assert list(store.list_ids()) == []
    assert [key for key in dump_keys(redis, prefix) if ":callback" in key] == []


def test_an_earlier_callback_of_a_purged_job_reports_why_it_cannot_be_sent(store: JobStore) -> None:
    """Only the last callback keeps its job."""
    unsure = job_in_state(store, State.UNSURE, voice(callback_url="https://hooks.example/"))
    [callback_id] = store.callbacks.lease(NOW, lease_s=60)
    store.callbacks.mark_undelivered(callback_id, LATER, "410", is_attempted=True)
    store.apply_transitions([transitions.abandon(unsure, NOW)], NOW)
    [end] = store.callbacks.lease(LATER, lease_s=60)
    store.callbacks.mark_delivered(end, LATER)
    assert purge(store, LATER) == 1

    store.callbacks.redeliver([callback_id], LATER)

    [call] = store.callbacks.claim(store.callbacks.lease(LATER, lease_s=60), LATER, lease_s=60)
    with pytest.raises(
        UndeliverableError, match="the job was purged, or its batch or budget has no callback URL any longer"
    ):
        call.url()
    store.callbacks.mark_undelivered(callback_id, LATER, "the job is gone", is_attempted=False)
