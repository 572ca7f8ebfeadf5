"""Every move is told once and in order, whoever asks for it."""

from __future__ import annotations

import pytest

from tests.store.life import NOW, brought_to, put
from tests.support.jobs import sung
from voicequeue import State
from voicequeue.domain.job import Event
from voicequeue.storage.job_store import Store


def test_every_move_is_told_once_and_in_order(store: Store) -> None:
    """From the first on; what came since is told the next time."""
    told: list[Event] = []
    job = brought_to(store, State.UNSURE, sung(batch="b"))

    assert store.story.tell(told.append) == 4
    assert [event.state for event in told] == ["queued", "admitted", "charging", "unsure"]
    assert {event.job_id for event in told[1:]} == {job.id}
    assert store.story.tell(told.append) == 0
    put(store, sung(key="later"))
    assert store.story.tell(told.append) == 1
    assert [event.moment for event in told] == sorted({event.moment for event in told})


def test_more_than_a_page_is_told_whole(store: Store) -> None:
    """Each enqueueing is one event, each admission another."""
    put(store, *(sung(key=str(n)) for n in range(1_500)))
    store.admit(NOW, at_most=1_500)
    told: list[Event] = []

    assert store.story.tell(told.append) == len(told) == 1_501


def test_two_do_not_tell_at_once(store: Store) -> None:
    """While one is at it, another finds nothing to do."""
    brought_to(store, State.PENDING)
    others: list[int] = []

    store.story.tell(lambda _: others.append(store.story.tell(lambda _: None)))

    assert set(others) == {0}


def test_what_a_teller_did_not_get_to_is_told_by_the_next(store: Store) -> None:
    """Rather twice than never."""
    brought_to(store, State.ADMITTED)

    def fails(_: Event) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  whatever a handler of logs may raise
        store.story.tell(fails)

    assert store.story.tell(lambda _: None) == 2
