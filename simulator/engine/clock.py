"""One clock for everything: Unix seconds that never jump."""

import time
from collections.abc import Callable

#: Returns the present moment in Unix seconds.
Clock = Callable[[], float]


def steady_clock() -> Clock:
    """A clock that shows the wall's time at its start and from then on counts steadily, whatever NTP does."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset
