"""The audit finds differences between records and indexes or counters, and the repair removes exactly those."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from tests.conftest import eventually
from tests.store.damage import DAMAGES, Damaged, consistent_store
from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import numbered_voices, voice
from voicequeue import FailureCode, State
from voicequeue.domain.budgets import spent_fields
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.expected_state import ExpectedState
from voicequeue.storage.audit.findings import CounterMismatch, Finding, IndexMismatch, NotComparable
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

prefixes = itertools.count()


@pytest.fixture
def damaged(redis: Redis, store: JobStore, prefix: str) -> Damaged:
    """Return a store with a job in every reachable state."""
    return consistent_store(redis, store, prefix)


def repaired(redis: Redis, prefix: str) -> list[Finding]:
    """Repair the findings of an audit."""
    return repair(redis, prefix, audit(redis, prefix), NOW + 9)


# ── idle queues ───────────────────────────────────────────────────────────────────────────────────


def test_a_consistent_store_has_no_findings(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Every index and counter agrees with the records; a repair changes nothing."""
    before = dump_keys(redis, prefix)

    assert audit(redis, prefix) == []
    assert repaired(redis, prefix) == []
    assert dump_keys(redis, prefix) == before


def test_an_empty_store_has_no_findings(redis: Redis, prefix: str) -> None:
    """No job was ever enqueued."""
    assert audit(redis, prefix) == []


@pytest.mark.parametrize("deed", DAMAGES)
def test_each_damage_is_found_and_repaired(redis: Redis, prefix: str, damaged: Damaged, deed: str) -> None:
    """It is the only finding; after the repair indexes and counters agree with the records."""
    expected = DAMAGES[deed](damaged)

    findings = audit(redis, prefix)

    assert [str(finding) for finding in findings] == [expected]
    assert repair(redis, prefix, findings, NOW) == findings
    assert audit(redis, prefix) == []
    assert_consistent(redis, prefix)


@given(deeds=st.permutations(list(DAMAGES)), how_many=st.integers(1, len(DAMAGES)))
def test_any_combination_of_damage_is_repaired(valkey_url: str, deeds: list[str], how_many: int) -> None:
    """The order does not matter."""
    prefix = f"ruin{next(prefixes)}"
    with connect(valkey_url) as redis:
        damaged = consistent_store(redis, JobStore(redis, prefix), prefix)
        records = {key: value for key, value in dump_keys(redis, prefix).items() if ":job:" in key}
        expected = {DAMAGES[deed](damaged) for deed in deeds[:how_many]}

        findings = audit(redis, prefix)

        assert {str(finding) for finding in findings} == expected
        repair(redis, prefix, findings, NOW)
        assert audit(redis, prefix) == []
        assert_consistent(redis, prefix)
        after = {key: value for key, value in dump_keys(redis, prefix).items() if ":job:" in key}
        moved = {key for key in records if after[key] != records[key]}
        assert moved <= {damaged.key(f"job:{damaged.jobs[State.WAITING]}")}  # which makes its voice itself now


def test_deleted_indexes_are_restored(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Every score is restored, except in flight: there jobs are due now, so that maintenance reconciles them."""
    before = dump_keys(redis, prefix)
    lines = ["lane:1:", "lane:1:b"]
    deleted = [*lines, "lanes:1", "in_flight", "batches", "batch:b", "batch:b:jobs", "counters"]
    redis.delete(*(damaged.key(name) for name in deleted), *(damaged.key(f"state:{state}") for state in State))

    repaired(redis, prefix)

    assert_consistent(redis, prefix)
    after = dump_keys(redis, prefix)
    assert set(after[damaged.key("in_flight")].values()) == {NOW + 9}
    for name in (*lines, "batches", "batch:b:jobs", *(f"state:{state}" for state in damaged.jobs)):
        if name != "state:queued":
            assert after[damaged.key(name)] == pytest.approx(before[damaged.key(name)], abs=1e-5)


def test_a_late_job_may_be_listed(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """A failed or cancelled job may be in that index or not."""
    redis.zadd(damaged.key("late_results"), {damaged.jobs[State.FAILED]: NOW, damaged.jobs[State.CANCELLED]: NOW})

    assert audit(redis, prefix) == []


def test_an_unknown_state_is_reported_and_left_alone(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """This release does not know its indexes."""
    job_id = damaged.jobs[State.CANCELLED]
    redis.hset(damaged.key(f"job:{job_id}"), "state", "resting")
    redis.hincrby(damaged.key("batch:b"), "cancelled", -1)
    redis.hincrby(damaged.key("batch:b"), "resting", 1)
    redis.hincrby(damaged.key("state_counts"), "cancelled:voice", -1)
    redis.hincrby(damaged.key("state_counts"), "resting:voice", 1)
    before = dump_keys(redis, prefix)

    [finding] = audit(redis, prefix)

    assert str(finding) == f"records: job {job_id} is in the state 'resting', which this release does not know"
    assert repair(redis, prefix, [finding], NOW) == []
    assert dump_keys(redis, prefix) == before


# ── changes since the audit ───────────────────────────────────────────────────────────────────────


def test_a_job_that_has_changed_is_left_alone(redis: Redis, store: JobStore, prefix: str) -> None:
    """The repair was decided for an earlier version."""
    job = job_in_state(store, State.PENDING)
    redis.zrem(f"{{{prefix}}}:in_flight", job.id)
    findings = audit(redis, prefix)
    apply_transition(store, job, State.SUCCEEDED)

    assert repair(redis, prefix, findings, NOW) == []
    assert_consistent(redis, prefix)


def test_a_slot_that_is_rescheduled_meanwhile_keeps_its_due_time(redis: Redis, store: JobStore, prefix: str) -> None:
    """The repair only adds missing entries."""
    job = job_in_state(store, State.PENDING)
    finding = IndexMismatch("in_flight", job.id, True, str(job.version))

    assert repair(redis, prefix, [finding], NOW + 50) == []
    assert redis.zscore(f"{{{prefix}}}:in_flight", job.id) == NOW


def test_a_counter_that_is_not_a_number_is_repaired(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """It was edited by hand; it counts as 0."""
    for name in ("batch:b", "state_counts"):
        field = "failed" if name == "batch:b" else "failed:voice"
        redis.hset(damaged.key(name), field, "many")

    findings = audit(redis, prefix)
    repair(redis, prefix, findings, NOW)

    assert {str(finding).partition(":")[0] for finding in findings} == {"batch b", "state_counts"}
    assert audit(redis, prefix) == []


def test_concurrent_repairs_correct_once(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Both have the same findings; neither the second nor a retry may add the amount again."""
    redis.hincrby(damaged.key("batch:b"), "succeeded", 5)
    findings = audit(redis, prefix)

    assert repair(redis, prefix, findings, NOW) == findings
    assert repair(redis, prefix, findings, NOW) == []
    assert_consistent(redis, prefix)


def test_balances_with_wrong_sums_are_deleted(redis: Redis, store: JobStore, prefix: str) -> None:
    """They contain the wrong spent credits; no conclusion on unsure charges is drawn from them."""
    job_in_state(store, State.PENDING, voice(batch="b"))
    balances = f"{{{prefix}}}:balances"
    store.flow_control.record_balance(100, spent_before=4, requested_at=NOW, now=NOW)
    redis.hincrby(f"{{{prefix}}}:batch:b", "credits", 4)
    repaired(redis, prefix)
    assert redis.llen(balances) == 1

    redis.hincrby(f"{{{prefix}}}:counters", "voice.credits", 4)
    repaired(redis, prefix)

    assert redis.llen(balances) == 0
    assert store.credits_spent() == 4
    store.flow_control.record_balance(100, spent_before=store.credits_spent(), requested_at=NOW, now=NOW)
    assert [balance.is_quiet for balance in store.flow_control.balances()] == [True]


def test_a_wrong_counter_is_repaired_while_jobs_change(redis: Redis, store: JobStore, prefix: str) -> None:
    """The difference stays the same."""
    job = job_in_state(store, State.PENDING, voice(batch="b"))
    redis.hincrby(f"{{{prefix}}}:batch:b", "succeeded", 5)
    findings = audit(redis, prefix)
    apply_transition(store, job, State.SUCCEEDED)

    assert repair(redis, prefix, findings, NOW) == findings
    assert_consistent(redis, prefix)


# ── running queues ────────────────────────────────────────────────────────────────────────────────


def whole_lives(store: JobStore, number: int, stop: threading.Event, progress: list[int]) -> None:
    """Take the jobs of a batch through their whole lives repeatedly."""
    chance = random.Random(number)
    store_key = f"lives-{number}"
    for job_number in itertools.count():
        if stop.is_set():
            return
        [job_id] = enqueue_jobs(store, voice(batch=f"b{number}", key=f"{store_key}-{job_number}"))
        while get_job(store, job_id).state is State.QUEUED and not stop.is_set():
            store.admit(NOW)
        if get_job(store, job_id).state is not State.ADMITTED:
            return
        claim_admitted(store, job_id)
        pending = accept_order(store, job_id)
        if chance.random() < 0.5:
            fail_job(store, pending, FailureCode.UPSTREAM_FAILED)
        else:
            apply_transition(store, pending, State.SUCCEEDED)
        progress.append(job_number)


def to_and_fro(store: JobStore, job_ids: list[str], stop: threading.Event, progress: list[int]) -> None:
    """Fail and retry the jobs of a batch repeatedly."""
    for number in itertools.count():
        if stop.is_set():
            return
        job = get_job(store, job_ids[number % len(job_ids)])
        if job.state is State.FAILED:
            apply_transition(store, job, State.PENDING)
        else:
            fail_job(store, job, FailureCode.DEADLINE)
        progress.append(number)


@contextmanager
def changing(valkey_url: str, prefix: str, *, enqueueing: bool) -> Iterator[list[int]]:
    """Run threads that change jobs continuously."""
    stop, progress = threading.Event(), list[int]()
    with connect(valkey_url) as redis:
        store = JobStore(redis, prefix)
        job_ids = [job_in_state(store, State.PENDING, spec).id for spec in numbered_voices(60, batch="b")]
        threads = [threading.Thread(target=to_and_fro, args=(store, job_ids[n::2], stop, progress)) for n in range(2)]
        if enqueueing:
            threads.append(threading.Thread(target=whole_lives, args=(store, 0, stop, progress)))
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(progress) > 20)
            yield progress
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@pytest.mark.endurance
def test_a_consistent_store_has_no_findings_while_jobs_change(valkey_url: str, redis: Redis, prefix: str) -> None:
    """A change during the audit is no finding."""
    with changing(valkey_url, prefix, enqueueing=False) as progress:
        enqueue_jobs(JobStore(redis, prefix), *[voice(key=f"resting-{n}", batch="resting") for n in range(1_500)])
        before = len(progress)
        for _ in range(3):
            assert audit(redis, prefix) == []
        assert len(progress) > before

    assert_consistent(redis, prefix)


def test_a_consistent_store_has_no_findings_while_jobs_are_enqueued(valkey_url: str, redis: Redis, prefix: str) -> None:
    """At worst the counters of their batch cannot be compared."""
    with changing(valkey_url, prefix, enqueueing=True) as progress:
        before = len(progress)
        for _ in range(5):
            assert set(audit(redis, prefix)) <= {NotComparable("batch:b0")}
        assert len(progress) > before

    assert_consistent(redis, prefix)


def test_damage_is_found_and_repaired_while_jobs_change(valkey_url: str, redis: Redis, prefix: str) -> None:
    """Exactly the damage is found, also in the changing batch."""
    root = f"{{{prefix}}}:"
    with changing(valkey_url, prefix, enqueueing=False) as progress:
        redis.zadd(f"{root}in_flight", {"ghost": 1})
        redis.hincrby(f"{root}batch:b", "failed", 3)
        redis.hincrby(f"{root}batch:b", "credits", -4)
        redis.hincrby(f"{root}counters", "voice.credits", 8)
        before = len(progress)

        findings = audit(redis, prefix)

        assert [finding.kind for finding in findings] == [
            "in_flight: too much",
            "batch:*: counters",
            "batch:*: counters",
            "counters",
        ]
        assert [f.actual - f.expected for f in findings if isinstance(f, CounterMismatch)] == [-4, 3, 8]
        assert repair(redis, prefix, findings, NOW) == findings
        assert audit(redis, prefix) == []
        assert len(progress) > before

    assert_consistent(redis, prefix)


# ── following changes ─────────────────────────────────────────────────────────────────────────────


def test_the_sums_follow_changes_during_the_audit(redis: Redis, store: JobStore, prefix: str) -> None:
    """Every transition and charge is followed: the sums are those of the moment of the counters."""
    job = job_in_state(store, State.PENDING, voice(batch="b"))
    enqueue_jobs(store, *numbered_voices(1_500, batch="b"))
    expected_state = ExpectedState(redis, f"{{{prefix}}}:")
    expected_state.read()
    apply_transition(store, job, State.SUCCEEDED)
    store.admit(NOW, at_most=1_200)

    looked = expected_state.follow_changes(["batch:b"])

    expected = {"succeeded": 1, "queued": 300, "admitted": 1_200, "credits": 4, "reserved": 4_800}
    expected["queued_credits"] = 300 * 4
    expected |= dict.fromkeys(spent_fields(NOW).values(), 4)
    assert (+Counter(looked["batch:b"]), +expected_state.sums["batch:b"]) == (expected, expected)


def test_a_batch_is_compared_after_its_new_jobs_are_read(redis: Redis, store: JobStore, prefix: str) -> None:
    """The event of new jobs contains only their batch."""
    expected_state = ExpectedState(redis, f"{{{prefix}}}:")
    expected_state.read()
    enqueue_jobs(store, *numbered_voices(3, batch="b"))

    assert expected_state.follow_changes(["batch:b"]) == {}
    expected_state.read_new()

    assert expected_state.follow_changes(["batch:b"]) == {"batch:b": {"queued": 3, "queued_credits": 12}}
    assert expected_state.sums["batch:b"]["queued"] == 3


def test_queued_credits_are_compared_after_new_jobs_are_read(redis: Redis, store: JobStore, prefix: str) -> None:
    """Also those of jobs without a batch, whose event names nothing."""
    expected_state = ExpectedState(redis, f"{{{prefix}}}:")
    expected_state.read()
    enqueue_jobs(store, *numbered_voices(3))

    assert expected_state.follow_changes(["backlog"]) == {}
    expected_state.read_new()

    assert expected_state.follow_changes(["backlog"]) == {"backlog": {"queued_credits": 12}}
    assert expected_state.sums["backlog"]["queued_credits"] == 12


def test_lost_events_make_counters_unclear(
    redis: Redis, store: JobStore, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was trimmed or lost: no uncertain difference is reported."""
    job_in_state(store, State.PENDING, voice(batch="b"))
    redis.hincrby(f"{{{prefix}}}:batch:b", "succeeded", 1)
    monkeypatch.setattr(ExpectedState, "read", lambda _: redis.xtrim(f"{{{prefix}}}:events", maxlen=0))

    assert {NotComparable("batch:b"), NotComparable("counters")} <= set(audit(redis, prefix))
