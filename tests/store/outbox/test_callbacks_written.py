"""Callbacks are written with the transition that they report, and hold the record as it was then."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    REACHABLE,
    apply_transition,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
    transition_of,
)
from tests.store.outbox.callback_steps import (
    HOOK,
    LEASE,
    claim_due,
    deliver_all,
    only,
    payload,
    retry,
    submit_again,
    types,
    voice_with_callback,
)
from tests.support.jobs import voice
from voicequeue import FailureCode, State, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.status import CallbackCounts
from voicequeue.storage.callbacks import UndeliverableError
from voicequeue.storage.job_store import JobStore

# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", REACHABLE)
def test_a_callback_reports_succeeded_failed_and_unsure_jobs_only(store: JobStore, state: State) -> None:
    """Cancellation is not reported: the caller requested it."""
    job = job_in_state(store, state, voice_with_callback())

    expected = [f"job.{state}"] if state in {State.SUCCEEDED, State.FAILED, State.UNSURE} else []
    assert types(claim_due(store.callbacks)) == expected
    assert (get_job(store, job.id).callback_id is not None) is bool(expected)


def test_a_job_without_a_callback_url_writes_no_key(store: JobStore, redis: Redis, prefix: str) -> None:
    """Not even if its own content contains the name of the field."""
    job_in_state(store, State.SUCCEEDED, voice(metadata={'"callback_url"': "x"}, name='"callback_url"', batch="b"))

    assert claim_due(store.callbacks) == []
    assert not [key for key in dump_keys(redis, prefix) if "callback" in key]


def test_a_callback_holds_the_job_as_it_was_at_its_transition(store: JobStore) -> None:
    """Every attempt has the same id and body; `data` equals `Job.as_dict`."""
    job = job_in_state(store, State.FAILED, voice_with_callback(name="Ana", metadata={"order": "17"}))
    first = only(claim_due(store.callbacks))
    retry(store, job, NOW + 5)

    assert (first.url(), first.job_id, first.type) == (HOOK, job.id, "job.failed")
    assert payload(first) == {"type": "job.failed", "timestamp": to_iso8601(NOW), "data": job.as_dict()}
    second = only(claim_due(store.callbacks, NOW + LEASE))
    assert (second.id, second.body()) == (first.id, first.body())


def test_the_callbacks_of_a_job_are_due_in_order(store: JobStore) -> None:
    """A job fails and then succeeds: the second callback waits for the first."""
    job = job_in_state(store, State.FAILED, voice_with_callback())
    retry(store, job)
    apply_transition(store, submit_again(store, job.id), State.SUCCEEDED, NOW, fields={"settled": str(NOW)})

    first = only(claim_due(store.callbacks))
    assert first.type == "job.failed"
    assert claim_due(store.callbacks) == []
    store.callbacks.mark_delivered(first.id, NOW)
    second = only(claim_due(store.callbacks))
    assert (second.type, payload(second)["data"]["state"]) == ("job.succeeded", "succeeded")
    assert second.id != first.id
    store.callbacks.mark_delivered(second.id, NOW)
    assert store.callbacks.counts(NOW) == CallbackCounts(delivered=2)


def test_a_delivered_callback_leaves_no_key(store: JobStore, redis: Redis, prefix: str) -> None:
    """Its record and its index entries are deleted."""
    job_in_state(store, State.FAILED, voice_with_callback())
    deliver_all(store)

    assert [key for key in dump_keys(redis, prefix) if ":callback" in key] == []


# ── batches ───────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_reported_when_its_last_job_settles(store: JobStore, queue: VoiceQueue) -> None:
    """Once, with its counts."""
    queue.set_batch_callback("b", HOOK)
    enqueue_jobs(store, *(voice(batch="b", key=f"k{n}") for n in range(2)))
    first, last = store.get(list(store.list_ids(batch="b")))
    assert first is not None
    assert last is not None
    apply_transition(store, first, State.CANCELLED)
    assert claim_due(store.callbacks) == []
    apply_transition(store, last, State.CANCELLED, NOW + 1)

    claim = only(claim_due(store.callbacks, NOW + 1))
    assert (claim.url(), claim.job_id, claim.type) == (HOOK, None, "batch.settled")
    assert payload(claim) == {
        "type": "batch.settled",
        "timestamp": to_iso8601(NOW + 1),
        "data": {
            "name": "b",
            "namespace": "",
            "states": {state.value: 2 if state is State.CANCELLED else 0 for state in State},
            "total": 2,
            "settled": True,
            "credits": 0,
            "credits_reserved": 0,
            "credits_queued": 0,
            "failed_by_code": {},
            "stopped": None,
            "source": "library",
        },
    }
    assert {**queue.batch("b").as_dict(), "source": "library"} == payload(claim)["data"]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE])
def test_a_batch_settles_with_its_last_job_in_any_final_state_or_unsure(
    store: JobStore, queue: VoiceQueue, state: State
) -> None:
    """An unsure job waits for an operator, so the batch does not change by itself."""
    queue.set_batch_callback("b", HOOK)
    job_in_state(store, state, voice(batch="b"))

    assert types(claim_due(store.callbacks)) == ["batch.settled"]


def test_an_expired_job_and_its_batch_are_reported(store: JobStore, queue: VoiceQueue) -> None:
    """The job was not started in time."""
    queue.set_batch_callback("b", HOOK)
    [job_id] = enqueue_jobs(store, voice_with_callback(batch="b", start_within_s=5))
    fail_job(store, get_job(store, job_id), FailureCode.EXPIRED, NOW + 6)

    assert sorted(types(claim_due(store.callbacks, NOW + 6))) == ["batch.settled", "job.failed"]


def test_a_batch_is_reported_again_when_further_jobs_settle(store: JobStore, queue: VoiceQueue) -> None:
    """In order, like the callbacks of a job; other batches are not reported."""
    queue.set_batch_callback("b", HOOK)
    job_in_state(store, State.CANCELLED, voice(batch="b", key="1"))
    job_in_state(store, State.CANCELLED, voice(batch="other", key="2"))
    job_in_state(store, State.CANCELLED, voice(batch="b", key="3"), NOW + 1)

    first = only(claim_due(store.callbacks, NOW + 1))
    store.callbacks.mark_delivered(first.id, NOW + 1)
    second = only(claim_due(store.callbacks, NOW + 1))
    assert [payload(claim)["data"]["total"] for claim in (first, second)] == [1, 2]


def test_a_batch_with_unsure_jobs_is_reported_once_more_when_none_is_left(store: JobStore, queue: VoiceQueue) -> None:
    """Not after each decision: the last callback has the final counts."""
    queue.set_batch_callback("b", HOOK)
    unsure = [job_in_state(store, State.UNSURE, voice(batch="b", key=str(n))) for n in range(3)]
    assert deliver_all(store) == ["batch.settled"] * 3  # the jobs were enqueued one after the other

    for job in unsure[:2]:
        apply_transition(store, job, State.FAILED)
        assert claim_due(store.callbacks) == []
    apply_transition(store, unsure[2], State.FAILED)

    claim = only(claim_due(store.callbacks))
    assert payload(claim)["data"]["states"]["failed"] == 3


def test_a_batch_callback_uses_the_url_at_delivery(store: JobStore, queue: VoiceQueue) -> None:
    """It is undeliverable once the batch has no URL."""
    queue.set_batch_callback("b", HOOK)
    job_in_state(store, State.CANCELLED, voice(batch="b"))
    queue.set_batch_callback("b", f"{HOOK}/new")
    claim = only(claim_due(store.callbacks))
    assert claim.url() == f"{HOOK}/new"

    queue.set_batch_callback("b", None)
    with pytest.raises(UndeliverableError, match="has no callback URL"):
        only(claim_due(store.callbacks, NOW + LEASE)).url()


@pytest.mark.parametrize(("name", "url"), [("b", "ftp://x"), ("b", "hooks.example"), ("no name", HOOK)])
def test_an_invalid_url_or_batch_name_is_rejected(queue: VoiceQueue, name: str, url: str) -> None:
    """A batch callback needs an HTTP URL and a valid batch name."""
    with pytest.raises(ValueError, match="must be"):
        queue.set_batch_callback(name, url)


# ── unreadable records ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value"),
    [("spec", "{"), ("spec", '{"callback_url": "x"}'), ("spec", '{"new": 1}'), ("spec", "[]")],
)
def test_a_job_with_an_unreadable_spec_is_undeliverable(
    store: JobStore, redis: Redis, prefix: str, field: str, value: str
) -> None:
    """Another release may have written it; the callback is not retried."""
    job = job_in_state(store, State.FAILED, voice_with_callback())
    redis.hset(f"{{{prefix}}}:job:{job.id}", field, value)

    with pytest.raises(UndeliverableError, match="cannot read"):
        only(claim_due(store.callbacks)).url()


@pytest.mark.parametrize(
    "data",
    ["{", "[]", "{}", '{"state": "odd"}', '{"state": "failed", "stage": "voice", "version": "x", "created": "1"}'],
)
def test_a_callback_with_an_unreadable_snapshot_is_undeliverable(
    store: JobStore, redis: Redis, prefix: str, data: str
) -> None:
    """For any error that reading it raises."""
    job_in_state(store, State.FAILED, voice_with_callback())
    [callback] = store.callbacks.pending()
    redis.hset(f"{{{prefix}}}:callback:{callback.id}", "snapshot", data)

    with pytest.raises(UndeliverableError, match="cannot read"):
        only(claim_due(store.callbacks)).body()


def test_an_unreadable_spec_does_not_block_a_transition(store: JobStore, redis: Redis, prefix: str) -> None:
    """The job settles without a callback."""
    job = job_in_state(store, State.PENDING, voice_with_callback())
    redis.hset(f"{{{prefix}}}:job:{job.id}", "spec", '{"callback_url": ')

    assert store.apply_transitions([transition_of(job, State.FAILED)], NOW) == [True]
    assert store.counts_by_state()[State.FAILED] == 1
