"""The producer's queue: jobs in, and what became of them, with Redis alone."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.life import NOW, REACHABLE, accepted, brought_to, charging, dump, make, one
from tests.support.jobs import LYRICS, SONG, URL, numbered, sung, voice
from voicequeue import (
    InvalidJob,
    KeyConflict,
    Rejection,
    Stage,
    State,
    UnknownBatch,
    UnknownJob,
    VoiceJob,
    VoiceQueue,
)
from voicequeue.domain.portions import CHUNK
from voicequeue.storage.job_store import Store

SETTLED = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE]


# ── enqueue ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_put_into_the_line_and_given_back(queue: VoiceQueue) -> None:
    """As it stands in Redis, with the time that it came."""
    before = time.time()

    job = queue.enqueue(sung(batch="b", name="Ana"))

    assert job == queue.get(job.id)
    assert (job.state, job.stage, job.spec) == (State.QUEUED, Stage.VOICE, sung(batch="b", name="Ana"))
    accuracy = 0.1  # of Redis's time, as the process carries it on
    assert before - accuracy <= job.created_at <= time.time() + accuracy


def test_a_job_may_be_given_as_its_fields(queue: VoiceQueue) -> None:
    """As JSON has them; it is the same job."""
    job = queue.enqueue({"audio_url": URL, "song": {"prompt": LYRICS, "title": "A song"}, "key": "k"})

    assert job.spec == sung(key="k")


def test_a_wrong_job_is_refused_and_leaves_no_trace(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """Every field that is wrong is named."""
    with pytest.raises(InvalidJob, match=r"audio_url.*priority"):
        queue.enqueue({"audio_url": "nowhere", "priority": "urgent"})

    assert dump(redis, prefix) == {}


def test_without_a_key_each_call_is_a_new_job(queue: VoiceQueue) -> None:
    """Nothing is taken for the same that nobody called the same."""
    assert queue.enqueue(voice()).id != queue.enqueue(voice()).id


def test_the_same_key_with_the_same_content_is_the_same_job(queue: VoiceQueue, store: Store) -> None:
    """Whoever asks again gets the job as it stands by now, its song perhaps made already."""
    job = queue.enqueue(sung(key="order-7"))
    make(store, job, State.CANCELLED)

    again = queue.enqueue(sung(key="order-7"))

    assert (again.id, again.state) == (job.id, State.CANCELLED)
    assert queue.status().states[State.CANCELLED] == 1


def test_the_same_key_with_other_content_is_an_error(queue: VoiceQueue) -> None:
    """It names the job that has the key, and that job stays as it is."""
    job = queue.enqueue(sung(key="order-7"))

    with pytest.raises(KeyConflict) as caught:
        queue.enqueue(voice(key="order-7"))

    assert (caught.value.key, caught.value.job_id) == ("order-7", job.id)
    assert queue.get(job.id) == job


# ── enqueue_many ──────────────────────────────────────────────────────────────────────────────────


def test_a_receipt_counts_what_became_of_many_jobs(queue: VoiceQueue) -> None:
    """New, known, rejected, and what the new ones will cost."""
    queue.enqueue_many(numbered(2))

    receipt = queue.enqueue_many([*numbered(3), sung(), {"audio_url": "nowhere"}, voice(key="key-0", name="other")])

    assert (receipt.new, receipt.known, receipt.rejected) == (2, 2, 2)
    assert receipt.credits == 4 + 19


def test_a_rejection_names_its_place_and_the_reason(queue: VoiceQueue) -> None:
    """Over all chunks, counted from 0; the others are taken."""
    jobs: list[VoiceJob | dict[str, Any]] = [*numbered(CHUNK * 2)]
    jobs[3] = {"audio_url": "nowhere"}
    jobs[CHUNK + 7] = voice(key="key-5", name="another")
    jobs[CHUNK * 2 - 1] = {}

    receipt = queue.enqueue_many(jobs)

    found = {rejection.index: type(rejection.error) for rejection in receipt.rejections}
    assert found == {3: InvalidJob, CHUNK + 7: KeyConflict, CHUNK * 2 - 1: InvalidJob}
    assert (receipt.new, receipt.rejected) == (CHUNK * 2 - 3, 3)


def test_rejections_can_be_taken_as_they_come(queue: VoiceQueue) -> None:
    """Then the receipt keeps none of them: there may be a million."""
    taken: list[Rejection] = []

    receipt = queue.enqueue_many([{}, voice(), {}], on_reject=taken.append)

    assert [rejection.index for rejection in taken] == [0, 2]
    assert (receipt.rejected, receipt.rejections) == (2, [])


def test_jobs_are_taken_from_a_generator_as_they_are_written(queue: VoiceQueue) -> None:
    """A chunk at a time, with one on its way; those written before are held by nobody, so memory stays flat."""
    alive: list[weakref.ref[VoiceJob]] = []

    def telling() -> Iterator[VoiceJob]:
        for number in range(CHUNK * 4):
            if number % CHUNK == 0:
                assert number - CHUNK <= queue.status().states[State.QUEUED] <= number
            job = voice(key=f"key-{number}")
            alive.append(weakref.ref(job))
            yield job

    queue.enqueue_many(telling())

    assert sum(ref() is not None for ref in alive[: CHUNK * 3]) == 0


def test_a_generator_that_breaks_loses_nothing_of_what_it_gave(queue: VoiceQueue) -> None:
    """What was written stays written; with keys, the whole can be given again."""

    def breaking() -> Iterator[VoiceJob]:
        yield from numbered(CHUNK + 1)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        queue.enqueue_many(breaking())

    again = queue.enqueue_many(numbered(CHUNK + 1))
    assert (again.new, again.known) == (1, CHUNK)


def test_many_jobs_stand_in_the_line_in_their_order(queue: VoiceQueue) -> None:
    """Over all chunks, though each is written in one moment."""
    queue.enqueue_many(numbered(CHUNK * 3, batch="b"))

    assert [job.spec.key for job in queue.jobs(batch="b")] == [f"key-{n}" for n in range(CHUNK * 3)]
    assert [job.spec.key for job in queue.jobs(state="queued")] == [f"key-{n}" for n in range(CHUNK * 3)]


def test_no_jobs_are_no_error(queue: VoiceQueue) -> None:
    """The receipt is empty."""
    receipt = queue.enqueue_many([])

    assert (receipt.new, receipt.known, receipt.rejected, receipt.credits) == (0, 0, 0, 0)


def test_a_persona_goes_to_its_song_at_once(queue: VoiceQueue, store: Store) -> None:
    """It costs a song and no voice."""
    receipt = queue.enqueue_many([VoiceJob(persona_id="p", song=SONG)])

    assert receipt.credits == 15
    assert list(store.admit(NOW, at_most=1).by_stage) == [Stage.MUSIC]


# ── get, wait ─────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_nobody_knows_is_an_error(queue: VoiceQueue) -> None:
    """Whatever is asked about it; the error carries the id."""
    asks: list[Callable[[str], object]] = [queue.get, queue.timeline, queue.cancel, queue.retry, queue.wait]
    for ask in asks:
        with pytest.raises(UnknownJob) as caught:
            ask("nosuchjob")
        assert caught.value.job_id == "nosuchjob"


@pytest.mark.parametrize("state", SETTLED)
def test_waiting_for_a_settled_job_gives_it_at_once(queue: VoiceQueue, store: Store, state: State) -> None:
    """Final, or waiting for a person."""
    job = brought_to(store, state)

    assert queue.wait(job.id, timeout=0) == job


def test_waiting_ends_when_the_job_settles(queue: VoiceQueue, store: Store, redis: Redis) -> None:
    """By the event of it, not by looking now and then; events of other jobs do not end it."""
    job, other = brought_to(store, State.PENDING), brought_to(store, State.PENDING)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(queue.wait, job.id, timeout=30)
        eventually(lambda: _somebody_waits(redis))
        make(store, other, State.SUCCEEDED)
        assert not waiting.done()
        began = time.monotonic()
        make(store, job, State.SUCCEEDED)
        assert waiting.result().state is State.SUCCEEDED

    assert time.monotonic() - began < 3


def _somebody_waits(redis: Redis) -> bool:
    return any(client["cmd"] == "xread" and "b" in client["flags"] for client in redis.client_list())


def test_waiting_goes_on_while_the_job_moves(queue: VoiceQueue, store: Store, redis: Redis) -> None:
    """Through both stages, to the end."""
    job = queue.enqueue(sung())
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(queue.wait, job.id, timeout=30)
        for stage in Stage:
            eventually(lambda: _somebody_waits(redis))
            store.admit(NOW, at_most=1)
            charging(store, job.id)
            pending = accepted(store, job.id)
            if stage is Stage.VOICE:
                make(store, pending, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
        assert not waiting.done()
        make(store, one(store, job.id), State.SUCCEEDED)
        assert waiting.result().persona_id == "p"


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_waiting_too_long_is_a_timeout(queue: VoiceQueue, timeout: float) -> None:
    """After the time that was given, and not after a whole look."""
    job = queue.enqueue(voice())
    began = time.monotonic()

    with pytest.raises(TimeoutError, match=job.id):
        queue.wait(job.id, timeout=timeout)

    assert time.monotonic() - began < 3


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_by_batch_by_state_and_by_both(queue: VoiceQueue, store: Store) -> None:
    """A batch in the order it came; a state by name or by its value."""
    first, second = queue.enqueue(voice(batch="b")), queue.enqueue(voice(batch="b"))
    alone = queue.enqueue(voice())
    make(store, first, State.CANCELLED)

    assert [job.id for job in queue.jobs(batch="b")] == [first.id, second.id]
    assert [job.id for job in queue.jobs(state="queued")] == [second.id, alone.id]
    assert [job.id for job in queue.jobs(state=State.QUEUED, batch="b")] == [second.id]
    assert {job.id for job in queue.jobs()} == {first.id, second.id, alone.id}


def test_a_wrong_question_is_refused_at_once(queue: VoiceQueue) -> None:
    """Not when the first job is read, which may be far from the mistake."""
    with pytest.raises(UnknownBatch, match="nosuchbatch"):
        queue.jobs(batch="nosuchbatch")
    with pytest.raises(ValueError, match="nosuchstate"):
        queue.jobs(state="nosuchstate")


def test_jobs_can_be_changed_while_they_are_listed(queue: VoiceQueue) -> None:
    """Cancelling each one of a long list leaves none out."""
    queue.enqueue_many(numbered(CHUNK * 2 + 10))

    for job in queue.jobs(state="queued"):
        queue.cancel(job.id)

    assert queue.status().states[State.QUEUED] == 0


def test_a_batch_tells_its_jobs_by_state_and_what_they_spent(queue: VoiceQueue, store: Store) -> None:
    """It is settled when each job is final or waits for a person."""
    succeeded = brought_to(store, State.SUCCEEDED, voice(batch="b"))
    queued = queue.enqueue(voice(batch="b"))

    batch = queue.batch("b")
    assert (batch.name, batch.total, batch.credits, batch.is_settled) == ("b", 2, 4, False)
    assert batch.states[State.SUCCEEDED] == batch.states[State.QUEUED] == 1

    make(store, queued, State.CANCELLED)
    assert queue.batch("b").is_settled
    assert succeeded.credits == 4


@pytest.mark.parametrize("state", REACHABLE)
def test_a_batch_is_settled_in_a_settled_state_only(queue: VoiceQueue, store: Store, state: State) -> None:
    """Whatever else its jobs do, somebody has to wait for them."""
    brought_to(store, state, voice(batch="b"))

    assert queue.batch("b").is_settled is (state in SETTLED)


def test_batches_are_listed_the_newest_first(queue: VoiceQueue) -> None:
    """One that nobody used is an error."""
    for name in ("spring", "summer"):
        queue.enqueue(voice(batch=name))

    assert [batch.name for batch in queue.batches()] == ["summer", "spring"]
    for ask in (queue.batch, queue.status):
        with pytest.raises(UnknownBatch) as caught:
            ask("winter")
        assert caught.value.name == "winter"


def test_the_status_tells_the_whole_queue_or_one_batch(queue: VoiceQueue, store: Store) -> None:
    """States, slots, credits, the gate and the workers that are alive."""
    brought_to(store, State.PENDING, voice(batch="b"))
    brought_to(store, State.UNSURE, voice())
    store.controls.close("paused", "by Ana", time.time())
    store.pulses["worker"].heard("one@host", time.time())
    store.pulses["worker"].heard("dead@host", time.time() - 60)

    whole, batch = queue.status(), queue.status("b")

    assert (whole.states[State.PENDING], whole.states[State.UNSURE]) == (1, 1)
    assert (batch.states[State.PENDING], batch.states[State.UNSURE]) == (1, 0)
    assert (whole.in_flight, whole.credits, batch.credits, whole.workers) == (1, 4, 4, 1)
    assert [(hold.reason, hold.detail) for hold in whole.gate.holds] == [("paused", "by Ana")]
    assert not whole.gate.open
