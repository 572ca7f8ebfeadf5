"""Songs that are ordered beside the polls of a process, in a thread of its own.

The process that finds a voice ready orders its song itself: a message to another one costs more than the order. Its
polls go on meanwhile, so an order that is slow to be answered delays none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

from tasks.context import TaskContext, defer_to_reconciler
from tasks.submit import SubmitResult, submit_orders
from voicequeue.domain.stage import Stage


class BackgroundOrders:
    """Orders of songs in a thread, one portion of jobs at a time. Close it before the task ends."""

    def __init__(self, services: TaskContext) -> None:
        self._services = services
        self._thread: ThreadPoolExecutor | None = None
        self._running: Future[SubmitResult] | None = None

    @property
    def is_open(self) -> bool:
        """True from `start` until the result is collected."""
        return self._running is not None

    def start(self, job_ids: Sequence[str]) -> bool:
        """Order the songs of these jobs; False while the jobs before them are open."""
        if self._running is not None:
            return False
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="orders")
        self._running = self._thread.submit(copy_context().run, self._order, job_ids)
        return True

    def collect(self) -> SubmitResult:
        """Return the outcome of the jobs, once; empty while they are not finished."""
        if self._running is None or not self._running.done():
            return SubmitResult()
        finished, self._running = self._running, None
        return finished.result()

    def close(self) -> SubmitResult:
        """Wait for all answers, and return the outcome of the jobs, like `collect`."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        return self.collect()

    def _order(self, job_ids: Sequence[str]) -> SubmitResult:
        with defer_to_reconciler(job_ids):
            return submit_orders(self._services, Stage.MUSIC, job_ids)
        return SubmitResult()
