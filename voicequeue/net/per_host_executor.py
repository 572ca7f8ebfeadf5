"""An executor that limits how much runs at once, in all and for each host."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class PerHostExecutor:
    """Run work in threads: at most `max_workers` at once, of which at most `per_host` for one host.

    Work that waits for its host does not delay other hosts. Threads are daemons: the program does not wait for them.
    """

    def __init__(self, *, max_workers: int, per_host: int) -> None:
        self._free, self._per_host = max_workers, per_host
        self._waiting: dict[str, deque[Callable[[], None]]] = {}
        self._running: dict[str, int] = {}
        self._lock = threading.Lock()

    def submit(self, host: str, work: Callable[[], T]) -> Future[T]:
        """Schedule `work`; first come, first served within one host."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        with self._lock:
            self._waiting.setdefault(host, deque()).append(run)
            self._start()
        return future

    def _start(self) -> None:
        for host in list(self._waiting):
            while self._free and self._waiting[host] and self._running.get(host, 0) < self._per_host:
                self._free -= 1
                self._running[host] = self._running.get(host, 0) + 1
                work = self._waiting[host].popleft()
                threading.Thread(target=self._run, args=(host, work), name="per host", daemon=True).start()
            if not self._waiting[host]:
                del self._waiting[host]

    def _run(self, host: str, work: Callable[[], None]) -> None:
        work()
        with self._lock:
            self._free += 1
            self._running[host] -= 1
            if not self._running[host]:
                del self._running[host]
            self._start()
