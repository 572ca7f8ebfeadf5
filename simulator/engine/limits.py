"""The account's rate limit."""

import math


class Rate:
    """A rate limiter whose rate may change between calls. It stores one number and needs no timer."""

    def __init__(self) -> None:
        # When the allowance will be full again; the time until then is what is used of it.
        self._full_at = -math.inf

    def wait(self, now: float, per_minute: float, burst: int | None) -> float:
        """Accept a call and return 0, or reject it and return the seconds until one would be accepted."""
        interval = 60 / per_minute
        at_once = max(1.0, per_minute) if burst is None else burst
        used = max(self._full_at - now, 0.0)
        wait = used - (at_once - 1) * interval
        # Sums of fractions may exceed the limit by a rounding error.
        if wait > 1e-9:
            return wait
        self._full_at = now + used + interval
        return 0.0
