"""Summaries of ranges of jobs: searches pass over jobs that they cannot find, and find all others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from tests.store.client.summary_steps import LATER, SMALL, crowd, found_ids, keys_of, summarize
from tests.store.life import (
    NOW,
    apply_transition,
    enqueue_jobs,
    fail_job,
    get_job,
    job_in_state,
)
from tests.support.jobs import voice
from voicequeue import FailureCode, Filter, Job, Stage, State, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.audit.repair import repair
from voicequeue.storage.indexes import FilteredPage, JobIndexes
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.summaries import Size


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns how many jobs were examined since it was called last."""
    counts: list[int] = []
    filter_page = JobIndexes.filter_page

    def counting(*arguments: object, **options: object) -> FilteredPage:
        page = filter_page(*arguments, **options)  # type: ignore[arg-type]
        counts.append(page.examined)
        return page

    def total() -> int:
        number = sum(counts)
        counts.clear()
        return number

    monkeypatch.setattr(JobIndexes, "filter_page", counting)
    return total


# ── what is examined ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_search_examines_few_jobs(
    store: JobStore, queue: VoiceQueue, examined: Callable[[], int], is_finished: bool
) -> None:
    """Of 400 jobs those of the range that has what is searched, and none if there is no such job."""
    names = [f"Berta {number}" for number in range(400)]
    ids = enqueue_jobs(store, *(voice(name=f"{name} Ö", key=name, metadata={"row": name}) for name in names))
    for number, job in enumerate(store.get(ids) if is_finished else []):
        assert job is not None
        apply_transition(store, job, State.CANCELLED, NOW + number * 1e-6)
    summarize(store, size=Size(full=50, smallest=2))
    examined()

    assert found_ids(queue, "carla") == []
    assert queue.search(Filter(text="carla")).cursor is None
    assert queue.search(Filter(metadata={"row": "Berta 400"})).items == ()
    assert examined() == 0
    for text in ("berta 123", ids[123], '"BERTA 123"', '"berta 123 ö"'):
        assert found_ids(queue, text) == [ids[123]], text
        assert 0 < examined() <= 2 * 50 + 50
    assert (
        found_ids(queue, "berta 12")
        == [job_id for number, job_id in enumerate(ids) if str(number)[:2] == "12"][:: -1 if is_finished else 1]
    )
    assert [job.id for job in queue.search(Filter(metadata={"row": "Berta 7"})).items] == [ids[7]]


def test_jobs_of_one_time_are_in_one_summary(store: JobStore, queue: VoiceQueue, examined: Callable[[], int]) -> None:
    """A range ends between two times, even if it becomes larger; if too many jobs have one time, they have none."""
    ids = crowd(store, 150)
    for start, at in ((0, NOW), (15, NOW + 1), (40, NOW + 2)):
        jobs = store.get(ids[start : {0: 15, 15: 40, 40: 150}[start]])
        store.apply_transitions([transitions.cancel(job, at) for job in jobs if job], at)

    summarize(store)
    examined()

    assert found_ids(queue, "carla") == []
    assert examined() == 2 * 110


# ── what stays true ───────────────────────────────────────────────────────────────────────────────


def fail_before_order(store: JobStore, job_id: str) -> Job:
    """Return the job, which has not started in time."""
    return fail_job(store, get_job(store, job_id), FailureCode.EXPIRED, NOW + 1)


def test_a_job_that_returns_to_an_old_place_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """A retried job is queued where it was enqueued, when others have left that range."""
    [job_id] = enqueue_jobs(store, voice(name="Anna"), now=NOW + 3e-6)
    others = crowd(store)
    failed = fail_before_order(store, job_id)
    summarize(store)
    for other in store.get(others[:2]):
        assert other is not None
        apply_transition(store, other, State.CANCELLED, LATER)

    store.apply_transitions([transitions.retry(failed, LATER)], LATER)

    assert get_job(store, job_id).state is State.QUEUED
    assert found_ids(queue, "anna") == [job_id]


def test_a_job_that_joins_a_range_whose_summary_is_being_built_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """The builder notices that its summary was deleted before it was written."""
    [job_id] = enqueue_jobs(store, voice(name="Anna"), now=NOW + 3e-6)
    others = crowd(store)
    failed = fail_before_order(store, job_id)
    building = store.indexes.summaries.build(lambda: LATER, SMALL)
    while next(building) == 0:
        pass
    apply_transition(store, get_job(store, others[0]), State.CANCELLED, LATER)
    store.apply_transitions([transitions.retry(failed, LATER)], LATER)
    list(building)

    assert found_ids(queue, "anna") == [job_id]


def test_a_task_id_that_is_counted_later_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """An order that the job does not use changes its record in its place."""
    crowd(store)
    job = job_in_state(store, State.SUCCEEDED, voice())
    for other in store.get(list(store.list_ids(state=State.QUEUED))):
        assert other is not None
        apply_transition(store, other, State.CANCELLED)
    more = [job_in_state(store, State.SUCCEEDED, voice()) for _ in range(3)]
    summarize(store)
    assert found_ids(queue, "task-late") == []

    store.count_order(ChargedOrder(job.id, Stage.VOICE, job.attempt + 1, "task-late"), LATER, reason="reported")

    assert found_ids(queue, "task-late") == [job.id]
    assert len(more) == 3


def test_a_message_id_that_is_added_later_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """A message that is sent again adds its id to the record of the job in its place."""
    spec = voice(key="k")
    [job_id] = enqueue_jobs(store, spec)
    crowd(store)
    summarize(store)
    assert found_ids(queue, "m-2") == []

    store.enqueue([(job_id, spec)], LATER, message_id="m-2")

    assert found_ids(queue, "m-2") == [job_id]


@pytest.mark.parametrize("state", [State.QUEUED, State.FAILED])
def test_a_job_that_a_repair_returns_to_its_index_is_found(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str, state: State
) -> None:
    """It belongs into the middle of a range that others have left."""
    job = job_in_state(store, state, voice(name="Anna"))
    others = [job_in_state(store, state, voice(name="Berta")) for _ in range(4)]
    index = f"{{{prefix}}}:" + ("lane:1:" if state is State.QUEUED else f"state:{state}")
    redis.zrem(index, job.id)
    summarize(store)
    for other in others[:2]:
        moved = (
            apply_transition(store, other, State.ADMITTED, LATER) if state is State.QUEUED else retried(store, other)
        )
        assert moved.state is not state

    assert repair(redis, prefix, audit(redis, prefix), LATER)

    assert found_ids(queue, "anna") == [job.id]


def cancel(store: JobStore, job_ids: list[str], now: float) -> None:
    """Cancel jobs, one a second."""
    for number, job_id in enumerate(job_ids):
        apply_transition(store, get_job(store, job_id), State.CANCELLED, now + number)


def retried(store: JobStore, job: Job) -> Job:
    """Return a failed job that is retried."""
    store.apply_transitions([transitions.retry(job, LATER)], LATER)
    return get_job(store, job.id)


def test_a_job_that_joins_a_range_unseen_is_found(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """By a process that does not know summaries: the range has more jobs now."""
    crowd(store)
    crowd(store, now=NOW + 1)
    summarize(store)

    [job_id] = enqueue_jobs(store, voice(name="Anna"), now=LATER)
    redis.zadd(f"{{{prefix}}}:lane:1:", {job_id: NOW + 0.5})

    assert found_ids(queue, "anna") == [job_id]


def test_a_job_that_a_late_call_enqueues_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """Its caller waited for Redis, and others have left the range meanwhile."""
    others = crowd(store, 12)
    summarize(store)
    cancel(store, others[:3], LATER)

    [job_id] = enqueue_jobs(store, voice(name="Anna"), now=NOW + 3.5e-6)

    assert found_ids(queue, "anna") == [job_id]


def test_a_job_whose_state_a_late_call_changes_is_found(store: JobStore, queue: VoiceQueue) -> None:
    """A worker waited for Redis, and others have left the range meanwhile."""
    others = crowd(store, 12)
    [job_id] = enqueue_jobs(store, voice(name="Anna"))
    cancel(store, others, NOW + 10)
    summarize(store, LATER + 60)
    purged = list(store.purge(NOW + 111, retention_s=100))

    cancel(store, [job_id], NOW + 15.5)

    assert sum(purged) > 0
    assert found_ids(queue, "anna") == [job_id]


def test_a_clock_that_is_set_back_ends_the_summaries_behind_it(store: JobStore, queue: VoiceQueue) -> None:
    """Jobs enter there again."""
    others = crowd(store, 12)
    summarize(store)
    summarize(store, NOW)
    for other in store.get(others[:3]):
        assert other is not None
        apply_transition(store, other, State.CANCELLED)

    [job_id] = enqueue_jobs(store, voice(name="Anna"), now=NOW)

    assert found_ids(queue, "anna") == [job_id]


def test_a_filter_that_has_expired_or_was_lost_hides_no_job(
    store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str
) -> None:
    """Then the range is searched job by job, and its summary is built again."""
    [job_id] = enqueue_jobs(store, voice(name="Anna"))
    crowd(store)
    summarize(store)
    for name in redis.scan_iter(f"{{{prefix}}}:summary:*"):
        redis.delete(name)

    assert found_ids(queue, "anna") == [job_id]
    assert summarize(store, LATER + 601) == 7


# ── erasure ───────────────────────────────────────────────────────────────────────────────────────


def test_an_erasure_deletes_every_summary_that_knew_the_job(store: JobStore, redis: Redis, prefix: str) -> None:
    """Of all places where it was: nothing in Redis says afterwards whether a name occurred."""
    ids = enqueue_jobs(store, *(voice(name=name, batch="spring") for name in ("Anna", "Berta", "Berta", "Berta")))
    summarize(store)
    anna, other = (fail_before_order(store, job_id) for job_id in ids[:2])
    summarize(store, LATER + 1)
    store.apply_transitions([transitions.retry(anna, LATER + 1)], LATER + 1)
    enqueue_jobs(store, voice(batch="spring"), now=LATER + 1)
    apply_transition(store, get_job(store, anna.id), State.CANCELLED, LATER + 2)
    apply_transition(store, get_job(store, ids[2]), State.CANCELLED, LATER + 2)
    summarize(store, 2 * LATER - NOW)
    names = keys_of(redis, prefix)
    assert {f"summaries:{index}" for index in ("lane:1:spring", "state:failed", "state:cancelled")} < names, other

    store.erasure.erase([anna.id], 3 * LATER - 2 * NOW)

    assert [name for name in keys_of(redis, prefix) if name != "summarized"] == []


def test_a_bulk_change_examines_every_job(store: JobStore, queue: VoiceQueue, redis: Redis, prefix: str) -> None:
    """An erasure must not miss a job, even if its summary is wrong."""
    [job_id] = enqueue_jobs(store, voice(key="anna", metadata={"subject": "1"}))
    crowd(store)
    summarize(store)
    spec = voice(key="anna", metadata={"subject": "2"}).canonical_content()
    redis.hset(f"{{{prefix}}}:job:{job_id}", "spec", spec)
    assert queue.search(Filter(metadata={"subject": "2"})).items == ()

    assert queue.plan_bulk("cancel", Filter(metadata={"subject": "2"})).count == 1
    assert queue.plan_erasure({"subject": "2"}).count == 1
