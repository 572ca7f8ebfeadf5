"""Concurrent requests of one Celery task: sent as slots become free, collected as they complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from tasks.musicapi.client import MusicApi
from tasks.musicapi.errors import UpstreamError
from tasks.musicapi.requests import ApiRequest

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completed(Generic[K, T]):
    """A completed request: the key it was sent with, its parsed response or error, and its duration in seconds."""

    key: K
    outcome: T | Exception
    duration_s: float

    @property
    def result(self) -> T | UpstreamError:
        """The parsed response or the upstream error. Raises any other exception: it is a defect."""
        if isinstance(self.outcome, Exception) and not isinstance(self.outcome, UpstreamError):
            raise self.outcome
        return self.outcome


class RequestPool(Generic[K, T]):
    """Requests in flight; results are queued until the caller collects them.

    While the caller writes some results to Redis, others arrive, and the next `collect` returns them together.
    """

    def __init__(
        self, upstream: MusicApi, span: Callable[[K], AbstractContextManager[None]] = lambda _: nullcontext()
    ) -> None:
        self._upstream = upstream
        self._span = span
        self._completed: SimpleQueue[Completed[K, T]] = SimpleQueue()
        self._uncollected = 0

    @property
    def free_slots(self) -> int:
        """The number of requests that could be sent at once now."""
        return max(0, self._upstream.connections - self._uncollected)

    @property
    def is_open(self) -> bool:
        """True if any request has not been collected yet."""
        return self._uncollected > 0

    def send(self, requests: Sequence[tuple[K, ApiRequest[T]]]) -> None:
        """Send requests, as many at once as there are connections."""
        if requests:
            self._uncollected += len(requests)
            self._upstream.send_many(requests, self._complete, self._span)

    def collect(self, timeout: float | None = None) -> list[Completed[K, T]]:
        """Return the requests completed since the last call; wait up to `timeout` seconds for the first one."""
        completed: list[Completed[K, T]] = []
        with suppress(Empty):
            if self.is_open:
                completed.append(self._completed.get(timeout=timeout))
            while self.is_open:
                completed.append(self._completed.get_nowait())
        self._uncollected -= len(completed)
        return completed

    def _complete(self, key: K, outcome: T | Exception, duration_s: float) -> None:
        self._completed.put(Completed(key, outcome, duration_s))
