"""The cost of a batch with stop-loss: paid failures stop it soon, free ones not too soon."""

from __future__ import annotations

import json
from random import Random

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_submit,
    enqueue_jobs,
    fail_job,
    get_job,
)
from tests.support.jobs import SONG, numbered_voices
from voicequeue import Batch, FailureCode, Stage, State
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.stage import PRICES
from voicequeue.domain.stop_loss import STOP_MIN
from voicequeue.storage.job_store import JobStore


def batch_of(store: JobStore) -> Batch:
    """Return the batch `b`."""
    batch = store.batch("b")
    assert batch is not None
    return batch


def open_slots(store: JobStore, slots: int) -> None:
    """Let this many jobs be in flight."""
    store.flow_control.set_limits(in_flight=slots)
    store._redis.hset(store._space.key("flow"), "limit", slots)


def claimed(store: JobStore, slots: int) -> list[str]:
    """Fill the free slots, and return the ids of the jobs whose orders are to be sent."""
    store.admit(NOW, at_most=slots)
    admitted = sorted(store.list_ids(state=State.ADMITTED))
    claims = {
        job_id: claim_submit(store, job_id, get_job(store, job_id).stage, "x", NOW, lease=90) for job_id in admitted
    }
    return [job_id for job_id, claim in claims.items() if isinstance(claim, SubmitClaim)]


def moderate(store: JobStore, job_id: str) -> None:
    """Upstream does not allow the text of an order that is being sent; it costs nothing."""
    fail_job(store, get_job(store, job_id), FailureCode.MODERATED)


def succeed(store: JobStore, job_id: str) -> None:
    """Finish a job."""
    apply_transition(store, get_job(store, job_id), State.SUCCEEDED, fields={"settled": str(NOW)})


@pytest.mark.endurance
def test_instant_failures_do_not_stop_a_batch_whose_other_orders_are_slow(store: JobStore) -> None:
    """Every tenth text is not allowed, at once; the other orders are in flight for long, and succeed."""
    store.set_batch_limits("b", stop_after=0.2)
    enqueue_jobs(store, *numbered_voices(450, batch="b"))
    open_slots(store, 300)
    sent, moderated = 0, 0
    while job_ids := claimed(store, 300):
        for job_id in job_ids:
            sent += 1
            if sent % 10 == 0:
                moderate(store, job_id)
                moderated += 1
            else:
                accept_order(store, job_id)
        if moderated >= STOP_MIN and len(list(store.list_ids(state=State.PENDING))) == 300:
            assert batch_of(store).states[State.SUCCEEDED] == 0  # every settled job has failed
            break

    while pending := list(store.list_ids(state=State.PENDING)):
        for job_id in pending:
            succeed(store, job_id)
        for job_id in claimed(store, 300):
            accept_order(store, job_id)

    assert batch_of(store).stop is None
    assert batch_of(store).states[State.FAILED] == moderated > STOP_MIN


def test_a_batch_whose_texts_are_not_allowed_stops_after_the_sample(store: JobStore) -> None:
    """Nothing is in flight that could still succeed."""
    store.set_batch_limits("b", stop_after=1.0)
    enqueue_jobs(store, *numbered_voices(30, batch="b"))
    open_slots(store, 1)

    while job_ids := claimed(store, 1):
        moderate(store, job_ids[0])

    stop = batch_of(store).stop
    assert stop is not None
    assert (stop.settled, stop.failures, stop.in_flight) == (STOP_MIN, {"moderated": STOP_MIN}, 0)


def test_the_end_of_an_order_in_flight_may_stop_the_batch(store: JobStore) -> None:
    """One of four was in flight until it was cancelled; the reason counts what is still in flight."""
    store.set_batch_limits("b", stop_after=0.75, stop_min=2)
    enqueue_jobs(store, *numbered_voices(5, batch="b"))
    open_slots(store, 4)
    slow, cancelled, first, second = claimed(store, 4)
    for job_id in (slow, cancelled):
        accept_order(store, job_id)
    for job_id in (first, second):
        moderate(store, job_id)
    assert batch_of(store).stop is None
    store.set_batch_limits("b", stop_after=0.6)
    assert batch_of(store).stop is None

    apply_transition(store, get_job(store, cancelled), State.CANCELLED)

    stop = batch_of(store).stop
    assert stop is not None
    assert stop.reason == "stopped: 2 of 2 settled jobs failed (moderated 2), 1 order in flight, limit 60 %"


def test_a_song_that_is_refused_after_its_voice_was_paid_counts_as_paid(store: JobStore) -> None:
    """With slow voices in flight, such a batch would otherwise pay for all of them in vain."""
    store.set_batch_limits("b", stop_after=0.9, stop_min=2)
    enqueue_jobs(store, *numbered_voices(10, batch="b", song=SONG))
    open_slots(store, 8)
    first, second, *others = claimed(store, 8)
    for job_id in (first, second, *others):
        accept_order(store, job_id)

    for job_id in (first, second):
        persona: dict[str, str | None] = {"persona_id": f"p-{job_id}"}
        apply_transition(store, get_job(store, job_id), State.ADMITTED, to_stage=Stage.MUSIC, fields=persona)
        assert claim_submit(store, job_id, Stage.MUSIC, "x", NOW, lease=90)
        moderate(store, job_id)

    stop = batch_of(store).stop
    assert stop is not None
    assert (stop.failures, stop.in_flight) == ({"moderated": 2}, 6)


def test_a_lost_order_that_may_have_been_charged_counts_as_paid(store: JobStore) -> None:
    """It was resubmitted, and then refused."""
    store.set_batch_limits("b", stop_after=1.0, stop_min=1)
    enqueue_jobs(store, *numbered_voices(3, batch="b"))
    open_slots(store, 2)
    slow, lost = claimed(store, 2)
    accept_order(store, slow)
    lost_orders: dict[str, str | None] = {"lost_orders": json.dumps({"1": "voice"})}
    apply_transition(store, get_job(store, lost), State.UNSURE)
    apply_transition(store, get_job(store, lost), State.ADMITTED, fields=lost_orders)
    assert claimed(store, 1) == [lost]

    moderate(store, lost)

    assert batch_of(store).stop is not None


class FailingBatch:
    """A batch of which no job succeeds; some failures cost nothing, some a voice, some all of the price."""

    def __init__(self, store: JobStore, seed: int) -> None:
        self.store, self.chance = store, Random(seed)
        self.slots = self.chance.choice([1, 5, 15])
        self.least = self.chance.choice([1, 5, STOP_MIN])
        self.limit = self.chance.choice([0.2, 0.8, 1.0])
        self.free, self.free_songs = self.chance.choice([0.0, 0.3, 0.7]), self.chance.choice([0.0, 0.5, 1.0])

    def run(self) -> None:
        """Send orders while slots are free, and fail those in flight, until none is left."""
        self.store.set_batch_limits("b", stop_after=self.limit, stop_min=self.least)
        enqueue_jobs(self.store, *numbered_voices(300, batch="b", song=SONG))
        open_slots(self.store, self.slots)
        while True:
            job_ids = claimed(self.store, self.slots)
            for job_id in job_ids:
                self._send(job_id)
            pending = sorted(self.store.list_ids(state=State.PENDING))
            if not (pending or job_ids):
                return
            for job_id in self.chance.sample(pending, (len(pending) + 1) // 2):
                self._end(job_id)

    def _send(self, job_id: str) -> None:
        is_song = get_job(self.store, job_id).stage is Stage.MUSIC
        if self.chance.random() < (self.free_songs if is_song else self.free):
            moderate(self.store, job_id)
        else:
            accept_order(self.store, job_id)

    def _end(self, job_id: str) -> None:
        job = get_job(self.store, job_id)
        if job.stage is Stage.VOICE and self.chance.random() < 0.7:
            fields: dict[str, str | None] = {"persona_id": f"p-{job_id}"}
            apply_transition(self.store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields=fields)
        else:
            fail_job(self.store, job, FailureCode.UPSTREAM_FAILED)


@pytest.mark.parametrize("seed", range(6))
def test_the_money_that_is_spent_in_vain_is_bounded(redis: Redis, prefix: str, store: JobStore, seed: int) -> None:
    """By the price of the sample and of the jobs in flight, for all kinds of failures and limits."""
    batch = FailingBatch(store, seed)

    batch.run()

    assert batch_of(store).stop is not None
    assert batch_of(store).credits <= (batch.least + batch.slots) * sum(PRICES.values())
    assert_consistent(redis, prefix)
