"""Lists of jobs in the order of a time: complete, in order, and read page by page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    apply_transition,
    claim_admitted,
    dump_keys,
    enqueue_jobs,
    get_job,
    job_in_state,
    transition_of,
)
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import Filter, InvalidCursorError, InvalidJobError, Job, Priority, Sort, Stage, State, VoiceQueue
from voicequeue.client import search
from voicequeue.client.queue import in_namespace
from voicequeue.storage.job_store import JobStore


def pages(queue: VoiceQueue, job_filter: Filter, sort: Sort, limit: int) -> Iterator[list[str]]:
    """Yield the ids of the jobs of each page."""
    cursor = None
    while True:
        page = queue.search(job_filter, sort=sort, limit=limit, cursor=cursor)
        yield [job.id for job in page.items]
        if (cursor := page.cursor) is None:
            return


def listed(queue: VoiceQueue, job_filter: Filter, sort: Sort, limit: int = 3) -> list[str]:
    """Return the ids of all pages."""
    return [job_id for page in pages(queue, job_filter, sort, limit) for job_id in page]


@pytest.fixture
def jobs(store: JobStore, queue: VoiceQueue) -> list[Job]:
    """Create jobs of every state, in several batches and lanes, some of them at the same time; return all."""
    states = (State.FAILED, State.CANCELLED, State.UNSURE, State.PENDING, State.SUCCEEDED)
    for number in range(20):
        fields = {"batch": (None, "a", "b")[number % 3], "metadata": {"odd": str(number % 2)}}
        job_in_state(store, states[number % 5], voice_with_song(key=f"k{number}", **fields), NOW + 10 * (number // 4))
    # A song that goes back to the backlog has a negative score in its lane.
    specs = [voice_with_song(key=f"s{number}", batch="b") for number in range(4)]
    voices = [job_in_state(store, State.PENDING, spec, NOW + 7 * number) for number, spec in enumerate(specs)]
    for job in voices:
        song = apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": "p"})
        apply_transition(store, song, State.QUEUED, NOW + 80)
    for number, spec in enumerate(numbered_voices(9, batch="a")):
        priority = list(Priority)[number % 3]
        enqueue_jobs(store, spec.model_copy(update={"priority": priority}), now=NOW + 5 * number)
    return list(queue.jobs())


def in_order(redis: Redis, prefix: str, jobs: list[Job]) -> list[str]:
    """Return the ids by the time at which each entered its state, the earliest first, from a scan of all keys."""
    times: dict[str, float] = {}
    for key, members in dump_keys(redis, prefix).items():
        if ":state:" in key or ":lane:" in key:
            times |= {job_id: score + (4e9 if score < 0 else 0) for job_id, score in members.items()}
    return sorted((job.id for job in jobs), key=lambda job_id: (times[job_id], job_id))


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_all_jobs_are_listed_by_their_last_change(
    queue: VoiceQueue, jobs: list[Job], redis: Redis, prefix: str, limit: int
) -> None:
    """All states, batches and priorities are merged, in both directions; pages are full."""
    expected = in_order(redis, prefix, jobs)
    assert len(expected) > 30

    assert listed(queue, Filter(), Sort.CHANGED, limit) == expected
    assert listed(queue, Filter(), Sort.CHANGED_DESC, limit) == expected[::-1]
    sizes = [len(page) for page in pages(queue, Filter(), Sort.CHANGED_DESC, limit)]
    assert sizes == [limit] * (len(jobs) // limit) + [len(jobs) % limit] * (len(jobs) % limit > 0)


@pytest.mark.parametrize("sort", [Sort.CHANGED, Sort.CHANGED_DESC])
def test_a_filtered_list_is_in_the_same_order(
    queue: VoiceQueue, jobs: list[Job], redis: Redis, prefix: str, sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if a page examines only a few jobs."""
    expected = in_order(redis, prefix, jobs)[:: -1 if sort.is_descending else 1]
    by_id = {job.id: job for job in jobs}
    queued = [job_id for job_id in expected if by_id[job_id].state is State.QUEUED]
    odd = [job_id for job_id in expected if by_id[job_id].spec.metadata.get("odd") == "1"]
    assert len(queued) > 10
    assert len(odd) == 10

    for examined in (search.EXAMINED_MAX, 5):
        monkeypatch.setattr(search, "EXAMINED_MAX", examined)
        assert listed(queue, Filter(state=State.QUEUED), sort) == queued
        assert listed(queue, Filter(metadata={"odd": "1"}), sort) == odd


def test_jobs_of_a_batch_are_listed_by_creation(queue: VoiceQueue, jobs: list[Job]) -> None:
    """In both directions, and by state."""
    batch = sorted((job for job in jobs if job.spec.batch == "a"), key=lambda job: (job.created_at, job.id))
    queued = [job.id for job in batch if job.state is State.QUEUED]

    assert listed(queue, Filter(batch="a"), Sort.CREATED) == [job.id for job in batch]
    assert listed(queue, Filter(batch="a"), Sort.CREATED_DESC) == [job.id for job in batch][::-1]
    assert listed(queue, Filter(batch="a", state=State.QUEUED), Sort.CREATED_DESC) == queued[::-1]
    assert len(queued) > 1


def test_jobs_that_changed_at_the_same_time_are_listed_once_each(store: JobStore, queue: VoiceQueue) -> None:
    """One call may cancel more jobs than a page has."""
    ids = enqueue_jobs(store, *numbered_voices(40))
    cancelled = [transition_of(get_job(store, job_id), State.CANCELLED) for job_id in ids]
    assert all(store.apply_transitions(cancelled, NOW + 9))

    assert sorted(listed(queue, Filter(), Sort.CHANGED_DESC, 7)) == sorted(ids)


def test_a_namespace_lists_its_own_jobs(queue: VoiceQueue) -> None:
    """An operator lists those of all."""
    own = [in_namespace(queue, name).enqueue(voice(key="k")).id for name in ("", "shop", "blog")]

    assert listed(in_namespace(queue, "shop"), Filter(), Sort.CHANGED_DESC) == [own[1]]
    assert sorted(listed(queue, Filter(), Sort.CHANGED_DESC, 1)) == sorted(own)


def test_a_page_may_lose_jobs_while_the_list_is_read(store: JobStore, queue: VoiceQueue) -> None:
    """A job that changes moves to the front; the others are still listed once each."""
    ids = enqueue_jobs(store, *numbered_voices(9))
    first = queue.search(Filter(), sort=Sort.CHANGED_DESC, limit=3)
    store.admit(NOW + 60, at_most=2)
    claim_admitted(store, ids[0], NOW + 61)

    rest = queue.search(Filter(), sort=Sort.CHANGED_DESC, limit=50, cursor=first.cursor)

    assert [job.id for job in (*first.items, *rest.items)] == ids[:1:-1]


def test_an_order_without_an_index_is_refused(queue: VoiceQueue, jobs: list[Job]) -> None:
    """And a cursor of another order."""
    page = queue.search(Filter(), sort=Sort.CHANGED, limit=1)

    for job_filter, sort in ((Filter(), Sort.CREATED), (Filter(batch="a"), Sort.CHANGED_DESC)):
        with pytest.raises(InvalidJobError, match="can be sorted by created"):
            queue.search(job_filter, sort=sort)
    with pytest.raises(ValueError, match="size"):
        queue.search(Filter(), sort="size")  # type: ignore[arg-type]
    for cursor in (page.cursor, queue.search(Filter(), limit=1).cursor, "x"):
        with pytest.raises(InvalidCursorError):
            queue.search(Filter(), sort=Sort.CHANGED_DESC, cursor=cursor)
    with pytest.raises(InvalidCursorError):
        queue.search(Filter(), cursor=page.cursor)
