"""The threads of one process, of which no more work than it takes.

Where upstream answers at once, one thread is done with a chunk sooner than eight, which keep each other waiting for the
interpreter; where it takes a second, eight are done sooner. So the caller begins alone, and another joins
whenever nothing was done for a moment.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

#: If nothing was done for so long (seconds), another thread joins.
MOMENT_S = 0.02


class Hands(ThreadPoolExecutor):
    """Up to `at_most` threads for one chunk, the caller's among them."""

    def __init__(self, at_most: int, *, name: str = "", moment_s: float = MOMENT_S) -> None:
        # One more, so that a single call can be made beside a chunk.
        super().__init__(at_most, thread_name_prefix=name)
        self._at_most = at_most
        self._moment_s = moment_s

    def each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What `work` gives for each of the items, in their order; it must not raise."""
        return _Chunk(self, work, items, self._at_most, self._moment_s).done()


class _Chunk(Generic[T, R]):
    """Items of which each thread takes the next one."""

    def __init__(
        self, pool: ThreadPoolExecutor, work: Callable[[T], R], items: Sequence[T], at_most: int, moment_s: float
    ) -> None:
        self._pool, self._work, self._items = pool, work, items
        self._moment_s = moment_s
        self._left = at_most - 1  # who may still join
        self._next = itertools.count()  # that threads may share it is CPython's promise
        self._results: dict[int, R] = {}
        self._finished = 0
        self._all_taken = Event()
        self._helpers: list[Future[None]] = []

    def done(self) -> list[R]:
        """The results, when all are there."""
        if len(self._items) > 1:
            self._call_helper()
        self._take()
        # Whoever joins has called the next one before.
        while self._helpers:
            self._helpers.pop().result()
        return [self._results[place] for place in range(len(self._items))]

    def _take(self) -> None:
        while (place := next(self._next)) < len(self._items):
            self._results[place] = self._work(self._items[place])
            self._finished += 1
        self._all_taken.set()

    def _call_helper(self) -> None:
        if self._left:
            self._left -= 1
            self._helpers.append(self._pool.submit(self._help))

    def _help(self) -> None:
        """Join as soon as nothing was done for a moment, unless nothing is left by then."""
        before = -1
        while before != self._finished:
            before = self._finished
            if self._all_taken.wait(self._moment_s):
                return
        self._call_helper()
        self._take()
