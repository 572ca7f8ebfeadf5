"""Summaries of ranges of jobs: when they are built and deleted, and what the audit checks."""

from __future__ import annotations

from itertools import islice

import pytest
from redis import Redis

from config.settings import Settings
from tests.store.client.summary_steps import LATER, SMALL, crowd, found_ids, keys_of, summarize
from tests.store.life import (
    NOW,
    apply_transition,
    enqueue_jobs,
)
from tests.support.jobs import voice
from voicequeue import State, VoiceQueue
from voicequeue.domain.token_filter import ANYTHING
from voicequeue.storage import summaries
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.findings import SummaryMismatch
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.summaries import CHECK_INTERVAL_S, KEEPS_SUMMARIES, OLD_S, SETTLED_S, Size
from workers.process_info import process_facts


def filters_of(redis: Redis, prefix: str) -> set[str]:
    """Return the names of the filters of summaries."""
    return {name for name in keys_of(redis, prefix) if name.startswith("summary:")}


def test_jobs_that_are_new_or_too_few_have_no_summary(store: JobStore, redis: Redis, prefix: str) -> None:
    """Calls may be late, so that jobs still join the newest range."""
    enqueue_jobs(store, *(voice() for _ in range(5)))

    assert summarize(store, NOW + SETTLED_S) == 0
    assert summarize(store, size=Size(10, smallest=6)) == 0
    assert keys_of(redis, prefix) == set()
    assert summarize(store) == 5


def test_a_summary_is_built_once(store: JobStore, redis: Redis, prefix: str) -> None:
    """Until it is old: an older release, or a process that was frozen, may have changed jobs without deleting it.

    Old ones are replaced one after the other.
    """
    enqueue_jobs(store, *(voice() for _ in range(30)))

    assert summarize(store) == 30
    assert summarize(store, LATER + OLD_S - 1) == 0
    counts = []
    for _ in store.indexes.summaries.build(lambda: LATER + OLD_S, SMALL):
        counts.append(len(filters_of(redis, prefix)))
    assert min(counts) == 2
    assert counts.count(2) >= 3


def test_small_summaries_grow_with_their_index(store: JobStore, redis: Redis, prefix: str) -> None:
    """A summary that is not full is joined with what follows, when that has become as large."""
    for number in range(16):
        enqueue_jobs(store, voice(), now=NOW + number)
        summarize(store, LATER + number, Size(full=16, smallest=2))

    assert redis.zcard(f"{{{prefix}}}:summaries:lane:1:") == 1


def test_summaries_end_with_their_jobs(store: JobStore, redis: Redis, prefix: str) -> None:
    """A range that most of its jobs have left costs more than it saves."""
    ids = enqueue_jobs(store, *(voice() for _ in range(20)))
    summarize(store)
    for job in store.get(ids):
        assert job is not None
        apply_transition(store, job, State.CANCELLED, LATER)
    summarize(store, LATER + 1)

    assert keys_of(redis, prefix) == set()


def test_there_are_no_summaries_while_an_older_release_runs(store: JobStore, redis: Redis, prefix: str) -> None:
    """Its processes change jobs, and do not delete summaries."""
    crowd(store)
    store.heartbeats["worker"].record("new", LATER, {KEEPS_SUMMARIES: True})
    assert summarize(store) == 6
    store.heartbeats["gateway"].record("old", LATER, {"version": "0.1.0"})

    assert summarize(store) == 0
    assert keys_of(redis, prefix) == set()
    store.heartbeats["gateway"].remove("old")
    assert summarize(store) == 6


@pytest.mark.parametrize("kind", ["worker", "gateway", "callbacks", "archive"])
def test_processes_of_this_release_delete_summaries_where_it_is_necessary(store: JobStore, kind: str) -> None:
    """Their heartbeats say so."""
    crowd(store)
    store.heartbeats[kind].record("new", LATER, process_facts(Settings(_env_file=None), kind))

    assert summarize(store) == 6


def test_a_builder_notices_that_an_older_release_was_started(store: JobStore, redis: Redis, prefix: str) -> None:
    """A builder may take an hour, and every few seconds it looks who runs."""
    crowd(store, 100)
    now = LATER
    building = store.indexes.summaries.build(lambda: now, SMALL)
    assert sum(islice(building, 20)) > 0
    store.heartbeats["worker"].record("old", now)
    assert next(building, None) is not None
    now += CHECK_INTERVAL_S

    assert next(building, None) is None
    assert keys_of(redis, prefix) == set()


def test_a_builder_that_takes_long_is_not_disturbed_by_another(store: JobStore, redis: Redis, prefix: str) -> None:
    """It leaves what the other one has just started."""
    crowd(store, 100)
    now = LATER
    building = store.indexes.summaries.build(lambda: now, SMALL)
    first = sum(islice(building, 20))
    now += 3_600
    list(islice(building, 2))

    assert first + sum(building) + summarize(store, now) in range(80, 101)
    assert redis.zcard(f"{{{prefix}}}:summaries:lane:1:") == 10


UNREADABLE = pytest.mark.parametrize(
    ("field", "value"),
    [("spec", "{"), ("spec", "[]"), ("created", ""), ("version", "x"), ("orders", "[1]"), ("message_ids", "5")],
)


@UNREADABLE
def test_a_record_that_cannot_be_read_leaves_its_range_without_a_summary(
    store: JobStore, redis: Redis, prefix: str, field: str, value: str
) -> None:
    """Other ranges have theirs."""
    ids = crowd(store, 10)
    crowd(store, 10, now=NOW + 1)
    redis.hset(f"{{{prefix}}}:job:{ids[0]}", field, value)

    summarize(store)

    assert len(filters_of(redis, prefix)) == 1


@UNREADABLE
def test_the_audit_ends_despite_a_record_that_cannot_be_read(
    store: JobStore, redis: Redis, prefix: str, field: str, value: str
) -> None:
    """It still finds a summary that lacks another job of the range."""
    ids = crowd(store, 10)
    summarize(store)
    redis.hset(f"{{{prefix}}}:job:{ids[0]}", field, value)
    redis.hset(f"{{{prefix}}}:job:{ids[3]}", "message_ids", '["m-2"]')

    wrong = [finding for finding in audit(redis, prefix) if isinstance(finding, SummaryMismatch)]

    assert [finding.job_id for finding in wrong] == [ids[3]]


def test_names_with_very_many_words_have_a_summary_that_excludes_nothing(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build a useful one would take long. It is not tried again."""
    monkeypatch.setattr(summaries, "TOKENS_MAX", 20)
    [job_id, *_] = enqueue_jobs(store, voice(name="Anna of the many words"), *(voice() for _ in range(5)))

    assert summarize(store) == 6
    assert [redis.get(f"{{{prefix}}}:{name}") for name in filters_of(redis, prefix)] == [ANYTHING]
    assert found_ids(queue, "anna") == [job_id]
    assert summarize(store) == 0


def test_a_builder_writes_no_filter_of_a_summary_that_was_deleted(store: JobStore, redis: Redis, prefix: str) -> None:
    """Nothing would delete it for a day."""
    crowd(store, 30)
    building = store.indexes.summaries.build(lambda: LATER, SMALL)
    while next(building) == 0:
        pass
    store.indexes.summaries.delete_all()

    list(building)

    entries = redis.zrange(f"{{{prefix}}}:summaries:lane:1:", 0, -1)
    assert filters_of(redis, prefix) == {f"summary:{str(entry).rpartition(' ')[2]}" for entry in entries}
    assert len(entries) == 3


def test_a_builder_pauses_while_it_looks_for_indexes(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue may have thousands of small ones."""
    monkeypatch.setattr(summaries, "_INDEXES", 2)

    assert len(list(store.indexes.summaries.build(lambda: LATER, SMALL))) >= len(State) // 2


def test_the_audit_finds_and_deletes_a_summary_that_lacks_a_job(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """A process that does not know summaries has changed the job."""
    ids = crowd(store, 20)
    redis.hset(f"{{{prefix}}}:job:{ids[3]}", "message_ids", '["m-1"]')
    summarize(store)
    assert audit(redis, prefix) == []
    redis.hset(f"{{{prefix}}}:job:{ids[3]}", "message_ids", '["m-2"]')
    assert found_ids(queue, "m-2") == []

    [finding] = audit(redis, prefix)

    assert str(finding) == f"summaries: searches by text pass over job {ids[3]} in lane:1:"
    assert repair(redis, prefix, [finding], LATER) == [finding]
    assert repair(redis, prefix, [finding], LATER) == []
    assert found_ids(queue, "m-2") == [ids[3]]
    assert audit(redis, prefix) == []
    assert summarize(store, LATER) == 10


def test_the_audit_ignores_what_searches_do_not_use(store: JobStore, redis: Redis, prefix: str) -> None:
    """A summary has lost its filter, or a job has joined its range unseen."""
    ids = crowd(store, 20)
    summarize(store)
    for job_id in (ids[3], ids[13]):
        redis.hset(f"{{{prefix}}}:job:{job_id}", "message_ids", '["m-2"]')
    assert len(audit(redis, prefix)) == 2
    enqueue_jobs(store, voice(name="Anna"), now=NOW + 4.5e-6)
    [entry] = redis.zrange(f"{{{prefix}}}:summaries:lane:1:", -1, -1)
    redis.delete(f"{{{prefix}}}:summary:{str(entry).rpartition(' ')[2]}")

    assert audit(redis, prefix) == []


def test_a_builder_notices_that_the_clock_was_set_back_since_the_last_build(
    store: JobStore, redis: Redis, prefix: str
) -> None:
    """By another worker, too."""
    crowd(store, 20)
    summarize(store)
    assert filters_of(redis, prefix) != set()

    summarize(store, LATER - SETTLED_S)

    assert keys_of(redis, prefix) == set()


def test_a_builder_notices_that_the_clock_was_set_back(store: JobStore, redis: Redis, prefix: str) -> None:
    """Jobs join ranges that have a summary then; a small step does no harm, because the newest jobs have none."""
    crowd(store, 100)
    now = LATER
    building = store.indexes.summaries.build(lambda: now, SMALL)
    assert sum(islice(building, 20)) > 0
    now -= SETTLED_S / 2 - 1
    assert next(building, None) is not None
    assert len(keys_of(redis, prefix)) > 3
    now -= 2

    assert next(building, None) is None
    assert keys_of(redis, prefix) == set()
