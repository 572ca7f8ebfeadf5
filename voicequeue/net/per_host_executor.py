"""Work for many hosts at once, but for each of them only a little at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Lanes:
    """Does so much at once in all (`at_once`), and for one host (`per_host`); what must wait keeps nobody else.

    The threads are not waited for when the program ends.
    """

    def __init__(self, *, at_once: int, per_host: int) -> None:
        self._free, self._per_host = at_once, per_host
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._busy: dict[str, int] = {}
        self._lock = threading.Lock()

    def submit(self, host: str, work: Callable[[], T]) -> Future[T]:
        """Do it when its turn comes; first come, first served among those of one host."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            self._waiting.setdefault(host, deque()).append(run)
            self._begin()
        return future

    def _begin(self) -> None:
        for host in list(self._waiting):
            while self._free and self._waiting[host] and self._busy.get(host, 0) < self._per_host:
                self._free -= 1
                self._busy[host] = self._busy.get(host, 0) + 1
                work = self._waiting[host].popleft()
                threading.Thread(target=self._do, args=(host, work), name="lane", daemon=True).start()
            if not self._waiting[host]:
                del self._waiting[host]

    def _do(self, host: str, work: Callable[[], None]) -> None:
        work()
        with self._lock:
            self._free += 1
            self._busy[host] -= 1
            if not self._busy[host]:
                del self._busy[host]
            self._begin()
