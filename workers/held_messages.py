"""How much a worker holds for other programs: messages that wait for their `eta`."""

from __future__ import annotations

from heapq import heappop, heappush

#: Bytes of such messages in one worker; about 5,000 ordinary ones.
WAITING_MAX = 64_000_000

#: What Celery keeps of each beside its body (bytes): 9,000 that waited were seen to take 80 MB.
OVERHEAD = 10_000


class Waiting:
    """Messages that wait, by when they end to; all times are the queue's."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, int]] = []
        self._held = 0

    def add(self, until: float, size: int, *, now: float) -> bool:
        """Count one that waits until then. Return False, and do not count it, where there are too many."""
        while self._ends and self._ends[0][0] <= now:
            self._held -= heappop(self._ends)[1]
        if until <= now:
            return True
        cost = size + OVERHEAD
        if self._held + cost > WAITING_MAX:
            return False
        heappush(self._ends, (until, cost))
        self._held += cost
        return True
