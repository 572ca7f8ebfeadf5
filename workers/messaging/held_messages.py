"""The limit on messages that a worker holds for other programs until their `eta`."""

from __future__ import annotations

from heapq import heappop, heappush

#: Bytes of such messages per worker: about 5,000 of the usual size.
DELAYED_BYTES_MAX = 64_000_000

#: Bytes that Celery needs per message besides its body: 9,000 delayed messages took 80 MB.
OVERHEAD = 10_000


class DelayedMessages:
    """The messages that wait, ordered by their `eta`. All times are times of the queue's clock."""

    def __init__(self) -> None:
        self._by_eta: list[tuple[float, int]] = []
        self._total_bytes = 0

    def add(self, until: float, size: int, *, now: float) -> bool:
        """Count a message of `size` bytes that waits until then. Return False, and count nothing, beyond the limit."""
        while self._by_eta and self._by_eta[0][0] <= now:
            self._total_bytes -= heappop(self._by_eta)[1]
        if until <= now:
            return True
        cost = size + OVERHEAD
        if self._total_bytes + cost > DELAYED_BYTES_MAX:
            return False
        heappush(self._by_eta, (until, cost))
        self._total_bytes += cost
        return True
