"""How long to wait before somebody else looks after things. Pure; all times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


def look_again(waited: float) -> float:
    """How long to wait before asking again for a result that nobody waits for any more.

    Half as long as was waited for it so far: a dozen questions in a day.
    """
    return waited / 2


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take before somebody else looks after them."""

    #: One POST, claim to answer; after it a silent charge is unsure.
    charge_s: float = 90.0
    #: One round of polls; after it another worker may ask about the same jobs.
    poll_s: float = 90.0
    #: Beyond its due time, before the pulse hands a job out again.
    stale_s: float = 10.0
    #: Starting new POSTs within one submit task; the rest goes into a task of its own.
    submit_s: float = 20.0
    #: After its order, before a result that nobody waits for any more is looked for no longer.
    late_s: float = 86_400.0
    #: How long the gate stays closed after a 429 without Retry-After, or a failed connection.
    cooldown_s: float = 5.0
    #: How long it stays closed when the account cannot pay or the key is wrong.
    account_s: float = 60.0
