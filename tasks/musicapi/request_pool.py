"""The calls of one step: begun as it goes, heard of as they are answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from tasks.musicapi.client import MusicApi
from tasks.musicapi.errors import UpstreamError
from tasks.musicapi.requests import Call

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told(Generic[K, T]):
    """What came of the call that was begun for `of`: what its answer says, or the error, and the seconds it took."""

    of: K
    found: T | Exception
    seconds: float

    @property
    def result(self) -> T | UpstreamError:
        """Raises what is no error of upstream's but a defect."""
        if isinstance(self.found, Exception) and not isinstance(self.found, UpstreamError):
            raise self.found
        return self.found


class Exchange(Generic[K, T]):
    """Calls on their way. Whoever began them takes their answers when he has time: while he writes some down, others
    arrive, and are taken together."""

    def __init__(
        self, upstream: MusicApi, within: Callable[[K], AbstractContextManager[None]] = lambda _: nullcontext()
    ) -> None:
        self._upstream = upstream
        self._within = within
        self._told: SimpleQueue[Told[K, T]] = SimpleQueue()
        self._open = 0

    @property
    def free(self) -> int:
        """How many more calls would be made at once."""
        return max(0, self._upstream.connections - self._open)

    @property
    def is_open(self) -> bool:
        """Whether there are calls that nobody has heard of yet."""
        return self._open > 0

    def begin(self, calls: Sequence[tuple[K, Call[T]]]) -> None:
        """Make these calls, as many at once as there are connections."""
        if calls:
            self._open += len(calls)
            self._upstream.begin(calls, self._tell, self._within)

    def told(self, within: float | None = None) -> list[Told[K, T]]:
        """What came of calls since; waits for the first of them, at most `within` seconds."""
        found: list[Told[K, T]] = []
        with suppress(Empty):
            if self.is_open:
                found.append(self._told.get(timeout=within))
            while self.is_open:
                found.append(self._told.get_nowait())
        self._open -= len(found)
        return found

    def _tell(self, of: K, found: T | Exception, seconds: float) -> None:
        self._told.put(Told(of, found, seconds))
