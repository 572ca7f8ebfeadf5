"""Concurrency limits for long requests, shared fairly between API keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from workers.gateway.problems import ProblemError
from workers.gateway.server.limit_log import log


class ConcurrencyLimit:
    """Slots for concurrent requests of one kind in this process.

    A caller gets another slot while it holds fewer than `share` times the number of free ones: one caller alone leaves
    slots for others, and several leave slots for the next.
    """

    def __init__(self, total: int, *, share: float, what: str) -> None:
        self._total, self._share, self._what = total, share, what
        self._acquired: Counter[str] = Counter()

    def check(self, caller: str) -> None:
        """Raise ProblemError if the caller gets no slot now."""
        free = self._total - self._acquired.total()
        if free <= 0:
            log.warning("all slots for %s are taken; refused %s", self._what, caller or "this machine")
            raise ProblemError(503, f"All {self._total} concurrent {self._what} are taken; try again later.")
        if (acquired := self._acquired[caller]) >= free * self._share:
            log.warning("%s has %s concurrent %s and gets no more", caller or "this machine", acquired, self._what)
            raise ProblemError(
                429,
                f"This key has {acquired} of the {self._total} concurrent {self._what}; try again when one of them has "
                "ended.",
            )

    def acquire(self, caller: str) -> None:
        """Take a slot; `release` returns it. Raises ProblemError."""
        self.check(caller)
        self._acquired[caller] += 1

    def release(self, caller: str) -> None:
        """Return a slot."""
        self._acquired[caller] -= 1
        if not self._acquired[caller]:
            del self._acquired[caller]

    @contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """Hold a slot in the body. Raises ProblemError."""
        self.acquire(caller)
        try:
            yield
        finally:
            self.release(caller)
