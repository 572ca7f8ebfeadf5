"""Cancelling and retrying: what a person may ask of a job, and what it costs."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

from tests.store.life import NOW, REACHABLE, accepted, brought_to, charging, dump, failed, make
from tests.support.jobs import SONG, sung, voice
from voicequeue import Code, Job, NotAllowed, Stage, State, VoiceQueue
from voicequeue.client import bulk_operations
from voicequeue.client.search import Filter
from voicequeue.domain.job import Doubt
from voicequeue.storage.job_store import Store

# ── cancel ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", [State.QUEUED, State.ADMITTED, State.PENDING])
def test_a_job_can_be_cancelled_before_it_settles(queue: VoiceQueue, store: Store, state: State) -> None:
    """Its slot is free at once, and it is settled; what was spent stays told."""
    job = brought_to(store, state)

    cancelled = queue.cancel(job.id)

    assert (cancelled.state, cancelled.credits) == (State.CANCELLED, job.credits)
    assert cancelled.settled_at is not None
    assert store.in_flight() == 0
    assert ("what comes is kept" in queue.timeline(job.id)[-1].reason) is (state is State.PENDING)
    assert cancelled.may_still_come is (state is State.PENDING)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (State.SUCCEEDED, "succeeded already"),
        (State.FAILED, "failed already"),
        (State.CANCELLED, "cancelled already"),
    ],
)
def test_a_job_that_cannot_be_cancelled_says_why(
    queue: VoiceQueue, store: Store, redis: Redis, prefix: str, state: State, why: str
) -> None:
    """And stays as it is."""
    job = brought_to(store, state)
    before = dump(redis, prefix)

    with pytest.raises(NotAllowed, match=why):
        queue.cancel(job.id)

    assert dump(redis, prefix) == before


@pytest.mark.parametrize("wanted", [Filter(batch="spring"), Filter()])
def test_a_plan_cancels_whoever_waits_before_the_one_that_makes_the_voice(
    queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch, wanted: Filter
) -> None:
    """Or the next would be given the voice to make, and no longer be as the plan knows it; also across its pages."""
    monkeypatch.setattr(bulk_operations, "CHUNK", 1)
    queue.enqueue({"audio_url": "https://a.example/b.wav", "songs": [SONG] * 4, "batch": "spring"})

    done = queue.carry_out("cancel", queue.plan("cancel", wanted).token)

    assert (done.found, done.changed) == (4, 4)
    assert queue.status().states[State.CANCELLED] == 4


def test_all_jobs_of_a_voice_are_cancelled_together(queue: VoiceQueue) -> None:
    """In the order in which they came, over more than one page."""
    orders = [{"audio_url": f"https://a.example/{n}.wav", "songs": [SONG] * 100, "batch": "b"} for n in range(6)]
    queue.enqueue_many(orders)

    cancelled = queue.carry_out("cancel", queue.plan("cancel", Filter(batch="b")).token)

    assert (cancelled.found, cancelled.changed) == (600, 600)


def test_of_two_that_cancel_at_once_one_does(queue: VoiceQueue) -> None:
    """The other is told that it is cancelled already; nothing is done twice."""
    for job in [queue.enqueue(voice()) for _ in range(20)]:
        told: list[object] = []
        threads = [threading.Thread(target=_cancelling, args=(queue, job, told)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(str, told)) == ["cancelled", "refused"]
        assert len(queue.timeline(job.id)) == 2


def _cancelling(queue: VoiceQueue, job: Job, told: list[object]) -> None:
    try:
        told.append(queue.cancel(job.id).state)
    except NotAllowed:
        told.append("refused")


# ── retry ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [Code.REFUSED, Code.MODERATED, Code.EXPIRED])
def test_a_failed_job_goes_back_to_the_stage_that_failed(queue: VoiceQueue, store: Store, code: Code) -> None:
    """Its failure is taken away; it is charged for that stage."""
    job = failed(store, brought_to(store, State.CHARGING), code)

    again = queue.retry(job.id)

    assert (again.state, again.stage, again.failure, again.settled_at) == (State.QUEUED, Stage.VOICE, None, None)
    assert queue.timeline(job.id)[-1].reason == "retry"


def test_what_upstream_failed_is_asked_about_first_and_at_once_ordered_anew_if_wanted(
    queue: VoiceQueue, store: Store
) -> None:
    """Upstream may have made it after all; `resubmit` pays in any case."""
    asked, anew = (failed(store, brought_to(store, State.PENDING, sung(key=key)), Code.UPSTREAM_FAILED) for key in "ab")

    assert (queue.retry(asked.id).state, queue.timeline(asked.id)[-1].task_id) == (State.PENDING, None)
    [claim] = store.claim([asked.id], Stage.VOICE, time.time(), lease=90)
    assert (claim.reorder, claim.doubt) == (True, Doubt(0.0, "no"))
    again = queue.retry(anew.id, resubmit=True)
    assert (again.state, again.task_ids) == (State.QUEUED, {})
    assert queue.timeline(anew.id)[-1].reason == "retry: order again"


def test_a_voice_that_was_made_is_not_bought_again(queue: VoiceQueue, store: Store) -> None:
    """A song that failed is sung again with the persona that is there."""
    made = make(
        store, brought_to(store, State.PENDING), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}
    )
    charging(store, made.id)
    failed(store, accepted(store, made.id), Code.UPSTREAM_FAILED)

    again = queue.retry(made.id, resubmit=True)

    assert (again.state, again.stage, again.persona_id, again.credits) == (State.QUEUED, Stage.MUSIC, "p", 19)
    store.admit(NOW, at_most=1)
    assert charging(store, made.id).stage is Stage.MUSIC


def test_what_is_paid_and_late_is_asked_for_again_free(queue: VoiceQueue, store: Store) -> None:
    """After a deadline the task may be done meanwhile: it is due at once, with a whole deadline before it."""
    job = failed(store, brought_to(store, State.PENDING), Code.DEADLINE)
    before = time.time()

    again = queue.retry(job.id)

    assert (again.state, again.credits, again.failure) == (State.PENDING, job.credits, None)
    [claim] = store.claim([job.id], Stage.VOICE, time.time(), lease=90)
    assert claim.task_id == f"task-voice-{job.id}"
    assert claim.since >= before


def test_a_deadline_before_anything_was_paid_goes_back_to_the_line(queue: VoiceQueue, store: Store) -> None:
    """There is no task of this stage to ask about, though there may be one of the stage before."""
    made = make(
        store, brought_to(store, State.PENDING), State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"}
    )
    failed(store, made, Code.DEADLINE)

    assert queue.retry(made.id).state is State.QUEUED


@pytest.mark.parametrize("state", [state for state in REACHABLE if state is not State.FAILED])
def test_only_a_failed_job_can_be_retried(
    queue: VoiceQueue, store: Store, redis: Redis, prefix: str, state: State
) -> None:
    """Any other says in which state it is, and stays there."""
    job = brought_to(store, state)
    before = dump(redis, prefix)

    with pytest.raises(NotAllowed, match=f"is {state}"):
        queue.retry(job.id)

    assert dump(redis, prefix) == before
