"""The clock of the simulator: Unix seconds that never jump."""

import time
from collections.abc import Callable

#: Returns the current time in Unix seconds.
Clock = Callable[[], float]


def steady_clock() -> Clock:
    """Return a clock that starts at the wall-clock time and is monotonic from then on."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset
