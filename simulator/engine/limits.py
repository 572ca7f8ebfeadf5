"""The account's rate limit."""

import math


class Rate:
    """Counts calls against a rate that may change between two of them. Needs no timer and remembers one number."""

    def __init__(self) -> None:
        # When the allowance would be full again; the distance from now says how much of it is used.
        self._full_at = -math.inf

    def wait(self, now: float, per_minute: float, burst: int | None) -> float:
        """Take one call now and return 0, or take none and return the seconds until one would be let through."""
        interval = 60 / per_minute
        at_once = max(1.0, per_minute) if burst is None else burst
        used = max(self._full_at - now, 0.0)
        wait = used - (at_once - 1) * interval
        # Sums of fractions may overshoot by a hair.
        if wait > 1e-9:
            return wait
        self._full_at = now + used + interval
        return 0.0
