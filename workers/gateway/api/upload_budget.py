"""Time limits of row uploads. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Rows must arrive at this rate (bytes per second), averaged over the window (seconds).
MIN_RATE = 1_024.0
WINDOW_S = 30.0

#: The longest upload (seconds): 100,000 rows of 300 bytes fit at 2.1 KB/s.
UPLOAD_TIMEOUT_S = 4 * 3600.0


@dataclass(slots=True)
class UploadBudget:
    """Seconds that the server may still wait for a sender.

    Waiting spends them and received bytes earn them, up to one window. Time in which the server does not read costs
    nothing.
    """

    min_rate: float = MIN_RATE
    window_s: float = WINDOW_S
    remaining_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.remaining_s = self.window_s

    def spend(self, seconds: float) -> None:
        """Subtract seconds of waiting for the sender."""
        self.remaining_s -= seconds

    def earn(self, size: int) -> None:
        """Add the time for received bytes."""
        self.remaining_s = min(self.window_s, self.remaining_s + size / self.min_rate)
