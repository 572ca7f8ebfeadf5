"""The audit and late transitions during a purge."""

from __future__ import annotations

import threading
from itertools import islice

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.jobs.test_purge import KEPT_S, LATER, purge
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    get_job,
    job_in_state,
)
from tests.support.jobs import numbered_voices, voice
from voicequeue import State
from voicequeue.domain import transitions
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.expected_state import ExpectedState
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

# ── concurrent audits ─────────────────────────────────────────────────────────────────────────────


def test_the_sums_follow_purges_during_the_audit(redis: Redis, store: JobStore, prefix: str) -> None:
    """This holds for any number of purges."""
    jobs = [job_in_state(store, State.SUCCEEDED, spec) for spec in numbered_voices(120, batch="b")]
    enqueue_jobs(store, voice(batch="b"), now=LATER)
    expected_state = ExpectedState(redis, f"{{{prefix}}}:")
    expected_state.read()
    purge(store, LATER)

    looked = expected_state.follow_changes(["batch:b", "counters", "state_counts"])

    assert looked["counters"]["credits"] == expected_state.sums["counters"]["credits"] == 0
    assert looked["batch:b"]["succeeded"] == expected_state.sums["batch:b"]["succeeded"] == 0
    assert looked["state_counts"]["succeeded:voice"] == expected_state.sums["state_counts"]["succeeded:voice"] == 0
    assert not expected_state.records.keys() & {job.id for job in jobs}


def test_too_many_purges_invalidate_the_expected_sums(redis: Redis, store: JobStore, prefix: str) -> None:
    """Also if nothing was purged before the audit."""
    job_in_state(store, State.SUCCEEDED)
    expected_state = ExpectedState(redis, f"{{{prefix}}}:")
    expected_state.read()
    with redis.pipeline(transaction=False) as pipe:
        for number in range(20_200):
            pipe.xadd(f"{{{prefix}}}:purged", {"id": f"job-{number}", "batch": ""}, maxlen=20_000, approximate=True)
        pipe.execute()

    expected_state.follow_changes([])

    assert expected_state.has_lost_changes


def test_a_batch_that_is_deleted_during_the_audit_is_no_finding(
    redis: Redis, store: JobStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no longer listed, and had jobs when they were read."""
    job_in_state(store, State.SUCCEEDED, voice(batch="b"))
    names = ExpectedState.names

    def gone_when_the_records_were_read(expected_state: ExpectedState) -> set[str]:
        purge(store, LATER)
        return names(expected_state)

    monkeypatch.setattr(ExpectedState, "names", gone_when_the_records_were_read)

    assert audit(redis, prefix) == []
    assert store.batches() == []


def test_a_deleted_batch_is_not_repaired(redis: Redis, store: JobStore, prefix: str) -> None:
    """Its counters were wrong before; a new batch with that name starts at 0."""
    job_in_state(store, State.SUCCEEDED, voice(batch="b"))
    redis.hincrby(f"{{{prefix}}}:batch:b", "credits", -3)
    findings = audit(redis, prefix)
    purge(store, LATER)

    repair(redis, prefix, findings, LATER)

    assert [key for key in dump_keys(redis, prefix) if ":batch:" in key] == []


@pytest.mark.endurance
def test_a_consistent_store_has_no_findings_during_purges(valkey_url: str, redis: Redis, prefix: str) -> None:
    """Jobs are purged one at a time, while others are enqueued and settled."""
    stop, purged = threading.Event(), list[int]()

    def come_and_go() -> None:
        with connect(valkey_url) as own:
            store = JobStore(own, prefix)
            while not stop.is_set():
                [job_id] = enqueue_jobs(store, voice())
                apply_transition(store, get_job(store, job_id), State.CANCELLED)
                purged.extend(islice(store.purge(NOW + 1 + KEPT_S, retention_s=KEPT_S, at_most=1), 4))

    store = JobStore(redis, prefix)
    for spec in numbered_voices(200, batch="b"):
        job_in_state(store, State.SUCCEEDED, spec)
    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        eventually(lambda: len(purged) > 5)
        before = len(purged)
        for _ in range(5):
            assert audit(redis, prefix) == []
        assert len(purged) > before
    finally:
        stop.set()
        thread.join()


def test_a_result_for_a_purged_job_changes_nothing(store: JobStore) -> None:
    """A worker had claimed the job before the purge."""
    pending = job_in_state(store, State.PENDING)
    late = transitions.cancel(pending, NOW)
    apply_transition(store, pending, State.CANCELLED)
    purge(store, LATER)

    assert store.apply_transitions([late], LATER) == [False]
    assert store.get([pending.id]) == [None]


def test_a_purge_keeps_pending_jobs_of_a_batch(store: JobStore) -> None:
    """Only settled jobs of the batch are purged."""
    over, flying = enqueue_jobs(store, *numbered_voices(2, batch="b"))
    apply_transition(store, get_job(store, over), State.CANCELLED)
    store.admit(NOW)
    claim_admitted(store, flying)
    accept_order(store, flying)

    assert purge(store, LATER) == 1
    assert list(store.list_ids(batch="b")) == [flying]
