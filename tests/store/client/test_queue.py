"""The client with Redis alone: enqueueing, reading, waiting, listing."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.life import (
    NOW,
    REACHABLE,
    accept_order,
    apply_transition,
    claim_admitted,
    dump_keys,
    get_job,
    job_in_state,
)
from tests.support.jobs import LYRICS, SONG, URL, numbered_voices, voice, voice_with_song
from voicequeue import (
    BatchNotFoundError,
    EnqueueItemResult,
    InvalidJobError,
    JobNotFoundError,
    KeyConflictError,
    Stage,
    State,
    VoiceJob,
    VoiceQueue,
    WaitTimeoutError,
)
from voicequeue.domain.portions import PORTION_JOBS_MAX
from voicequeue.storage.job_store import JobStore

SETTLED = [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE]


# ── enqueue ───────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_enqueued_and_returned(queue: VoiceQueue) -> None:
    """The returned job equals the stored one."""
    before = time.time()

    job = queue.enqueue(voice_with_song(batch="b", name="Ana"))

    assert job == queue.get(job.id)
    assert (job.state, job.stage, job.spec) == (State.QUEUED, Stage.VOICE, voice_with_song(batch="b", name="Ana"))
    accuracy = 0.1  # of Redis's time, as the process carries it on
    assert before - accuracy <= job.created_at <= time.time() + accuracy


def test_every_kind_of_job_is_returned_as_it_is_stored(valkey_url: str, prefix: str) -> None:
    """A new job is not read, so each field that is derived from its content is compared with its record."""
    items: dict[str, dict[str, Any]] = {
        "a voice": {"audio_url": URL},
        "a persona": {"persona_id": "p", "song": {"prompt": LYRICS}},
        "all that a record does not keep": {"audio_url": URL, "audio_sha256": "a" * 64, "source_row": 7},
        "all that it keeps": {
            "audio_url": URL,
            "batch": "b",
            "name": "Ana",
            "key": "k",
            "priority": "high",
            "metadata": {"b": "2", "a": "1"},
            "max_credits": 30,
            "start_within_s": 60,
            "callback_url": URL,
        },
        "the key of a message": {"audio_url": URL, "key": "message-42"},
        "the creator of a voice": {"audio_url": URL, "batch": "b", "voice": "v"},
        "a job that waits for it": {"audio_url": URL, "batch": "b", "voice": "v", "song": {"prompt": LYRICS}},
        "the creator of a reusable voice": {"audio_url": URL, "reuse": True},
        "several songs": {"audio_url": URL, "songs": [{"prompt": LYRICS}, {"prompt": LYRICS}], "source_row": 8},
    }
    with VoiceQueue(valkey_url, prefix=prefix, namespace="shop", app="web") as queue:
        enqueued = {name: queue.enqueue(item) for name, item in items.items()}

        assert [name for name, job in enqueued.items() if job != queue.get(job.id)] == []


def test_a_new_job_needs_one_command(queue: VoiceQueue, redis: Redis) -> None:
    """Its record is not read back; that of an existing job is."""
    queue.enqueue(voice())  # connects, and reads what does not change
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]  # redis-py's types leave it out
        queue.enqueue(voice_with_song(key="k"))
        queue.enqueue(voice_with_song(key="k"))
        own = (entry["command"] for entry in monitor.listen() if entry["client_type"] != "lua")
        commands = [command.split()[0] for command in islice(own, 3)]

    assert commands == ["EVALSHA", "EVALSHA", "HGETALL"]


def test_a_job_may_be_given_as_its_fields(queue: VoiceQueue) -> None:
    """A mapping, as decoded from JSON, becomes the same job."""
    job = queue.enqueue({"audio_url": URL, "song": {"prompt": LYRICS, "title": "A song"}, "key": "k"})

    assert job.spec == voice_with_song(key="k")


def test_an_invalid_job_is_rejected_and_leaves_no_trace(queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """The error names every field that is wrong."""
    with pytest.raises(InvalidJobError, match=r"audio_url.*priority"):
        queue.enqueue({"audio_url": "nowhere", "priority": "urgent"})

    assert dump_keys(redis, prefix) == {}


def test_without_a_key_each_call_is_a_new_job(queue: VoiceQueue) -> None:
    """Equal content alone does not make two jobs the same."""
    assert queue.enqueue(voice()).id != queue.enqueue(voice()).id


def test_the_same_key_with_the_same_content_is_the_same_job(queue: VoiceQueue, store: JobStore) -> None:
    """A repeated call returns the job as it is by then, perhaps finished."""
    job = queue.enqueue(voice_with_song(key="order-7"))
    apply_transition(store, job, State.CANCELLED)

    again = queue.enqueue(voice_with_song(key="order-7"))

    assert (again.id, again.state) == (job.id, State.CANCELLED)
    assert queue.status().states[State.CANCELLED] == 1


def test_the_same_key_with_other_content_is_an_error(queue: VoiceQueue) -> None:
    """The error names the job that has the key; that job is unchanged."""
    job = queue.enqueue(voice_with_song(key="order-7"))

    with pytest.raises(KeyConflictError) as caught:
        queue.enqueue(voice(key="order-7"))

    assert (caught.value.key, caught.value.job_id) == ("order-7", job.id)
    assert queue.get(job.id) == job


# ── enqueue_many ──────────────────────────────────────────────────────────────────────────────────


def test_the_summary_counts_new_known_and_rejected_jobs(queue: VoiceQueue) -> None:
    """And the price of the new ones."""
    queue.enqueue_many(numbered_voices(2))

    summary = queue.enqueue_many(
        [*numbered_voices(3), voice_with_song(), {"audio_url": "nowhere"}, voice(key="key-0", name="other")]
    )

    assert (summary.new, summary.existing, summary.rejected) == (2, 2, 2)
    assert summary.credits == 4 + 19


def test_a_rejection_has_its_index_and_the_reason(queue: VoiceQueue) -> None:
    """Indexes count over all chunks, from 0; the other jobs are enqueued."""
    jobs: list[VoiceJob | dict[str, Any]] = [*numbered_voices(PORTION_JOBS_MAX * 2)]
    jobs[3] = {"audio_url": "nowhere"}
    jobs[PORTION_JOBS_MAX + 7] = voice(key="key-5", name="another")
    jobs[PORTION_JOBS_MAX * 2 - 1] = {}

    summary = queue.enqueue_many(jobs)

    errors = {rejection.index: type(rejection.error) for rejection in summary.rejections}
    assert errors == {
        3: InvalidJobError,
        PORTION_JOBS_MAX + 7: KeyConflictError,
        PORTION_JOBS_MAX * 2 - 1: InvalidJobError,
    }
    assert (summary.new, summary.rejected) == (PORTION_JOBS_MAX * 2 - 3, 3)


def test_results_can_be_received_as_they_occur(queue: VoiceQueue) -> None:
    """In order, those of rejected items too; the summary then keeps none of them."""
    results: list[EnqueueItemResult] = []

    summary = queue.enqueue_many([{}, voice(), {}], on_result=results.append)

    assert [(result.index, result.new_count, result.error is None) for result in results] == [
        (0, 0, False),
        (1, 1, True),
        (2, 0, False),
    ]
    assert queue.get(results[1].job_id).state is State.QUEUED
    assert (summary.rejected, summary.rejections) == (2, [])


def test_a_generator_is_read_as_its_jobs_are_written(queue: VoiceQueue) -> None:
    """One chunk ahead at most; written jobs are released, so memory stays flat."""
    alive: list[weakref.ref[VoiceJob]] = []

    def telling() -> Iterator[VoiceJob]:
        for number in range(PORTION_JOBS_MAX * 4):
            if number % PORTION_JOBS_MAX == 0:
                assert number - PORTION_JOBS_MAX <= queue.status().states[State.QUEUED] <= number
            job = voice(key=f"key-{number}")
            alive.append(weakref.ref(job))
            yield job

    queue.enqueue_many(telling())

    assert sum(ref() is not None for ref in alive[: PORTION_JOBS_MAX * 3]) == 0


def test_a_generator_that_raises_loses_no_job_that_it_yielded(queue: VoiceQueue) -> None:
    """Its jobs stay enqueued; if they have keys, all can be enqueued again."""

    def breaking() -> Iterator[VoiceJob]:
        yield from numbered_voices(PORTION_JOBS_MAX + 1)
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="disk"):
        queue.enqueue_many(breaking())

    again = queue.enqueue_many(numbered_voices(PORTION_JOBS_MAX + 1))
    assert (again.new, again.existing) == (1, PORTION_JOBS_MAX)


def test_many_jobs_keep_their_order_in_the_backlog(queue: VoiceQueue) -> None:
    """Across chunks, and within a chunk that is written at one time."""
    queue.enqueue_many(numbered_voices(PORTION_JOBS_MAX * 3, batch="b"))

    assert [job.spec.key for job in queue.jobs(batch="b")] == [f"key-{n}" for n in range(PORTION_JOBS_MAX * 3)]
    assert [job.spec.key for job in queue.jobs(state="queued")] == [f"key-{n}" for n in range(PORTION_JOBS_MAX * 3)]


def test_no_jobs_are_no_error(queue: VoiceQueue) -> None:
    """The summary is empty."""
    summary = queue.enqueue_many([])

    assert (summary.new, summary.existing, summary.rejected, summary.credits) == (0, 0, 0, 0)


def test_a_job_with_a_persona_starts_with_the_song(queue: VoiceQueue, store: JobStore) -> None:
    """It costs a song and no voice."""
    summary = queue.enqueue_many([VoiceJob(persona_id="p", song=SONG)])

    assert summary.credits == 15
    assert list(store.admit(NOW, at_most=1).by_stage) == [Stage.MUSIC]


# ── get, wait ─────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_job_is_an_error(queue: VoiceQueue) -> None:
    """For every method; the error has the id."""
    asks: list[Callable[[str], object]] = [queue.get, queue.timeline, queue.cancel, queue.retry, queue.wait]
    for ask in asks:
        with pytest.raises(JobNotFoundError) as caught:
            ask("nosuchjob")
        assert caught.value.job_id == "nosuchjob"


@pytest.mark.parametrize("state", SETTLED)
def test_waiting_for_a_settled_job_returns_at_once(queue: VoiceQueue, store: JobStore, state: State) -> None:
    """Final, or unsure."""
    job = job_in_state(store, state)

    assert queue.wait(job.id, timeout=0) == job


def test_waiting_ends_when_the_job_settles(queue: VoiceQueue, store: JobStore, redis: Redis) -> None:
    """By its event, without polling; events of other jobs do not end it."""
    job, other = job_in_state(store, State.PENDING), job_in_state(store, State.PENDING)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(queue.wait, job.id, timeout=30)
        eventually(lambda: _somebody_waits(redis))
        apply_transition(store, other, State.SUCCEEDED)
        assert not waiting.done()
        began = time.monotonic()
        apply_transition(store, job, State.SUCCEEDED)
        assert waiting.result().state is State.SUCCEEDED

    assert time.monotonic() - began < 3


def _somebody_waits(redis: Redis) -> bool:
    return any(client["cmd"] == "xread" and "b" in client["flags"] for client in redis.client_list())


def test_waiting_continues_while_the_job_is_in_progress(queue: VoiceQueue, store: JobStore, redis: Redis) -> None:
    """Through both stages."""
    job = queue.enqueue(voice_with_song())
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(queue.wait, job.id, timeout=30)
        for stage in Stage:
            eventually(lambda: _somebody_waits(redis))
            store.admit(NOW, at_most=1)
            claim_admitted(store, job.id)
            pending = accept_order(store, job.id)
            if stage is Stage.VOICE:
                apply_transition(store, pending, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
        assert not waiting.done()
        apply_transition(store, get_job(store, job.id), State.SUCCEEDED)
        assert waiting.result().persona_id == "p"


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_waiting_too_long_is_a_timeout(queue: VoiceQueue, timeout: float) -> None:
    """After the given time, which may be shorter than one blocking read."""
    job = queue.enqueue(voice())
    began = time.monotonic()

    with pytest.raises(WaitTimeoutError, match=job.id):
        queue.wait(job.id, timeout=timeout)

    assert time.monotonic() - began < 3


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_by_batch_by_state_and_by_both(queue: VoiceQueue, store: JobStore) -> None:
    """A batch in the order of enqueueing; a state by member or by value."""
    first, second = queue.enqueue(voice(batch="b")), queue.enqueue(voice(batch="b"))
    alone = queue.enqueue(voice())
    apply_transition(store, first, State.CANCELLED)

    assert [job.id for job in queue.jobs(batch="b")] == [first.id, second.id]
    assert [job.id for job in queue.jobs(state="queued")] == [second.id, alone.id]
    assert [job.id for job in queue.jobs(state=State.QUEUED, batch="b")] == [second.id]
    assert {job.id for job in queue.jobs()} == {first.id, second.id, alone.id}


def test_an_invalid_filter_raises_at_once(queue: VoiceQueue) -> None:
    """The call itself raises, not the first job that is read."""
    with pytest.raises(BatchNotFoundError, match="nosuchbatch"):
        queue.jobs(batch="nosuchbatch")
    with pytest.raises(ValueError, match="nosuchstate"):
        queue.jobs(state="nosuchstate")


@pytest.mark.endurance
def test_jobs_can_be_changed_while_they_are_listed(queue: VoiceQueue) -> None:
    """Cancelling every job of a long list misses none."""
    queue.enqueue_many(numbered_voices(PORTION_JOBS_MAX * 2 + 10))

    for job in queue.jobs(state="queued"):
        queue.cancel(job.id)

    assert queue.status().states[State.QUEUED] == 0


def test_a_batch_counts_its_jobs_by_state_and_its_credits(queue: VoiceQueue, store: JobStore) -> None:
    """It is settled when every job is final or unsure."""
    succeeded = job_in_state(store, State.SUCCEEDED, voice(batch="b"))
    queued = queue.enqueue(voice(batch="b"))

    batch = queue.batch("b")
    assert (batch.name, batch.total, batch.credits, batch.is_settled) == ("b", 2, 4, False)
    assert batch.states[State.SUCCEEDED] == batch.states[State.QUEUED] == 1

    apply_transition(store, queued, State.CANCELLED)
    assert queue.batch("b").is_settled
    assert succeeded.credits == 4


@pytest.mark.parametrize("state", REACHABLE)
def test_a_batch_is_settled_in_a_settled_state_only(queue: VoiceQueue, store: JobStore, state: State) -> None:
    """One unsettled job is enough to keep it unsettled."""
    job_in_state(store, state, voice(batch="b"))

    assert queue.batch("b").is_settled is (state in SETTLED)


def test_batches_are_listed_the_newest_first(queue: VoiceQueue) -> None:
    """An unknown batch is an error."""
    for name in ("spring", "summer"):
        queue.enqueue(voice(batch=name))

    assert [batch.name for batch in queue.batches()] == ["summer", "spring"]
    for ask in (queue.batch, queue.status):
        with pytest.raises(BatchNotFoundError) as caught:
            ask("winter")
        assert caught.value.name == "winter"


def test_the_status_covers_the_whole_queue_or_one_batch(queue: VoiceQueue, store: JobStore) -> None:
    """States, slots, credits, the gate and the live workers."""
    job_in_state(store, State.PENDING, voice(batch="b"))
    job_in_state(store, State.UNSURE, voice())
    store.flow_control.add_hold("paused", "by Ana", time.time())
    store.heartbeats["worker"].record("one@host", time.time())
    store.heartbeats["worker"].record("dead@host", time.time() - 60)

    whole, batch = queue.status(), queue.status("b")

    assert (whole.states[State.PENDING], whole.states[State.UNSURE]) == (1, 1)
    assert (batch.states[State.PENDING], batch.states[State.UNSURE]) == (1, 0)
    assert (whole.in_flight, whole.credits, batch.credits, whole.workers) == (1, 4, 4, 1)
    assert [(hold.reason, hold.detail) for hold in whole.gate.holds] == [("paused", "by Ana")]
    assert not whole.gate.is_open
