"""Stop-loss: a batch whose jobs fail too often stops itself, and nothing more of it is charged."""

from __future__ import annotations

import json
from math import inf

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    claim_submit,
    enqueue_jobs,
    fail_job,
    get_job,
    refuse_order,
    transition_of,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import Batch, FailureCode, Stage, State
from voicequeue.domain import serialization
from voicequeue.domain.job import Failure, Transition
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.job_store import JobStore

pytestmark = pytest.mark.usefixtures("_consistent")

URL = "https://shop.example/batches"


@pytest.fixture
def _consistent(redis: Redis, prefix: str, store: JobStore) -> object:
    """Check that indexes and counters agree with the records after each test."""
    yield
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []


def batch_of(store: JobStore, name: str = "b") -> Batch:
    """Return the batch."""
    batch = store.batch(name)
    assert batch is not None
    return batch


def in_flight(store: JobStore, count: int, **fields: object) -> list[str]:
    """Return the ids of new jobs of batch `b` whose orders upstream has accepted."""
    job_ids = enqueue_jobs(store, *numbered_voices(count, batch="b", **fields))
    store.flow_control.set_limits(in_flight=1_000)
    store._redis.hset(store._space.key("flow"), "limit", 1_000)
    store.admit(NOW, at_most=1_000)
    for job_id in job_ids:
        claim_admitted(store, job_id)
        accept_order(store, job_id)
    return job_ids


def fail(store: JobStore, job_id: str, code: FailureCode = FailureCode.UPSTREAM_FAILED) -> None:
    """Fail a job."""
    fail_job(store, get_job(store, job_id), code)


def succeed(store: JobStore, job_id: str) -> None:
    """Finish a job."""
    apply_transition(store, get_job(store, job_id), State.SUCCEEDED, fields={"settled": str(NOW)})


def test_a_batch_stops_in_the_transition_that_reaches_its_limit(store: JobStore) -> None:
    """20 % of 20: the fourth failure does, if 16 succeeded; until then a claim is possible, after it none."""
    store.set_batch_limits("b", stop_after=0.2)
    job_ids = in_flight(store, 20)
    [waiting] = enqueue_jobs(store, voice(key="next", batch="b"))
    store.admit(NOW)
    for job_id in job_ids[:16]:
        succeed(store, job_id)
    for job_id in job_ids[16:19]:
        fail(store, job_id)
    assert batch_of(store).stop is None

    fail(store, job_ids[19], FailureCode.MODERATED)

    batch = batch_of(store)
    assert batch.is_paused
    assert batch.stop is not None
    assert batch.stop.reason == (
        "stopped: 4 of 20 settled jobs failed (upstream_failed 3, moderated 1), 0 orders in flight, limit 20 %"
    )
    assert (batch.stop.settled, batch.stop.failed) == (20, 4)
    assert claim_submit(store, waiting, Stage.VOICE, "x", NOW, lease=9) is None
    assert store.timeline(waiting)[-1].reason == "the batch is stopped, because too many of its jobs failed"
    assert store.admit(NOW).by_stage == {}


def test_one_script_that_settles_many_jobs_stops_the_batch_once(store: JobStore) -> None:
    """The jobs of a chunk settle in one transaction; the numbers are those after it."""
    store.set_batch_limits("b", stop_after=0.9)
    job_ids = in_flight(store, 30)
    enqueue_jobs(store, voice(key="next", batch="b"))
    failure = serialization.failure_text(Failure(FailureCode.REFUSED, Stage.VOICE, "no"))
    chunk = [
        transition_of(get_job(store, job_id), State.FAILED, due=None, fields={"failure": failure, "settled": str(NOW)})
        for job_id in job_ids
    ]

    store.apply_transitions(chunk, NOW)
    assert store.apply_transitions(chunk, NOW) == [False] * 30  # repeated: counts nothing

    stop = batch_of(store).stop
    assert stop is not None
    assert (stop.settled, stop.failures) == (30, {"refused": 30})
    assert [batch.name for batch in store.stopped_batches()] == ["b"]
    assert [batch.name for batch in store.newly_stopped_batches()] == ["b"]
    assert store.newly_stopped_batches() == []


def test_a_minimum_of_settled_jobs_is_needed(store: JobStore) -> None:
    """It is 20, or what is set."""
    store.set_batch_limits("b", stop_after=0.01)
    job_ids = in_flight(store, 20)
    for job_id in job_ids[:19]:
        fail(store, job_id)
    assert batch_of(store).stop is None

    store.set_batch_limits("b", stop_min=19)

    assert batch_of(store).stop is not None


def test_a_limit_that_is_reached_when_it_is_set_stops_at_once(store: JobStore) -> None:
    """All outcomes since the first job count, or since the last stop."""
    enqueue_jobs(store, voice(key="next", batch="b"))
    for job_id in in_flight(store, 20):
        fail(store, job_id)
    assert not batch_of(store).is_paused

    assert store.set_batch_limits("b", stop_after=1.0)

    assert batch_of(store).stop is not None


def test_a_resumed_batch_needs_a_new_sample(store: JobStore) -> None:
    """A higher limit alone does not resume it; a second resume changes nothing."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=2)
    first, second, third, fourth = in_flight(store, 4)
    enqueue_jobs(store, voice(key="next", batch="b"))
    fail(store, first)
    fail(store, second)
    assert batch_of(store).stop is not None
    assert store.set_batch_limits("b", stop_after=0.9)
    assert batch_of(store).stop is not None

    assert store.set_batch_limits("b", paused=False)
    assert not store.set_batch_limits("b", paused=False)

    assert not batch_of(store).is_paused
    assert store.stopped_batches() == []
    fail(store, third)
    assert batch_of(store).stop is None
    fail(store, fourth)
    assert batch_of(store).stop is not None
    assert batch_of(store).failures == {"upstream_failed": 4}


def test_a_pause_by_an_operator_is_no_stop(store: JobStore) -> None:
    """It keeps the sample, and the stop of a paused batch ends with the pause."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=2)
    first, second = in_flight(store, 2)
    enqueue_jobs(store, voice(key="next", batch="b"))
    fail(store, first)
    store.set_batch_limits("b", paused=True)
    assert (batch_of(store).is_paused, batch_of(store).stop) == (True, None)
    store.set_batch_limits("b", paused=False)

    fail(store, second)

    assert batch_of(store).stop is not None
    store.set_batch_limits("b", paused=True)
    store.set_batch_limits("b", paused=False)
    assert not batch_of(store).is_paused


@pytest.mark.parametrize("code", [FailureCode.EXPIRED, FailureCode.ABANDONED])
def test_what_says_nothing_about_the_orders_does_not_count(store: JobStore, code: FailureCode) -> None:
    """Neither own deadlines and decisions of operators, nor cancelled jobs; the batch still counts its failures."""
    store.set_batch_limits("b", stop_after=0.1, stop_min=1)
    first, second = in_flight(store, 2)

    fail(store, first, code)
    apply_transition(store, get_job(store, second), State.CANCELLED)

    assert batch_of(store).stop is None
    assert batch_of(store).failures == {code: 1}


def test_jobs_that_fail_with_a_shared_voice_count_once(store: JobStore) -> None:
    """One order failed; the others submitted none."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=2)
    job_ids = enqueue_jobs(store, *(voice_with_song(key=f"{n}", batch="b", voice="ana") for n in range(30)))
    store.admit(NOW)
    claim_admitted(store, job_ids[0])
    accept_order(store, job_ids[0])

    fail(store, job_ids[0])

    assert batch_of(store).states[State.FAILED] == 30
    assert batch_of(store).failures == {"upstream_failed": 30}
    assert batch_of(store).stop is None


def test_a_refused_order_that_fails_its_job_counts(store: JobStore) -> None:
    """The script decides that it fails, not the transition that was sent."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=1)
    job_id, other = enqueue_jobs(store, voice(batch="b"), voice(key="other"))
    store.admit(NOW)
    for submitted in (job_id, other):
        claim_admitted(store, submitted)
    refuse_order(store, job_id)
    accept_order(store, other)
    now = NOW
    while get_job(store, job_id).state is not State.FAILED:
        now += 1_000
        store.admit(now)
        claim_admitted(store, job_id, now)
        refuse_order(store, job_id, now=now, max_attempts=2)
    enqueue_jobs(store, voice(key="next", batch="b"))

    stop = batch_of(store).stop
    assert stop is not None
    assert stop.failures == {"refused": 1}


def test_an_outcome_is_replaced_by_a_later_one_of_the_same_order(store: JobStore) -> None:
    """A deadline that is polled again, a late result; a retry with a new order counts in addition."""
    store.set_batch_limits("b", stop_after=0.99, stop_min=100)
    polled, late, retried = in_flight(store, 3)
    sample = f"{store._space.key('batch:b')}", "sample.settled", "sample.failed", "sample.failed.deadline"
    for job_id in (polled, late, retried):
        fail(store, job_id, FailureCode.DEADLINE)
    assert store._redis.hmget(*sample) == ["3", "3", "3"]

    no_failure: dict[str, str | None] = {"failure": None, "settled": None}
    apply_transition(store, get_job(store, polled), State.PENDING, fields=no_failure)
    assert store._redis.hmget(*sample) == ["2", "2", "2"]
    succeed(store, polled)
    apply_transition(store, get_job(store, late), State.SUCCEEDED, fields={"failure": None})
    assert store._redis.hmget(*sample) == ["3", "1", "1"]
    apply_transition(store, get_job(store, retried), State.QUEUED, fields=no_failure)
    apply_transition(store, get_job(store, retried), State.CANCELLED)
    assert store._redis.hmget(*sample) == ["3", "1", "1"]
    assert sum(store.purge(NOW + 100, retention_s=1)) == 3  # the last job ends the batch
    enqueue_jobs(store, voice(batch="b"))
    assert store._redis.hmget(*sample) == [None, None, None]


def test_a_result_after_a_resume_does_not_change_the_new_sample(store: JobStore) -> None:
    """The failure that it replaces belongs to the former one."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=1)
    [job_id] = in_flight(store, 1)
    enqueue_jobs(store, voice(key="next", batch="b"))
    fail(store, job_id, FailureCode.DEADLINE)
    store.set_batch_limits("b", paused=False)

    apply_transition(store, get_job(store, job_id), State.SUCCEEDED, fields={"failure": None})

    assert store._redis.hget(store._space.key("batch:b"), "sample.settled") is None
    assert batch_of(store).failures == {}


def test_failures_by_code_follow_retries_and_purges(store: JobStore) -> None:
    """They are those of the jobs that are failed now."""
    first, second, third = in_flight(store, 3)
    fail(store, first, FailureCode.MODERATED)
    fail(store, second, FailureCode.MODERATED)
    fail(store, third, FailureCode.DEADLINE)
    assert batch_of(store).failures == store.failures_by_code("b") == {"moderated": 2, "deadline": 1}

    retry = Transition(
        first, get_job(store, first).version, State.FAILED, Stage.VOICE, State.QUEUED, fields={"failure": None}
    )
    assert store.apply_transitions([retry, retry], NOW + 500) == [True, False]
    assert batch_of(store).failures == {"moderated": 1, "deadline": 1}
    assert sum(store.purge(NOW + 100, retention_s=50)) == 2

    assert batch_of(store).failures == {}


def test_a_stop_is_called_back_before_the_end_of_the_batch(store: JobStore) -> None:
    """With its reason and the counters of that moment, also if the batch is resumed meanwhile."""
    store.callbacks.set_batch_url("b", URL, source="http:shop")
    store.set_batch_limits("b", stop_after=1.0, stop_min=2)
    job_ids = in_flight(store, 3)
    fail(store, job_ids[0])
    fail(store, job_ids[1])
    store.set_batch_limits("b", paused=False)

    [claim] = store.callbacks.claim(store.callbacks.lease(NOW, lease_s=60), NOW, lease_s=60)

    assert (claim.url(), claim.type, claim.job_id) == (URL, "batch.stopped", None)
    assert URL not in claim.snapshot
    data = json.loads(claim.body())["data"]
    assert (data["name"], data["source"], data["settled"]) == ("b", "http:shop", False)
    assert data["failed_by_code"] == {"upstream_failed": 2}
    assert data["stopped"]["reason"] == (
        "stopped: 2 of 2 settled jobs failed (upstream_failed 2), 1 order in flight, limit 100 %"
    )
    succeed(store, job_ids[2])
    store.callbacks.mark_delivered(claim.id, NOW)
    [settled] = store.callbacks.claim(store.callbacks.lease(NOW, lease_s=60), NOW, lease_s=60)
    assert settled.type == "batch.settled"


def test_a_batch_whose_last_job_fails_does_not_stop(store: JobStore) -> None:
    """Nothing is left to stop, and its end is the only callback; jobs that follow stop it before any is submitted."""
    store.callbacks.set_batch_url("b", URL, source="http:shop")
    store.set_batch_limits("b", stop_after=1.0, stop_min=3)
    job_ids = in_flight(store, 3)
    for job_id in job_ids:
        fail(store, job_id)
    store.set_batch_limits("b", stop_after=0.9)
    assert batch_of(store).stop is None

    enqueue_jobs(store, voice(key="next", batch="b"))

    assert batch_of(store).stop is not None
    assert store.admit(NOW).by_stage == {}
    types = []
    for _ in range(2):
        [claim] = store.callbacks.claim(store.callbacks.lease(NOW, lease_s=60), NOW, lease_s=60)
        types.append(claim.type)
        store.callbacks.mark_delivered(claim.id, NOW)
    assert types == ["batch.settled", "batch.stopped"]
    assert store.callbacks.lease(NOW, lease_s=60) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.PENDING])
def test_a_retry_in_a_settled_batch_stops_it(store: JobStore, state: State) -> None:
    """If its sample reaches the limit: by then it has something to stop."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=2)
    retried, other = in_flight(store, 2)
    for job_id in (other, retried):
        fail(store, job_id, FailureCode.DEADLINE)
    assert batch_of(store).stop is None

    apply_transition(store, get_job(store, retried), state, fields={"failure": None, "settled": None})

    # A poll of the same order withdraws the outcome: one is no sample.
    assert (batch_of(store).stop is not None) == (state is State.QUEUED)


def test_a_stopped_batch_is_listed_while_it_has_unsettled_jobs(store: JobStore) -> None:
    """Cancelling them is one of the cures; jobs that are enqueued later wait, until it is resumed."""
    store.set_batch_limits("b", stop_after=1.0, stop_min=1)
    first, second = in_flight(store, 2)
    [queued] = enqueue_jobs(store, voice(key="next", batch="b"))
    fail(store, first)
    apply_transition(store, get_job(store, queued), State.CANCELLED)
    assert [batch.name for batch in store.stopped_batches()] == ["b"]

    fail(store, second)

    assert store.stopped_batches() == []
    assert batch_of(store).stop is not None
    enqueue_jobs(store, voice(key="later", batch="b"))
    assert [batch.name for batch in store.stopped_batches()] == ["b"]
    assert store.admit(NOW).by_stage == {}
    store.set_batch_limits("b", paused=False)
    assert store.stopped_batches() == []
    assert store.admit(NOW).by_stage != {}


def test_a_stop_ends_with_the_last_job_and_the_limit_stays(store: JobStore) -> None:
    """Another set of jobs with that name is another sample."""
    store.set_batch_limits("b", stop_after=0.5, stop_min=1)
    failed, other = in_flight(store, 2)
    fail(store, failed, FailureCode.MODERATED)
    assert [batch.name for batch in store.stopped_batches()] == ["b"]
    succeed(store, other)

    assert sum(store.purge(NOW + 100, retention_s=50)) == 2

    assert store._redis.zcard(store._space.key("batches:stopped")) == 0
    enqueue_jobs(store, voice(batch="b"))
    assert (batch_of(store).stop, batch_of(store).stop_after, batch_of(store).stop_min) == (None, 0.5, 1)
    store.set_batch_limits("b", stop_after=inf, stop_min=inf)
    assert (batch_of(store).stop_after, batch_of(store).stop_min) == (None, 20)
