"""The threads of one process: as many as it takes, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tasks.hands import Hands


@pytest.fixture
def patient() -> Iterator[Hands]:
    """Four threads, of which none joins in the time of a test."""
    with Hands(4, moment_s=60) as hands:
        yield hands


@pytest.fixture
def eager() -> Iterator[Hands]:
    """Four threads that join at once when nothing is done."""
    with Hands(4, moment_s=0.001) as hands:
        yield hands


def test_what_is_done_at_once_is_done_by_the_caller_alone(patient: Hands) -> None:
    """In the order of the items, none left out; and whoever waited to join is not waited for."""
    by = patient.each(lambda item: (item, threading.get_ident()), list(range(50)))

    assert by == [(item, threading.get_ident()) for item in range(50)]
    assert patient.each(str, []) == []


def test_what_takes_its_time_is_done_by_as_many_as_there_are(eager: Hands) -> None:
    """And by no more: four meet, twice."""
    four = threading.Barrier(4, timeout=20)
    inside, most, lock = 0, 0, threading.Lock()

    def meet(item: int) -> int:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        four.wait()
        with lock:
            inside -= 1
        four.wait()
        return item * 2

    assert eager.each(meet, list(range(8))) == [item * 2 for item in range(8)]
    assert most == 4


def test_two_chunks_at_once_keep_their_results_apart(eager: Hands) -> None:
    """The pool is the process's."""
    together = threading.Barrier(2, timeout=20)

    def chunk(first: int) -> list[int]:
        together.wait()
        return eager.each(lambda item: item + 1, list(range(first, first + 100)))

    found: dict[int, list[int]] = {}
    others = [threading.Thread(target=lambda at=at: found.update({at: chunk(at)})) for at in (0, 1_000)]
    for each in others:
        each.start()
    for each in others:
        each.join()

    assert found == {first: list(range(first + 1, first + 101)) for first in (0, 1_000)}
