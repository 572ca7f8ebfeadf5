"""Time limits of row uploads. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Rows must arrive at this rate (bytes per second), averaged over the window (seconds).
LEAST_RATE = 1_024.0
WINDOW_S = 30.0

#: The longest upload (seconds): 100,000 rows of 300 bytes fit at 2.1 KB/s.
UPLOAD_S = 4 * 3600.0


@dataclass(slots=True)
class Pace:
    """Seconds that the server may still wait for a sender.

    Waiting spends them and received bytes earn them, up to one window. Time in which the server does not read costs
    nothing.
    """

    least_rate: float = LEAST_RATE
    window_s: float = WINDOW_S
    left_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left_s = self.window_s

    def spend(self, seconds: float) -> None:
        """Subtract seconds of waiting for the sender."""
        self.left_s -= seconds

    def earn(self, size: int) -> None:
        """Add the time for received bytes."""
        self.left_s = min(self.window_s, self.left_s + size / self.least_rate)
