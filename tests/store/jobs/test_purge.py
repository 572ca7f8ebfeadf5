"""Jobs that are not kept any more: they go with all that only they needed, and nothing that is still of use does."""

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
    """Let go of what was over before then; how many were."""
    return sum(store.purge(before + KEPT_S, keep=KEPT_S, **more))


@pytest.fixture(autouse=True)
def _agreed(redis: Redis, prefix: str, store: Store) -> object:
    yield
    everything_agrees(redis, prefix)
    assert audit(redis, prefix) == []


def about(redis: Redis, prefix: str, job_id: str) -> set[str]:
    """Where Redis knows the job, but for what was told of it."""
    told = {f"{{{prefix}}}:events", f"{{{prefix}}}:purged"}
    return {key for key, value in dump(redis, prefix).items() if job_id in f"{key} {value}"} - told


# ── what goes ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", OVER)
def test_a_job_that_has_been_over_for_long_goes_without_a_trace(
    redis: Redis, store: Store, prefix: str, state: State
) -> None:
    """Record, timeline, and wherever it was listed; what was spent stays counted."""
    job = brought_to(store, state, voice(batch="spring", start_within_s=60))
    spent = store.credits()

    assert purge(store, NOW + 1) == 1

    assert store.get([job.id]) == [None]
    assert store.timeline(job.id) == []
    assert list(store.ids()) == []
    assert about(redis, prefix, job.id) <= {f"{{{prefix}}}:voice:{job.spec.recording()}"}
    assert store.stands() == dict.fromkeys(store.stands(), 0)
    assert store.failures() == {}
    assert (store.credits(), store.charged()[Stage.VOICE]) == (spent, (spent // 4, spent))


def test_what_a_lost_order_may_have_cost_is_promised_until_its_job_goes(store: Store) -> None:
    """Of two that were given up, one goes: its batch has that much again. What upstream has named is spent for good."""
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


def test_what_an_index_has_that_does_not_belong_there_is_left_to_the_audit(
    redis: Redis, store: Store, prefix: str
) -> None:
    """The record is the truth, not the list."""
    job = brought_to(store, State.PENDING)
    listed = f"{{{prefix}}}:state:succeeded"
    redis.zadd(listed, {job.id: NOW, "ghost": NOW})

    assert purge(store, LATER) == 0
    assert one(store, job.id) == job
    redis.zrem(listed, job.id, "ghost")


@pytest.mark.parametrize("state", sorted(set(State) - FINAL - {State.WAITING}))
def test_what_is_not_over_stays_however_old_it_is(store: Store, state: State) -> None:
    """Unsure ones too: somebody has to look at them."""
    job = brought_to(store, state)

    assert purge(store, NOW + 10**9) == 0
    assert one(store, job.id) == job


def test_it_counts_from_the_last_move(store: Store) -> None:
    """Not from when it came, nor from when it was over first."""
    job = failed(store, brought_to(store, State.PENDING), Code.UPSTREAM_FAILED, NOW + 10)
    assert purge(store, NOW + 10) == 0

    store.apply([transitions.retry(job, NOW + 20)], NOW + 20)
    cancelled = make(store, one(store, job.id), State.CANCELLED, NOW + 30)

    assert purge(store, NOW + 30) == 0
    assert purge(store, NOW + 30.001) == 1
    assert cancelled.version > job.version


def test_one_call_looks_at_some_and_the_next_ones_at_the_rest(store: Store) -> None:
    """Redis does nothing else meanwhile. The oldest go first."""
    jobs = [make(store, one(store, each), State.CANCELLED, NOW + n) for n, each in enumerate(put(store, *numbered(7)))]

    steps = store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=3)

    assert next(steps) == 3
    assert set(store.ids()) == {job.id for job in jobs[3:]}
    assert list(steps) == [3, 1, 0, 0]


def test_the_key_of_a_job_that_went_is_free_again(store: Store) -> None:
    """For the same content, and for another."""
    brought_to(store, State.SUCCEEDED, voice(key="ana"))
    purge(store, LATER)

    again = voice(key="ana", name="Another Ana")

    assert store.enqueue([(again.id(), again)], LATER) == [Outcome.NEW]
    assert one(store, again.id()).credits == 0


# ── what keeps a job ──────────────────────────────────────────────────────────────────────────────


def test_a_job_whose_paid_order_may_still_deliver_stays(store: Store) -> None:
    """Until nobody asks any more."""
    pending = brought_to(store, State.PENDING)
    store.apply([transitions.cancel(pending, NOW)], NOW)

    assert purge(store, LATER) == 0

    make(store, one(store, pending.id), State.CANCELLED)
    assert purge(store, LATER) == 1


@pytest.mark.parametrize("told_of", ["job", "batch"])
def test_a_job_stays_until_somebody_was_told_of_it_and_of_its_batch(
    queue: VoiceQueue, store: Store, told_of: str
) -> None:
    """What is sent needs them."""
    hook = "https://hooks.example/"
    if told_of == "batch":
        queue.call_back_batch("spring", hook)
    brought_to(store, State.SUCCEEDED, voice(batch="spring", callback_url=hook if told_of == "job" else None))
    [callback] = store.callbacks.hand_out(LATER, patience=60)

    assert purge(store, LATER) == 0

    store.callbacks.delivered(callback, LATER)
    assert purge(store, LATER) == 1


def test_a_job_whose_songs_are_to_be_archived_stays(redis: Redis, prefix: str) -> None:
    """Until they are, or were given up."""
    store = Store(redis, prefix, archives=True)
    kept, given_up = song_of(store, key="a"), song_of(store, key="b")
    assert purge(store, LATER) == 0

    claims = [store.archive.claim(job.id, "me", LATER, lease=60) for job in (kept, given_up)]
    done, failed = filter(None, claims)
    assert store.archive.done(done, LATER)
    assert store.archive.give_up(failed, LATER, "the link is gone")

    assert purge(store, LATER) == 2


# ── what is kept of it ────────────────────────────────────────────────────────────────────────────


def test_a_voice_that_was_bought_outlives_its_job(store: Store) -> None:
    """A new song on the same recording sings with it and pays for no voice."""
    song = song_of(store, reuse=True)
    assert purge(store, LATER) == 1

    [again] = put(store, sung(reuse=True), now=LATER)

    assert (one(store, again).stage, one(store, again).persona_id) == (Stage.MUSIC, song.persona_id)
    assert [(each.persona_id, each.job_id) for each in store.voices.made()] == [(song.persona_id, song.id)]


def test_a_job_that_left_its_voice_to_others_leaves_nobody_waiting(store: Store) -> None:
    """Who was to make it was cancelled and went; whoever comes next makes it."""
    [first] = put(store, sung(key="first", reuse=True))
    store.apply([transitions.cancel(one(store, first), NOW)], NOW)
    assert purge(store, LATER) == 1

    [second] = put(store, sung(key="second", reuse=True), now=LATER)

    assert one(store, second).state is State.QUEUED


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def batch(store: Store, name: str = "spring") -> Batch:
    """It is there."""
    found = store.batch(name)
    assert found is not None
    return found


def test_a_batch_tells_of_the_jobs_that_are_kept_and_of_all_that_was_spent(store: Store) -> None:
    """So its limit of credits holds for all of them."""
    store.limit_batch("spring", max_credits=20)
    song_of(store, batch="spring", key="a")
    put(store, sung(batch="spring", key="b"), now=LATER)

    assert purge(store, LATER) == 1

    assert (batch(store).total, batch(store).credits) == (1, 19)
    assert store.admit(LATER).by_stage == {}


def test_a_batch_goes_with_its_last_job(redis: Redis, store: Store, prefix: str) -> None:
    """With all that it had."""
    for spec in numbered(2, batch="spring"):
        brought_to(store, State.SUCCEEDED, spec)

    steps = store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=1)
    while not next(steps):
        pass
    assert store.batches() == ["spring"]
    assert sum(steps) == 1

    assert (store.batches(), store.batch("spring")) == ([], None)
    assert [key for key in dump(redis, prefix) if ":batch:" in key] == []


def test_where_a_batch_is_told_of_outlives_its_jobs(queue: VoiceQueue, store: Store) -> None:
    """Those that are still to come are told of there as well."""
    queue.call_back_batch("spring", "https://hooks.example/")
    brought_to(store, State.CANCELLED, voice(batch="spring"))
    [callback] = store.callbacks.hand_out(LATER, patience=60)
    store.callbacks.delivered(callback, LATER)
    purge(store, LATER)

    brought_to(store, State.SUCCEEDED, voice(batch="spring"), now=LATER)

    assert len(store.callbacks.hand_out(LATER, patience=60)) == 1


def test_limits_of_a_batch_outlive_its_jobs(store: Store) -> None:
    """What was spent of them too: the next ones of that name pay from the rest."""
    store.limit_batch("spring", max_credits=20)
    song_of(store, batch="spring", key="a")
    purge(store, LATER)

    put(store, sung(batch="spring", key="b"), now=LATER)

    assert (batch(store).max_credits, batch(store).total, batch(store).credits) == (20, 1, 19)
    assert store.admit(LATER).by_stage == {}


@pytest.mark.parametrize("name", [None, "spring"])
def test_the_name_of_a_voice_is_free_again_when_no_job_of_it_is_kept(
    redis: Redis, store: Store, prefix: str, name: str | None
) -> None:
    """It may stand for another recording then, in a batch of that name or without one."""
    song_of(store, batch=name, voice="ana", key="a")
    [kept] = put(store, sung(batch=name, voice="ana", key="b"), now=LATER)
    other = sung(batch=name, voice="ana", key="c", audio_url="https://recordings.example/another.wav")
    assert purge(store, LATER) == 1
    assert store.enqueue([(other.id(), other)], LATER) == [Outcome.OTHER_VOICE]

    make(store, one(store, kept), State.CANCELLED, LATER)
    assert purge(store, LATER + 1) == 1

    assert [key for key in dump(redis, prefix) if ":voice:named-" in key] == []
    assert store.enqueue([(other.id(), other)], LATER) == [Outcome.NEW]


def test_a_voice_that_was_never_made_leaves_nothing_behind(redis: Redis, store: Store, prefix: str) -> None:
    """That it failed was of use to those who waited for it."""
    failed(store, brought_to(store, State.PENDING, voice(reuse=True)), Code.UPSTREAM_FAILED)

    assert purge(store, LATER) == 1
    assert [key for key in dump(redis, prefix) if ":voice:" in key] == []


def test_many_jobs_that_stay_keep_none_from_going(store: Store) -> None:
    """However old they are."""
    for number in range(7):
        brought_to(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/", key=f"told-{number}"))
    free = [make(store, one(store, each), State.SUCCEEDED, NOW + 1) for each in pending(store, 3)]

    assert sum(store.purge(LATER + KEPT_S, keep=KEPT_S, at_most=2)) == 3
    assert not {job.id for job in free} & set(store.ids())


def pending(store: Store, count: int) -> list[str]:
    """Ordered voices."""
    return [brought_to(store, State.PENDING, spec).id for spec in numbered(count)]


# ── callbacks that were given up ──────────────────────────────────────────────────────────────────


def test_a_callback_that_was_given_up_so_long_ago_goes_and_then_its_job(
    redis: Redis, store: Store, prefix: str
) -> None:
    """Until then somebody may have it sent again."""
    brought_to(store, State.SUCCEEDED, voice(callback_url="https://hooks.example/"))
    [callback] = store.callbacks.hand_out(NOW, patience=60)
    store.callbacks.give_up(callback, LATER, "410", tried=True)

    assert purge(store, LATER) == 0
    assert (purge(store, LATER + 1), purge(store, LATER + 1)) == (1, 1)

    assert list(store.ids()) == []
    assert [key for key in dump(redis, prefix) if ":callback" in key] == []


def test_an_earlier_callback_of_a_job_that_went_says_why_it_cannot_be_sent(store: Store) -> None:
    """Only the last one keeps its job."""
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
