"""Places for what takes long, shared out among API keys so that none takes all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from workers.gateway.notices import log
from workers.gateway.problems import Refusal


class Places:
    """So many at once in this process. A caller gets another one while it holds fewer than `share` of those that are
    free, so that one alone leaves some to others, and several leave some to those who come next."""

    def __init__(self, total: int, *, share: float, what: str) -> None:
        self._total, self._share, self._what = total, share, what
        self._held: Counter[str] = Counter()

    def check(self, caller: str) -> None:
        """Raise Refusal where the caller gets no place now."""
        free = self._total - self._held.total()
        if free <= 0:
            log.warning("all places for %s are taken; %s is refused", self._what, caller or "this machine")
            raise Refusal(503, f"all {self._total} places for {self._what} are taken; try again later")
        if (held := self._held[caller]) >= free * self._share:
            log.warning("%s holds %s places for %s and gets no more", caller or "this machine", held, self._what)
            raise Refusal(
                429, f"this key holds {held} of the {self._total} places for {self._what}; wait until one of them ends"
            )

    def take(self, caller: str) -> None:
        """Take a place until `free`. Raises Refusal."""
        self.check(caller)
        self._held[caller] += 1

    def free(self, caller: str) -> None:
        """Give a place back."""
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]

    @contextmanager
    def held(self, caller: str) -> Iterator[None]:
        """Hold a place meanwhile. Raises Refusal."""
        self.take(caller)
        try:
            yield
        finally:
            self.free(caller)
