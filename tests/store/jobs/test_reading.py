"""Reads: jobs, lists, timelines, events and heartbeats."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from redis import Redis

from tests.store.life import NOW, REACHABLE, apply_transition, enqueue_jobs, get_job, job_in_state
from tests.support.jobs import numbered_voices, voice, voice_with_song
from voicequeue import Event, Stage, State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore


def test_jobs_are_returned_in_the_requested_order(store: JobStore) -> None:
    """Unknown ids give None."""
    first, second = enqueue_jobs(store, *numbered_voices(2))

    jobs = store.get([second, "nosuchjob", first])

    assert [job and job.id for job in jobs] == [second, None, first]
    assert store.get([]) == []


@pytest.mark.parametrize("odd", ["", "\ud800", "x:jobs", "*", "\n", "ü" * 300])
def test_an_unusual_name_is_unknown(store: JobStore, odd: str) -> None:
    """Any text is allowed as an id."""
    enqueue_jobs(store, voice(batch="x"))

    assert store.get([odd]) == [None]
    assert store.timeline(odd) == []
    assert not store.batch(odd)


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", REACHABLE)
def test_a_job_is_listed_in_its_state_and_in_no_other(store: JobStore, state: State) -> None:
    """It is also counted there."""
    job = job_in_state(store, state, voice_with_song(batch="b"))

    assert [name for name in State if list(store.list_ids(state=name)) == [job.id]] == [state]
    assert [name for name in State if list(store.list_ids(state=name, batch="b")) == [job.id]] == [state]
    assert list(store.list_ids()) == list(store.list_ids(batch="b")) == [job.id]
    assert {name for name, count in store.counts_by_state().items() if count} == {state}


def test_a_state_is_listed_latest_first(store: JobStore) -> None:
    """The latest failure comes first."""
    job_ids = enqueue_jobs(store, *numbered_voices(5))
    for at, job_id in enumerate(job_ids):
        apply_transition(store, get_job(store, job_id), State.CANCELLED, NOW + at)

    assert list(store.list_ids(state=State.CANCELLED)) == job_ids[::-1]


@pytest.mark.parametrize("at_once", [True, False], ids=["in one moment", "one after another"])
def test_a_list_of_many_pages_has_each_job_once(store: JobStore, at_once: bool) -> None:
    """Also if more jobs than fill a page entered the state in the same moment."""
    job_ids = enqueue_jobs(store, *numbered_voices(1_800, batch="b"))
    for at in range(0, 1_800, 100):
        store.admit(NOW if at_once else NOW + at, at_most=100)

    assert sorted(store.list_ids(state=State.ADMITTED)) == sorted(job_ids)
    assert list(store.list_ids(batch="b")) == job_ids
    assert list(store.list_ids(state=State.ADMITTED, batch="b")) == job_ids


@pytest.mark.endurance
def test_a_list_may_change_while_it_is_read(store: JobStore) -> None:
    """A job cancelled during the read does not cause another to be skipped."""
    job_ids = enqueue_jobs(store, *numbered_voices(1_200))
    job_ids_read = []
    for job_id in store.list_ids(state=State.QUEUED):
        job_ids_read.append(job_id)
        apply_transition(store, get_job(store, job_id), State.CANCELLED)

    assert job_ids_read == job_ids


# ── timelines ─────────────────────────────────────────────────────────────────────────────────────


def test_a_timeline_starts_with_enqueueing(store: JobStore) -> None:
    """A queued job has no stored timeline."""
    [job_id] = enqueue_jobs(store, voice_with_song(), now=NOW)

    [step] = store.timeline(job_id)

    assert (step.at, step.state, step.stage, step.reason) == (NOW, State.QUEUED, Stage.VOICE, "enqueued")


def test_a_timeline_contains_every_transition_with_its_stage(store: JobStore) -> None:
    """They are in order, oldest first, with their times."""
    job = job_in_state(store, State.PENDING)
    apply_transition(store, job, State.ADMITTED, NOW + 30, to_stage=Stage.MUSIC)

    steps = store.timeline(job.id)

    assert [(step.state, step.stage) for step in steps] == [
        (State.QUEUED, Stage.VOICE),
        (State.ADMITTED, Stage.VOICE),
        (State.CHARGING, Stage.VOICE),
        (State.PENDING, Stage.VOICE),
        (State.ADMITTED, Stage.MUSIC),
    ]
    assert [step.at for step in steps] == [NOW, NOW, NOW, NOW, NOW + 30]


# ── events ────────────────────────────────────────────────────────────────────────────────────────


def test_every_transition_is_an_event(store: JobStore) -> None:
    """Events contain job, batch, state, stage and reason; enqueueing is one event per batch."""
    start = store.last_event_id()
    job = job_in_state(store, State.UNSURE, voice_with_song(batch="b"))

    first, *others = store.events(start, wait_s=0)

    assert first == Event(first.id, "", "b", State.QUEUED, None, "1 enqueued")
    assert [event.state for event in others] == [State.ADMITTED, State.CHARGING, State.UNSURE]
    assert others[-1] == Event(
        store.last_event_id(), job.id, "b", State.UNSURE, Stage.VOICE, "no answer", previous_state_s=0.0
    )


def test_events_are_read_from_any_position(store: JobStore) -> None:
    """A reader continues after its last event."""
    start = store.last_event_id()
    job_in_state(store, State.PENDING)
    first, *others = store.events(start, wait_s=0)

    assert [event.state for event in (first, *others)] == ["queued", "admitted", "charging", "pending"]
    assert store.events(first.id, wait_s=0) == others
    assert store.last_event_id() == others[-1].id


def test_waiting_for_events_ends_when_there_are_none(store: JobStore) -> None:
    """It ends after the requested time, not after the socket timeout of ten seconds."""
    began = time.monotonic()

    assert store.events(store.last_event_id(), wait_s=0.05) == []
    assert time.monotonic() - began < 5


@pytest.mark.endurance
def test_the_stream_of_events_is_trimmed(store: JobStore, redis: Redis, prefix: str) -> None:
    """The stream keeps about 20,000 events, and those of the last call."""
    for start in range(0, 24_000, 500):
        specs = [voice(batch=f"b{n}") for n in range(start, start + 500)]
        enqueue_jobs(store, *specs)

    assert 20_000 <= redis.xlen(f"{{{prefix}}}:events") <= 20_700


# ── heartbeats ────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_is_alive_while_it_sends_heartbeats(store: JobStore) -> None:
    """Each worker counts once; workers without a heartbeat for a day are deleted."""
    store.heartbeats["worker"].record("one@host", NOW)
    store.heartbeats["worker"].record("two@host", NOW + 1)
    store.heartbeats["worker"].record("one@host", NOW + 2)

    assert [process.name for process in store.heartbeats["worker"].since(NOW + 1)] == ["one@host"]
    assert [process.name for process in store.heartbeats["worker"].since(NOW)] == ["two@host", "one@host"]
    store.heartbeats["worker"].record("three@host", NOW + 90_000)
    assert [process.name for process in store.heartbeats["worker"].since(0)] == ["three@host"]


# ── the connection ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6379", "http://:s3cr3t@localhost", "redis://:s3cr#3t@localhost:6379/0", "redis://h:s3cr3t/0"],
)
def test_an_invalid_url_is_rejected_without_being_quoted(url: str) -> None:
    """A password with a '#' is a common reason."""
    with pytest.raises(ValueError, match="redis://") as caught:
        connect(url)

    assert "s3cr" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("prefix", ["", "a b", "}", "{a}", "a:b", "x" * 41, "ä"])
def test_an_invalid_prefix_is_rejected(redis: Redis, prefix: str) -> None:
    """It would scatter the keys over a cluster, or overlap with another queue."""
    with pytest.raises(ValueError, match="prefix"):
        JobStore(redis, prefix)


@pytest.fixture
def prefix(prefix: str, valkey_url: str) -> Iterator[str]:
    """Yield the prefix of the test and delete its keys afterwards, because some of these tests write many."""
    yield prefix
    client = connect(valkey_url)
    client.flushdb()
    client.close()


def test_a_process_that_shuts_down_is_deleted(store: JobStore) -> None:
    """It is deleted at once, with its facts."""
    heartbeats = store.heartbeats["archive"]
    heartbeats.record("one@host", NOW, {"version": "1"})
    heartbeats.record("two@host", NOW)

    heartbeats.remove("one@host")

    assert [process.name for process in heartbeats.since(0)] == ["two@host"]
    heartbeats.record("one@host", NOW)
    assert "version" not in heartbeats.since(0)[-1].facts
