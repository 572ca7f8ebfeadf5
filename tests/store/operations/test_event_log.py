"""The event log: every transition is logged once and in order, by any process."""

from __future__ import annotations

import pytest

from tests.store.life import NOW, enqueue_jobs, job_in_state
from tests.support.jobs import voice_with_song
from voicequeue import State
from voicequeue.domain.job import Event
from voicequeue.storage.job_store import JobStore


def test_every_event_is_logged_once_and_in_order(store: JobStore) -> None:
    """The first call starts at the first event; later calls continue."""
    logged: list[Event] = []
    job = job_in_state(store, State.UNSURE, voice_with_song(batch="b"))

    assert store.event_log.log_new(logged.append) == 4
    assert [event.state for event in logged] == ["queued", "admitted", "charging", "unsure"]
    assert {event.job_id for event in logged[1:]} == {job.id}
    assert store.event_log.log_new(logged.append) == 0
    enqueue_jobs(store, voice_with_song(key="later"))
    assert store.event_log.log_new(logged.append) == 1
    assert [event.sort_key for event in logged] == sorted({event.sort_key for event in logged})


def test_more_than_a_page_is_logged_completely(store: JobStore) -> None:
    """Each enqueueing is one event, each admission another."""
    enqueue_jobs(store, *(voice_with_song(key=str(n)) for n in range(1_500)))
    store.admit(NOW, at_most=1_500)
    logged: list[Event] = []

    assert store.event_log.log_new(logged.append) == len(logged) == 1_501


def test_two_processes_do_not_log_at_once(store: JobStore) -> None:
    """While one logs, the other does nothing."""
    job_in_state(store, State.PENDING)
    others: list[int] = []

    store.event_log.log_new(lambda _: others.append(store.event_log.log_new(lambda _: None)))

    assert set(others) == {0}


def test_events_after_a_crash_are_logged_by_the_next_process(store: JobStore) -> None:
    """An event may be logged twice, but is never lost."""
    job_in_state(store, State.ADMITTED)

    def fails(_: Event) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  any error of a log handler
        store.event_log.log_new(fails)

    assert store.event_log.log_new(lambda _: None) == 2
