"""How fast a body must come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

#: A sender of rows that was waited for is given up when it sent less than this (bytes a second) over so long (seconds).
LEAST_RATE = 1_024.0
WINDOW_S = 30.0

#: An upload must end within so many seconds: 100,000 rows of 300 bytes have time at 2.1 KB/s.
UPLOAD_S = 4 * 3600.0


@dataclass(slots=True)
class Pace:
    """Seconds that a sender may still be waited for: each wait uses them up, each byte that comes earns some, and no
    sender saves up more than a window. Time in which nothing was asked of it does not count.
    """

    least_rate: float = LEAST_RATE
    window_s: float = WINDOW_S
    left_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left_s = self.window_s

    def spend(self, seconds: float) -> None:
        """Count seconds in which the sender was waited for."""
        self.left_s -= seconds

    def earn(self, size: int) -> None:
        """Count bytes that came."""
        self.left_s = min(self.window_s, self.left_s + size / self.least_rate)
