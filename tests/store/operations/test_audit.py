"""The audit finds what indexes and counters say and the records do not, and the repair mends just that."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.conftest import eventually
from tests.store.damage import DEEDS, Damaged, whole
from tests.store.life import NOW, accepted, brought_to, charging, dump, everything_agrees, failed, make, one, put
from tests.support.jobs import numbered, voice
from voicequeue import Code, State
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.expected_state import Books
from voicequeue.storage.audit.findings import Drift, Finding, Misplaced, Unclear
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store

prefixes = itertools.count()


@pytest.fixture
def damaged(redis: Redis, store: Store, prefix: str) -> Damaged:
    """A store with a job in every state that can be reached."""
    return whole(redis, store, prefix)


def mended(redis: Redis, prefix: str) -> list[Finding]:
    """Repair what an audit finds."""
    return repair(redis, prefix, audit(redis, prefix), NOW + 9)


# ── at rest ───────────────────────────────────────────────────────────────────────────────────────


def test_a_sound_store_has_no_findings_and_is_left_as_it_is(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Every index and every counter agrees with the records; repairing changes nothing."""
    before = dump(redis, prefix)

    assert audit(redis, prefix) == []
    assert mended(redis, prefix) == []
    assert dump(redis, prefix) == before


def test_an_empty_store_is_sound(redis: Redis, prefix: str) -> None:
    """Nothing was ever enqueued."""
    assert audit(redis, prefix) == []


@pytest.mark.parametrize("deed", DEEDS)
def test_each_damage_is_named_and_mended(redis: Redis, prefix: str, damaged: Damaged, deed: str) -> None:
    """It is the only finding; then the indexes and counters say what the records say."""
    expected = DEEDS[deed](damaged)

    found = audit(redis, prefix)

    assert [str(finding) for finding in found] == [expected]
    assert repair(redis, prefix, found, NOW) == found
    assert audit(redis, prefix) == []
    everything_agrees(redis, prefix)


@settings(max_examples=15)
@given(deeds=st.permutations(list(DEEDS)), how_many=st.integers(1, len(DEEDS)))
def test_any_damage_together_is_mended(valkey_url: str, deeds: list[str], how_many: int) -> None:
    """Whatever was done, in whatever order."""
    prefix = f"ruin{next(prefixes)}"
    with connect(valkey_url) as redis:
        damaged = whole(redis, Store(redis, prefix), prefix)
        records = {key: value for key, value in dump(redis, prefix).items() if ":job:" in key}
        expected = {DEEDS[deed](damaged) for deed in deeds[:how_many]}

        found = audit(redis, prefix)

        assert {str(finding) for finding in found} == expected
        repair(redis, prefix, found, NOW)
        assert audit(redis, prefix) == []
        everything_agrees(redis, prefix)
        after = {key: value for key, value in dump(redis, prefix).items() if ":job:" in key}
        moved = {key for key in records if after[key] != records[key]}
        assert moved <= {damaged.key(f"job:{damaged.jobs[State.WAITING]}")}  # which makes its voice itself now


def test_indexes_that_are_gone_altogether_come_back_as_they_were(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """With every score, but in flight: there a job is due now, so that the pulse looks after it."""
    before = dump(redis, prefix)
    lines = ["lane:1:", "lane:1:b"]
    gone = [*lines, "lanes:1", "in_flight", "batches", "batch:b", "batch:b:jobs", "counters"]
    redis.delete(*(damaged.key(name) for name in gone), *(damaged.key(f"state:{state}") for state in State))

    mended(redis, prefix)

    everything_agrees(redis, prefix)
    after = dump(redis, prefix)
    assert set(after[damaged.key("in_flight")].values()) == {NOW + 9}
    for name in (*lines, "batches", "batch:b:jobs", *(f"state:{state}" for state in damaged.jobs)):
        if name != "state:queued":
            assert after[damaged.key(name)] == pytest.approx(before[damaged.key(name)], abs=1e-5)


def test_what_may_still_be_late_may_be_listed(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """A failed or cancelled job may stand there, and need not."""
    redis.zadd(damaged.key("late"), {damaged.jobs[State.FAILED]: NOW, damaged.jobs[State.CANCELLED]: NOW})

    assert audit(redis, prefix) == []


def test_a_state_of_another_release_is_told_and_left_alone(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Whoever does not know it cannot say where the job belongs."""
    job_id = damaged.jobs[State.CANCELLED]
    redis.hset(damaged.key(f"job:{job_id}"), "state", "resting")
    redis.hincrby(damaged.key("batch:b"), "cancelled", -1)
    redis.hincrby(damaged.key("batch:b"), "resting", 1)
    redis.hincrby(damaged.key("state_counts"), "cancelled:voice", -1)
    redis.hincrby(damaged.key("state_counts"), "resting:voice", 1)
    before = dump(redis, prefix)

    [found] = audit(redis, prefix)

    assert str(found) == f"records: job {job_id} is in the state 'resting', which this release does not know"
    assert repair(redis, prefix, [found], NOW) == []
    assert dump(redis, prefix) == before


# ── what has happened since ───────────────────────────────────────────────────────────────────────


def test_a_job_that_has_moved_on_is_left_alone(redis: Redis, store: Store, prefix: str) -> None:
    """What was right for its record then may be wrong now."""
    job = brought_to(store, State.PENDING)
    redis.zrem(f"{{{prefix}}}:in_flight", job.id)
    found = audit(redis, prefix)
    make(store, job, State.SUCCEEDED)

    assert repair(redis, prefix, found, NOW) == []
    everything_agrees(redis, prefix)


def test_a_slot_that_somebody_plans_meanwhile_keeps_its_time(redis: Redis, store: Store, prefix: str) -> None:
    """The repair adds only where nothing is."""
    job = brought_to(store, State.PENDING)
    found = Misplaced("in_flight", job.id, True, str(job.version))

    assert repair(redis, prefix, [found], NOW + 50) == []
    assert redis.zscore(f"{{{prefix}}}:in_flight", job.id) == NOW


def test_a_counter_that_is_no_number_counts_nothing_and_is_mended(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Somebody's hand was in it."""
    for name in ("batch:b", "state_counts"):
        field = "failed" if name == "batch:b" else "failed:voice"
        redis.hset(damaged.key(name), field, "many")

    findings = audit(redis, prefix)
    repair(redis, prefix, findings, NOW)

    assert {str(each).partition(":")[0] for each in findings} == {"batch b", "state_counts"}
    assert audit(redis, prefix) == []


def test_two_repairs_at_once_correct_once(redis: Redis, prefix: str, damaged: Damaged) -> None:
    """Both have found the same; the second must not add it again, nor must one that is sent twice."""
    redis.hincrby(damaged.key("batch:b"), "succeeded", 5)
    found = audit(redis, prefix)

    assert repair(redis, prefix, found, NOW) == found
    assert repair(redis, prefix, found, NOW) == []
    everything_agrees(redis, prefix)


def test_balances_that_knew_wrong_sums_are_forgotten(redis: Redis, store: Store, prefix: str) -> None:
    """What was spent stands in them: no conclusion about an unsure charge is drawn from that any more."""
    brought_to(store, State.PENDING, voice(batch="b"))
    balances = f"{{{prefix}}}:balances"
    store.controls.note_balance(100, spent_before=4, asked=NOW, now=NOW)
    redis.hincrby(f"{{{prefix}}}:batch:b", "credits", 4)
    mended(redis, prefix)
    assert redis.llen(balances) == 1

    redis.hincrby(f"{{{prefix}}}:counters", "voice.credits", 4)
    mended(redis, prefix)

    assert redis.llen(balances) == 0
    assert store.credits() == 4
    store.controls.note_balance(100, spent_before=store.credits(), asked=NOW, now=NOW)
    assert [balance.quiet for balance in store.controls.balances()] == [True]


def test_a_drift_is_mended_although_the_jobs_move_on(redis: Redis, store: Store, prefix: str) -> None:
    """What it is off by stays the same."""
    job = brought_to(store, State.PENDING, voice(batch="b"))
    redis.hincrby(f"{{{prefix}}}:batch:b", "succeeded", 5)
    found = audit(redis, prefix)
    make(store, job, State.SUCCEEDED)

    assert repair(redis, prefix, found, NOW) == found
    everything_agrees(redis, prefix)


# ── while jobs move ───────────────────────────────────────────────────────────────────────────────


def whole_lives(store: Store, number: int, stop: threading.Event, made: list[int]) -> None:
    """Jobs of one batch, brought through their lives again and again."""
    chance = random.Random(number)
    store_key = f"lives-{number}"
    for job_number in itertools.count():
        if stop.is_set():
            return
        [job_id] = put(store, voice(batch=f"b{number}", key=f"{store_key}-{job_number}"))
        while one(store, job_id).state is State.QUEUED and not stop.is_set():
            store.admit(NOW)
        if one(store, job_id).state is not State.ADMITTED:
            return
        charging(store, job_id)
        pending = accepted(store, job_id)
        if chance.random() < 0.5:
            failed(store, pending, Code.UPSTREAM_FAILED)
        else:
            make(store, pending, State.SUCCEEDED)
        made.append(job_number)


def to_and_fro(store: Store, job_ids: list[str], stop: threading.Event, made: list[int]) -> None:
    """Jobs of a batch that is complete, which fail and are retried and never come to rest."""
    for number in itertools.count():
        if stop.is_set():
            return
        job = one(store, job_ids[number % len(job_ids)])
        if job.state is State.FAILED:
            make(store, job, State.PENDING)
        else:
            failed(store, job, Code.DEADLINE)
        made.append(number)


@contextmanager
def moving(valkey_url: str, prefix: str, *, enqueueing: bool) -> Iterator[list[int]]:
    """Threads that move jobs all the time."""
    stop, made = threading.Event(), list[int]()
    with connect(valkey_url) as redis:
        store = Store(redis, prefix)
        job_ids = [brought_to(store, State.PENDING, spec).id for spec in numbered(60, batch="b")]
        threads = [threading.Thread(target=to_and_fro, args=(store, job_ids[n::2], stop, made)) for n in range(2)]
        if enqueueing:
            threads.append(threading.Thread(target=whole_lives, args=(store, 0, stop, made)))
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(made) > 20)
            yield made
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_a_sound_store_has_no_findings_while_jobs_move(valkey_url: str, redis: Redis, prefix: str) -> None:
    """However often one looks: what moves while it is read is no finding."""
    with moving(valkey_url, prefix, enqueueing=False) as made:
        put(Store(redis, prefix), *[voice(key=f"resting-{n}", batch="resting") for n in range(3_000)])
        before = len(made)
        for _ in range(5):
            assert audit(redis, prefix) == []
        assert len(made) > before

    everything_agrees(redis, prefix)


def test_a_sound_store_has_no_findings_while_jobs_come(valkey_url: str, redis: Redis, prefix: str) -> None:
    """Jobs are enqueued all the time: at worst their batch cannot be counted."""
    with moving(valkey_url, prefix, enqueueing=True) as made:
        before = len(made)
        for _ in range(5):
            assert set(audit(redis, prefix)) <= {Unclear("batch:b0")}
        assert len(made) > before

    everything_agrees(redis, prefix)


def test_damage_is_found_and_mended_while_jobs_move(valkey_url: str, redis: Redis, prefix: str) -> None:
    """Just the damage, in the batch that is moving too."""
    root = f"{{{prefix}}}:"
    with moving(valkey_url, prefix, enqueueing=False) as made:
        redis.zadd(f"{root}in_flight", {"ghost": 1})
        redis.hincrby(f"{root}batch:b", "failed", 3)
        redis.hincrby(f"{root}batch:b", "credits", -4)
        redis.hincrby(f"{root}counters", "voice.credits", 8)
        before = len(made)

        found = audit(redis, prefix)

        assert [finding.kind for finding in found] == [
            "in_flight: too much",
            "batch:*: counters",
            "batch:*: counters",
            "counters",
        ]
        assert [each.found - each.expected for each in found if isinstance(each, Drift)] == [-4, 3, 8]
        assert repair(redis, prefix, found, NOW) == found
        assert audit(redis, prefix) == []
        assert len(made) > before

    everything_agrees(redis, prefix)


# ── following the moves ───────────────────────────────────────────────────────────────────────────


def test_the_sums_follow_what_moves_after_the_records_were_read(redis: Redis, store: Store, prefix: str) -> None:
    """Every move and every charge, however many: they are what the counters say at that moment."""
    job = brought_to(store, State.PENDING, voice(batch="b"))
    put(store, *numbered(1_500, batch="b"))
    books = Books(redis, f"{{{prefix}}}:")
    books.read()
    make(store, job, State.SUCCEEDED)
    store.admit(NOW, at_most=1_200)

    looked = books.look(["batch:b"])

    expected = {"succeeded": 1, "queued": 300, "admitted": 1_200, "credits": 4, "committed": 4_800}
    assert (+Counter(looked["batch:b"]), +books.sums["batch:b"]) == (expected, expected)


def test_a_batch_is_compared_once_its_new_jobs_are_known(redis: Redis, store: Store, prefix: str) -> None:
    """Of new jobs the events tell the batch alone."""
    books = Books(redis, f"{{{prefix}}}:")
    books.read()
    put(store, *numbered(3, batch="b"))

    assert books.look(["batch:b"]) == {}
    books.read_new()

    assert books.look(["batch:b"]) == {"batch:b": {"queued": 3}}
    assert books.sums["batch:b"]["queued"] == 3


def test_moves_that_can_no_longer_be_followed_make_counters_unclear(
    redis: Redis, store: Store, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events were trimmed, or Redis lost them: nothing is told of which nobody can be sure."""
    brought_to(store, State.PENDING, voice(batch="b"))
    redis.hincrby(f"{{{prefix}}}:batch:b", "succeeded", 1)
    monkeypatch.setattr(Books, "read", lambda _: redis.xtrim(f"{{{prefix}}}:events", maxlen=0))

    assert {Unclear("batch:b"), Unclear("counters")} <= set(audit(redis, prefix))
