"""Keeps one process of a worker free for polls, however long the answers to orders take.

A process that sends orders is occupied until the last one is answered, for half a minute or longer. If all processes
of a worker did that at once, due polls would wait, and results would be seen late. So at most all but one run submit
tasks; the other submit tasks wait here or, while answers are slow, in their queue, where other workers can take them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Any

from celery.worker import state

from tasks.celery_tasks import submit_name
from voicequeue.domain.stage import Stage
from voicequeue.storage.celery_queues import SUBMIT

_SUBMIT_TASKS = frozenset(map(submit_name, Stage))

#: Seconds after which a submit task counts as slow: faster ones end before a due poll would be late.
SLOW_AFTER_S = 1.0


def submit_processes(processes: int) -> int:
    """Return how many of a worker's processes may run submit tasks at once. A single process does everything."""
    return max(1, processes - 1)


@dataclass
class SubmitSlots:
    """The submit tasks of one worker: those that run, and those that wait for a process.

    `process` hands a task to the processes, and `limit` returns how many submit tasks they may run at once.
    `change_limit` changes by 1 or -1 how many messages the worker may hold.
    """

    process: Callable[[Any], object]
    limit: Callable[[], int]
    change_limit: Callable[[int], object]
    clock: Callable[[], float] = time.monotonic
    #: The time at which each running task was handed to the processes, the oldest first.
    _running: dict[Any, float] = field(default_factory=dict)
    _waiting: deque[Any] = field(default_factory=deque)
    #: How many of the waiting tasks do not count as messages that the worker holds.
    _uncounted: int = 0

    def add(self, request: Any) -> None:
        """Hand a task to the processes, or let it wait if it is a submit task and its share of them is in use."""
        if request.name not in _SUBMIT_TASKS:
            self.process(request)
            return
        self._waiting.append(request)
        self.hand_on()

    def hand_on(self) -> bool:
        """Hand waiting tasks to the processes that have become free; return whether there were any."""
        if not self._waiting:
            return False
        # Celery keeps every task that has not ended in one of these sets, also after a lost connection or process.
        self._running = {
            request: at
            for request, at in self._running.items()
            if request in state.reserved_requests or request in state.active_requests
        }
        has_handed_on = False
        while self._waiting and len(self._running) < self.limit():
            request = self._waiting.popleft()
            if self._uncounted:
                self._uncounted -= 1
                self.change_limit(-1)
            self._running[request] = self.clock()
            self.process(request)
            has_handed_on = True
        self._make_room_for_polls()
        return has_handed_on

    def _make_room_for_polls(self) -> None:
        """Let the worker receive other messages in place of the submit tasks that wait for slow ones."""
        while self._is_slow() and self._uncounted < len(self._waiting):
            self._uncounted += 1
            self.change_limit(1)

    def _is_slow(self) -> bool:
        return any(self.clock() - at > SLOW_AFTER_S for at in self._running.values())

    def paused_queues(self) -> Set[str]:
        """Return the queues whose messages the worker must leave to others now.

        As many tasks wait here as can run, so that no process is idle until the next message arrives.
        """
        is_full = len(self._waiting) >= self.limit() and self._is_slow()
        return frozenset({SUBMIT}) if is_full else frozenset()

    def forget_waiting(self) -> None:
        """Drop the waiting tasks after a lost connection: Redis delivers their messages again."""
        self._waiting.clear()
        self._uncounted = 0
