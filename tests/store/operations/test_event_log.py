"""The event log: every transition is logged once and in order, by any process."""

from __future__ import annotations

import pytest

from tests.store.life import NOW, brought_to, put
from tests.support.jobs import sung
from voicequeue import State
from voicequeue.domain.job import Event
from voicequeue.storage.job_store import Store


def test_every_event_is_logged_once_and_in_order(store: Store) -> None:
    """The first call starts at the first event; later calls continue."""
    logged: list[Event] = []
    job = brought_to(store, State.UNSURE, sung(batch="b"))

    assert store.story.tell(logged.append) == 4
    assert [event.state for event in logged] == ["queued", "admitted", "charging", "unsure"]
    assert {event.job_id for event in logged[1:]} == {job.id}
    assert store.story.tell(logged.append) == 0
    put(store, sung(key="later"))
    assert store.story.tell(logged.append) == 1
    assert [event.moment for event in logged] == sorted({event.moment for event in logged})


def test_more_than_a_page_is_logged_completely(store: Store) -> None:
    """Each enqueueing is one event, each admission another."""
    put(store, *(sung(key=str(n)) for n in range(1_500)))
    store.admit(NOW, at_most=1_500)
    logged: list[Event] = []

    assert store.story.tell(logged.append) == len(logged) == 1_501


def test_two_processes_do_not_log_at_once(store: Store) -> None:
    """While one logs, the other does nothing."""
    brought_to(store, State.PENDING)
    others: list[int] = []

    store.story.tell(lambda _: others.append(store.story.tell(lambda _: None)))

    assert set(others) == {0}


def test_events_after_a_crash_are_logged_by_the_next_process(store: Store) -> None:
    """An event may be logged twice, but is never lost."""
    brought_to(store, State.ADMITTED)

    def fails(_: Event) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  any error of a log handler
        store.story.tell(fails)

    assert store.story.tell(lambda _: None) == 2
