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


@dataclass(frozen=True, slots=True)
class Tries:
    """How often, and for how long, what fails is tried."""

    #: Between the first try and the second; each further wait is three times as long,
    first_s: float = 5.0
    #: up to this one.
    most_s: float = 3600.0
    #: Since it could first be done, before it is given up.
    for_s: float = 86_400.0

    def next_try(self, since: float, tries: int, now: float, *, at_least: float = 0.0) -> float | None:
        """When to try again after so many tries that failed; None to give up.

        The last try is made when the time is just over.
        """
        end = since + self.for_s
        if now >= end:
            return None
        wait = min(self.most_s, self.first_s * 3.0 ** min(tries - 1, 50))
        return min(end, now + min(self.most_s, max(wait, at_least)))


@dataclass(frozen=True, slots=True)
class CallbackPatience(Tries):
    """How often, and for how long, a callback is tried."""

    #: A claim, before somebody else may try.
    lease_s: float = 40.0
    #: After a claim no try begins later than this; the rest is for another task.
    lane_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ArchivePatience(Tries):
    """How often, and for how long, a job's songs are tried."""

    #: A claim that its holder does not renew any more, before somebody else may try.
    lease_s: float = 60.0

    @property
    def handed_out_s(self) -> float:
        """Before a message that nobody has begun with counts as lost."""
        return 5 * self.lease_s
