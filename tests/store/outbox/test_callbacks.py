"""Callbacks are handed out, claimed, retried in order, and kept if they cannot be delivered."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from tests.store.life import NOW, fail_job, job_in_state
from tests.store.outbox.callback_steps import (
    LEASE,
    claim_due,
    deliver_all,
    only,
    retry,
    submit_again,
    voice_with_callback,
)
from voicequeue import FailureCode, State
from voicequeue.domain.status import CallbackCounts
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.callbacks import CallbackClaim
from voicequeue.storage.job_store import JobStore

# ── leases and claims ─────────────────────────────────────────────────────────────────────────────


def test_a_callback_is_handed_out_once_until_its_lease_or_claim_expires(store: JobStore) -> None:
    """If the message is lost or its worker is killed, the same callback is due again."""
    job_in_state(store, State.FAILED, voice_with_callback())
    callbacks = store.callbacks

    [callback_id] = callbacks.lease(NOW, lease_s=LEASE)
    assert callbacks.lease(NOW + 1, lease_s=LEASE) == []
    assert callbacks.lease(NOW + LEASE, lease_s=LEASE) == [callback_id]
    claim = only(callbacks.claim([callback_id], NOW + LEASE, lease_s=LEASE))
    assert callbacks.claim([callback_id], NOW + LEASE + 1, lease_s=LEASE) == []
    assert only(claim_due(callbacks, NOW + 2 * LEASE)).id == claim.id


def test_unclaimed_callbacks_are_limited(store: JobStore) -> None:
    """Messages do not pile up where no worker consumes them."""
    for number in range(5):
        job_in_state(store, State.FAILED, voice_with_callback(key=str(number)))
    callbacks = store.callbacks

    ids = callbacks.lease(NOW, lease_s=LEASE, limit=3)
    assert len(ids) == 3
    assert callbacks.lease(NOW, lease_s=LEASE, limit=3) == []
    callbacks.claim(ids[:2], NOW, lease_s=LEASE)
    assert len(callbacks.lease(NOW, lease_s=LEASE, limit=3)) == 2


def test_a_failed_attempt_is_repeated_at_its_time(store: JobStore) -> None:
    """With the reason and the number of attempts."""
    job_in_state(store, State.FAILED, voice_with_callback())
    claim = only(claim_due(store.callbacks))

    assert store.callbacks.schedule_retry(claim.id, NOW + 1, NOW + 20, "HTTP 500", is_attempted=True)

    [pending] = store.callbacks.pending()
    assert (pending.attempts, pending.last_error, pending.due_at) == (1, "HTTP 500", NOW + 20)
    assert claim_due(store.callbacks, NOW + 19) == []
    second = only(claim_due(store.callbacks, NOW + 20))
    assert (second.attempts, second.deliverable_since) == (1, NOW)


def test_the_outcome_of_a_finished_callback_is_not_written(store: JobStore) -> None:
    """A worker whose claim expired reports too late."""
    job_in_state(store, State.FAILED, voice_with_callback())
    claim = only(claim_due(store.callbacks))
    assert store.callbacks.mark_delivered(claim.id, NOW)

    assert not store.callbacks.mark_delivered(claim.id, NOW)
    assert not store.callbacks.schedule_retry(claim.id, NOW, NOW + 5, "HTTP 500", is_attempted=True)
    assert not store.callbacks.mark_undelivered(claim.id, NOW, "HTTP 500", is_attempted=True)
    assert store.callbacks.counts(NOW) == CallbackCounts(delivered=1)


def test_workers_are_counted_by_their_heartbeats(store: JobStore) -> None:
    """Heartbeats older than a day are deleted."""
    store.heartbeats["callbacks"].record("a", NOW)
    store.heartbeats["callbacks"].record("b", NOW + 20)

    assert store.callbacks.counts(NOW + 5).workers == 1
    store.heartbeats["callbacks"].record("b", NOW + 90_000)
    assert store.callbacks.counts(0).workers == 1


# ── undelivered ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def two(store: JobStore) -> list[CallbackClaim]:
    """Return the claims of a job's first callback, which is undelivered, and of its second, which is claimed."""
    job = job_in_state(store, State.FAILED, voice_with_callback(batch="b"))
    retry(store, job)
    fail_job(store, submit_again(store, job.id), FailureCode.UPSTREAM_FAILED, NOW)
    first = only(claim_due(store.callbacks))
    assert store.callbacks.mark_undelivered(first.id, NOW, "HTTP 500", is_attempted=True)
    return [first, only(claim_due(store.callbacks))]


def test_an_undelivered_callback_is_kept_and_does_not_block_the_next(store: JobStore, two: list[CallbackClaim]) -> None:
    """It is listed with the reason, and not attempted again."""
    first, second = two

    [undelivered] = store.callbacks.undelivered()
    assert (undelivered.id, undelivered.undelivered_at, undelivered.due_at) == (first.id, NOW, None)
    assert (undelivered.last_error, undelivered.attempts) == ("HTTP 500", 1)
    assert first.id != second.id
    assert store.callbacks.counts(NOW) == CallbackCounts(pending=1, undelivered=1)
    assert claim_due(store.callbacks, NOW + 1e6)[0].id == second.id


def test_a_redelivered_callback_precedes_later_callbacks_of_its_job(store: JobStore, two: list[CallbackClaim]) -> None:
    """Its retry period starts again; the later callback waits, even if its claimed attempt fails."""
    first, second = two
    assert store.callbacks.redeliver([first.id, "gone"], NOW + 100) == [True, False]

    assert store.callbacks.schedule_retry(second.id, NOW + 101, NOW + 102, "HTTP 500", is_attempted=True)
    again = only(claim_due(store.callbacks, NOW + 110))
    assert (again.id, again.attempts, again.deliverable_since) == (first.id, 0, NOW + 100)
    assert claim_due(store.callbacks, NOW + 120) == []
    store.callbacks.mark_delivered(first.id, NOW + 120)
    assert only(claim_due(store.callbacks, NOW + 120)).id == second.id


def test_the_delivery_of_a_later_callback_does_not_end_the_claim_of_an_earlier_one(
    store: JobStore, two: list[CallbackClaim]
) -> None:
    """The earlier one is due again only when its claim expires."""
    first, second = two
    store.callbacks.redeliver([first.id], NOW + 1)
    assert only(claim_due(store.callbacks, NOW + 1)).id == first.id

    assert store.callbacks.mark_delivered(second.id, NOW + 2)

    assert claim_due(store.callbacks, NOW + 3) == []
    assert only(claim_due(store.callbacks, NOW + 1 + LEASE)).id == first.id


def test_redelivering_a_pending_callback_makes_it_due(store: JobStore) -> None:
    """Its attempts and its retry period are kept."""
    job_in_state(store, State.FAILED, voice_with_callback())
    claim = only(claim_due(store.callbacks))
    store.callbacks.schedule_retry(claim.id, NOW, NOW + 3_600, "HTTP 500", is_attempted=True)

    assert store.callbacks.redeliver([claim.id], NOW + 5) == [True]

    again = only(claim_due(store.callbacks, NOW + 5))
    assert (again.deliverable_since, again.attempts) == (NOW, 1)


# ── damage ────────────────────────────────────────────────────────────────────────────────────────

#: Damage to the two callbacks of one job (the first is due, the second waits), and the finding of the audit.
DAMAGE = {
    "the first is not pending": (("ZREM", "callbacks:pending", "FIRST"), "FIRST is not scheduled for delivery"),
    "the first is blocked": (("ZADD", "callbacks:pending", "+inf", "FIRST"), "FIRST is not scheduled for delivery"),
    "the second has no order": (("ZREM", "callbacks:order:job:JOB", "SECOND"), "SECOND is not scheduled for delivery"),
    "the first has no record": (("DEL", "callback:FIRST"), "FIRST has no record"),
    "a ghost is pending": (("ZADD", "callbacks:pending", "1", "ghost"), "ghost has no record"),
    "a ghost is undelivered": (("ZADD", "callbacks:undelivered", "1", "ghost"), "ghost has no record"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_audit_finds_callbacks_that_would_never_be_delivered(
    store: JobStore, redis: Redis, prefix: str, damage: str
) -> None:
    """After the repair every callback that has a record is delivered in order."""
    job = retry(store, job_in_state(store, State.FAILED, voice_with_callback()))
    fail_job(store, submit_again(store, job.id), FailureCode.UPSTREAM_FAILED, NOW + 1)
    first, second = (callback.id for callback in store.callbacks.pending())
    command, expected = DAMAGE[damage]
    assert audit(redis, prefix) == []

    def filled_in(text: str) -> str:
        return text.replace("FIRST", first).replace("SECOND", second).replace("JOB", job.id)

    run: Any = redis.execute_command
    run(command[0], f"{{{prefix}}}:{filled_in(command[1])}", *map(filled_in, command[2:]))

    findings = audit(redis, prefix)
    assert f"callbacks: {filled_in(expected)}" in [str(finding) for finding in findings]
    while findings := audit(redis, prefix):
        assert repair(redis, prefix, findings, NOW + 2)
    assert len(deliver_all(store, NOW + 2)) == (1 if damage == "the first has no record" else 2)
    assert store.callbacks.counts(NOW).pending == 0


def test_the_repair_drops_callbacks_of_a_deleted_job(store: JobStore, redis: Redis, prefix: str) -> None:
    """Their URL was in the job's record."""
    job = job_in_state(store, State.FAILED, voice_with_callback())
    redis.delete(f"{{{prefix}}}:job:{job.id}")

    findings = [finding for finding in audit(redis, prefix) if finding.kind == "callbacks"]

    assert [str(finding).rpartition(" belongs ")[2] for finding in findings] == ["to a job that does not exist"]
    assert repair(redis, prefix, findings, NOW) == findings
    assert store.callbacks.counts(NOW) == CallbackCounts()
