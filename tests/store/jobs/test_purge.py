"""Purges: settled jobs are deleted after the retention period with all their data, and nothing that is still needed."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    brought_to,
    charging,
    dump,
    everything_agrees,
    failed,
    make,
    one,
    put,
    song_of,
)
from tests.support.jobs import numbered, sung, voice
from voicequeue import Code, Stage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder, Outcome
from voicequeue.domain.job import FINAL
from voicequeue.domain.status import Batch
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.callbacks import Undeliverable
from voicequeue.storage.job_store import Store

OVER = sorted(FINAL)
LATER = NOW + 1_000

#: How long jobs are kept here (seconds).
KEPT_S = 50.0


def purge(store: Store, before: float, **more: int) -> int:
    """Purge jobs settled before that time and return their number."""
    return sum(store.purge(before + KEPT_S, keep=KEPT_S, **more))


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: Store) -> object:
    yield
    everything_agrees(redis, prefix)
    assert audit(redis, prefix) == []


def keys_of(redis: Redis, prefix: str, job_id: str) -> set[str]:
    """Return the keys that contain a job, without its callbacks."""
    streams = {f"{{{prefix}}}:events", f"{{{prefix}}}:purged"}
    return {key for key, value in dump(redis, prefix).items() if job_id in f"{key} {value}"} - streams


# ── purged jobs ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", OVER)
def test_a_job_is_purged_with_all_its_data(redis: Redis, store: Store, prefix: str, state: State) -> None:
    """Its record, timeline and index entries are deleted; its credits stay counted."""
    job = brought_to(store, state, voice(batch="spring", start_within_s=60))
    spent = store.credits()

    assert purge(store, NOW + 1) == 1

    assert store.get([job.id]) == [None]
    assert store.timeline(job.id) == []
    assert list(store.ids()) == []
    assert keys_of(redis, prefix, job.id) <= {f"{{{prefix}}}:voice:{job.spec.recording()}"}
    assert store.stands() == dict.fromkeys(store.stands(), 0)
    assert store.failures() == {}
    assert (store.credits(), store.charged()[Stage.VOICE]) == (spent, (spent // 4, spent))


def test_the_cost_of_a_lost_order_is_reserved_until_its_job_is_purged(store: Store) -> None:
    """Of two given up, one is purged: its batch has the credits again. Reported orders stay spent."""
    first, second = (brought_to(store, State.UNSURE, voice(key=key, batch="spring")) for key in "ab")
    store.apply([transitions.order_again(first, NOW)], NOW)
    charging(store, first.id)
    store.book(ChargedOrder(first.id, Stage.VOICE, 1, "t"), NOW, reason="named")
    make(store, one(store, first.id), State.UNSURE)
    store.apply([transitions.abandon(one(store, first.id), NOW)], NOW)
    store.apply([transitions.abandon(second, NOW + 10)], NOW + 10)
    batch = store.batch("spring")
    assert batch is not None
    assert (batch.credits, batch.committed) == (4, 2 * 4)

    assert purge(store, NOW + 1) == 1

    batch = store.batch("spring")
    assert batch is not None
    assert (batch.credits, batch.committed) == (4, 4)


def test_a_wrong_index_entry_is_left_to_the_audit(redis: Redis, store: Store, prefix: str) -> None:
    """The record is authoritative, not the index."""
    job = brought_to(store, State.PENDING)
    listed = f"{{{prefix}}}:state:succeeded"
    redis.zadd(listed, {job.id: NOW, "ghost": NOW})

    assert purge(store, LATER) == 0
    assert one(store, job.id) == job
    redis.zrem(listed, job.id, "ghost")


@pytest.mark.parametrize("state", sorted(set(State) - FINAL - {State.WAITING}))
def test_a_job_that_is_not_settled_stays(store: Store, state: State) -> None:
    """An unsure job stays too: it needs a person."""
    job = brought_to(store, state)

    assert purge(store, NOW + 10**9) == 0
    assert one(store, job.id) == job


def test_the_retention_starts_at_the_last_transition(store: Store) -> None:
    """It starts neither at the creation nor at the first final state."""
    job = failed(store, brought_to(store, State.PENDING), Code.UPSTREAM_FAILED, NOW + 10)
    assert purge(store, NOW + 10) == 0

    store.apply([transitions.retry(job, NOW + 20)], NOW + 20)
    cancelled = make(store, one(store, job.id), State.CANCELLED, NOW + 30)

    assert purge(store, NOW + 30) == 0
    assert purge(store, NOW + 30.001) == 1
    assert cancelled.version > job.version


def test_each_step_examines_some_jobs(store: Store) -> None:
    """A step blocks Redis briefly. The oldest jobs are purged first."""
    jobs = [
        make(store, one(store, job_id), State.CANCELLED, NOW + n) for n, job_id in enumerate(put(store, *numbered(7)))
    ]

    steps = store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=3)

    assert next(steps) == 3
    assert set(store.ids()) == {job.id for job in jobs[3:]}
    assert list(steps) == [3, 1, 0, 0]


def test_the_key_of_a_purged_job_can_be_used_again(store: Store) -> None:
    """It can be used for the same content, and for another."""
    brought_to(store, State.SUCCEEDED, voice(key="ana"))
    purge(store, LATER)

    again = voice(key="ana", name="Another Ana")

    assert store.enqueue([(again.id(), again)], LATER) == [Outcome.NEW]
    assert one(store, again.id()).credits == 0


# ── jobs that stay ────────────────────────────────────────────────────────────────────────────────


def test_a_job_with_a_late_result_pending_stays(store: Store) -> None:
    """It stays until it is no longer polled."""
    pending = brought_to(store, State.PENDING)
    store.apply([transitions.cancel(pending, NOW)], NOW)

    assert purge(store, LATER) == 0

    make(store, one(store, pending.id), State.CANCELLED)
    assert purge(store, LATER) == 1


@pytest.mark.parametrize("told_of", ["job", "batch"])
def test_a_job_stays_until_its_callbacks_are_delivered(queue: VoiceQueue, store: Store, told_of: str) -> None:
    """Callbacks of the job and of its batch need the record."""
    hook = "https://hooks.example/"
    if told_of == "batch":
        queue.call_back_batch("spring", hook)
    brought_to(store, State.SUCCEEDED, voice(batch="spring", callback_url=hook if told_of == "job" else None))
    [callback] = store.callbacks.hand_out(LATER, patience=60)

    assert purge(store, LATER) == 0

    store.callbacks.delivered(callback, LATER)
    assert purge(store, LATER) == 1


def test_a_job_whose_songs_are_not_archived_stays(redis: Redis, prefix: str) -> None:
    """It stays until they are archived or given up."""
    store = Store(redis, prefix, archives=True)
    kept, given_up = song_of(store, key="a"), song_of(store, key="b")
    assert purge(store, LATER) == 0

    claims = [store.archive.claim(job.id, "me", LATER, lease=60) for job in (kept, given_up)]
    done, failed = filter(None, claims)
    assert store.archive.done(done, LATER)
    assert store.archive.give_up(failed, LATER, "the link is gone")

    assert purge(store, LATER) == 2


# ── what remains ──────────────────────────────────────────────────────────────────────────────────


def test_a_created_voice_outlives_its_job(store: Store) -> None:
    """A new song on the same recording uses it and pays for no voice."""
    song = song_of(store, reuse=True)
    assert purge(store, LATER) == 1

    [again] = put(store, sung(reuse=True), now=LATER)

    assert (one(store, again).stage, one(store, again).persona_id) == (Stage.MUSIC, song.persona_id)
    assert [(persona.persona_id, persona.job_id) for persona in store.voices.made()] == [(song.persona_id, song.id)]


def test_a_purged_creator_leaves_no_job_waiting(store: Store) -> None:
    """The creator was cancelled and purged; the next job creates the voice."""
    [first] = put(store, sung(key="first", reuse=True))
    store.apply([transitions.cancel(one(store, first), NOW)], NOW)
    assert purge(store, LATER) == 1

    [second] = put(store, sung(key="second", reuse=True), now=LATER)

    assert one(store, second).state is State.QUEUED


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def batch(store: Store, name: str = "spring") -> Batch:
    """Return an existing batch."""
    existing = store.batch(name)
    assert existing is not None
    return existing


def test_a_batch_counts_remaining_jobs_and_all_credits(store: Store) -> None:
    """So its credit limit applies to all its jobs."""
    store.limit_batch("spring", max_credits=20)
    song_of(store, batch="spring", key="a")
    put(store, sung(batch="spring", key="b"), now=LATER)

    assert purge(store, LATER) == 1

    assert (batch(store).total, batch(store).credits) == (1, 19)
    assert store.admit(LATER).by_stage == {}


def test_a_batch_is_deleted_with_its_last_job(redis: Redis, store: Store, prefix: str) -> None:
    """All its keys are deleted."""
    for spec in numbered(2, batch="spring"):
        brought_to(store, State.SUCCEEDED, spec)

    steps = store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=1)
    while not next(steps):
        pass
    assert store.batches() == ["spring"]
    assert sum(steps) == 1

    assert (store.batches(), store.batch("spring")) == ([], None)
    assert [key for key in dump(redis, prefix) if ":batch:" in key] == []


def test_the_callback_url_of_a_batch_outlives_its_jobs(queue: VoiceQueue, store: Store) -> None:
    """Later jobs of the batch use it."""
    queue.call_back_batch("spring", "https://hooks.example/")
    brought_to(store, State.CANCELLED, voice(batch="spring"))
    [callback] = store.callbacks.hand_out(LATER, patience=60)
    store.callbacks.delivered(callback, LATER)
    purge(store, LATER)

    brought_to(store, State.SUCCEEDED, voice(batch="spring"), now=LATER)

    assert len(store.callbacks.hand_out(LATER, patience=60)) == 1


def test_limits_of_a_batch_outlive_its_jobs(store: Store) -> None:
    """Its spent credits stay too: later jobs of the batch pay from the rest."""
    store.limit_batch("spring", max_credits=20)
    song_of(store, batch="spring", key="a")
    purge(store, LATER)

    put(store, sung(batch="spring", key="b"), now=LATER)

    assert (batch(store).max_credits, batch(store).total, batch(store).credits) == (20, 1, 19)
    assert store.admit(LATER).by_stage == {}


@pytest.mark.parametrize("name", [None, "spring"])
def test_the_name_of_a_voice_can_be_used_again_after_its_last_job(
    redis: Redis, store: Store, prefix: str, name: str | None
) -> None:
    """It may denote another recording, in a batch of that name or without one."""
    song_of(store, batch=name, voice="ana", key="a")
    [kept] = put(store, sung(batch=name, voice="ana", key="b"), now=LATER)
    other = sung(batch=name, voice="ana", key="c", audio_url="https://recordings.example/another.wav")
    assert purge(store, LATER) == 1
    assert store.enqueue([(other.id(), other)], LATER) == [Outcome.OTHER_VOICE]

    make(store, one(store, kept), State.CANCELLED, LATER)
    assert purge(store, LATER + 1) == 1

    assert [key for key in dump(redis, prefix) if ":voice:named-" in key] == []
    assert store.enqueue([(other.id(), other)], LATER) == [Outcome.NEW]


def test_a_voice_that_was_never_created_leaves_no_key(redis: Redis, store: Store, prefix: str) -> None:
    """Its failure was needed only by waiting jobs."""
    failed(store, brought_to(store, State.PENDING, voice(reuse=True)), Code.UPSTREAM_FAILED)

    assert purge(store, LATER) == 1
    assert [key for key in dump(redis, prefix) if ":voice:" in key] == []


def test_jobs_that_stay_do_not_block_others(store: Store) -> None:
    """Older jobs that stay are skipped."""
    for number in range(7):
        brought_to(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/", key=f"told-{number}"))
    free = [make(store, one(store, job_id), State.SUCCEEDED, NOW + 1) for job_id in pending(store, 3)]

    assert sum(store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=2)) == 3
    assert not {job.id for job in free} & set(store.ids())


def pending(store: Store, count: int) -> list[str]:
    """Return jobs with pending voices."""
    return [brought_to(store, State.PENDING, spec).id for spec in numbered(count)]


# ── undelivered callbacks ─────────────────────────────────────────────────────────────────────────


def test_an_old_undelivered_callback_is_purged_and_then_its_job(redis: Redis, store: Store, prefix: str) -> None:
    """Before that, an operator can have it delivered again."""
    brought_to(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/"))
    [callback] = store.callbacks.hand_out(NOW, patience=60)
    store.callbacks.give_up(callback, LATER, "410", tried=True)

    assert purge(store, LATER) == 0
    assert (purge(store, LATER + 1), purge(store, LATER + 1)) == (1, 1)

    assert list(store.ids()) == []
    assert [key for key in dump(redis, prefix) if ":callback" in key] == []


def test_an_earlier_callback_of_a_purged_job_reports_why_it_cannot_be_sent(store: Store) -> None:
    """Only the last callback keeps its job."""
    unsure = brought_to(store, State.UNSURE, voice(callback_url="https://hooks.example/"))
    [doubt] = store.callbacks.hand_out(NOW, patience=60)
    store.callbacks.give_up(doubt, LATER, "410", tried=True)
    store.apply([transitions.abandon(unsure, NOW)], NOW)
    [end] = store.callbacks.hand_out(LATER, patience=60)
    store.callbacks.delivered(end, LATER)
    assert purge(store, LATER) == 1

    store.callbacks.redeliver([doubt], LATER)

    [call] = store.callbacks.claim(store.callbacks.hand_out(LATER, patience=60), LATER, lease=60)
    with pytest.raises(Undeliverable, match="the job was purged, or its batch has no callback URL any longer"):
        call.url()
    store.callbacks.give_up(doubt, LATER, "the job is gone", tried=False)
