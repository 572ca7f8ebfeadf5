"""What holds charges back: the gate and its reasons, the limits, the account. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from voicequeue.domain.balance import Drift

#: POSTs a minute, at the least; scripts/lib/flow_control.lua and config/settings.py say the same.
SUBMIT_RATE_MIN = 0.01


class Reason(StrEnum):
    """Why nothing is charged."""

    PAUSED = "paused"
    OUT_OF_CREDITS = "out_of_credits"
    UNAUTHORIZED = "unauthorized"
    COOLDOWN = "cooldown"
    UPSTREAM_DOWN = "upstream_down"


class Effect(IntEnum):
    """What follows for all orders from a call that upstream refused or did not answer: since now one at a time is
    tried, or nothing is charged. ALONE: it concerns this call only, so far."""

    ALONE = 0
    NONE = 1
    ON_TRIAL = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Upstream refused an order in words that may be meant for every order, or for this one alone; nothing was charged.

    The store decides which (scripts/lib/refusals.lua). Times are in seconds: if it is meant for all nothing is charged
    for `pause_s`, then for longer, up to `most_s` (None: until an operator resumes). The job itself is sent again after
    `pause_s`, then later, up to `rest_s`, and not before `wait_s`, for which upstream asked. Refused `tries` times
    while upstream took others, it fails.
    """

    reason: Reason
    message: str
    pause_s: float
    most_s: float | None
    rest_s: float
    wait_s: float = 0.0
    tries: int = 3


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason, since when, and until when (Unix seconds; None: till somebody or the account opens it).

    `detail` has upstream's words, and names the job that they were said to.

    `reason` is one of `Reason`, or `paused.<stage>`. On `trial` one job at a time is let through; the
    reason is gone as soon as upstream takes it.
    """

    reason: str
    detail: str
    since: float
    until: float | None = None
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """All that holds charges back at the moment."""

    holds: tuple[Hold, ...] = ()

    @property
    def open(self) -> bool:
        """Whether nothing does."""
        return not self.holds

    def closed_for(self, reason: str) -> Hold | None:
        """The hold for that reason, if there is one."""
        return next((hold for hold in self.holds if hold.reason == reason), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is charged at most: jobs in flight, POSTs a minute (None: any), credits that are not touched.

    How many jobs upstream bears at once is found out, beginning with `first_in_flight`.
    """

    in_flight: int = 100
    first_in_flight: int = 10
    submit_rate: float | None = None
    credit_floor: int = 0

    def arguments(self) -> tuple[float | str, ...]:
        """As the scripts take them."""
        rate = "" if self.submit_rate is None else self.submit_rate
        return (self.in_flight, self.first_in_flight, rate, self.credit_floor)

    def as_text(self) -> dict[str, str]:
        """By name, as they are written down for others; 0 POSTs a minute is any."""
        return {
            "in_flight": str(self.in_flight),
            "first_in_flight": str(self.first_in_flight),
            "submit_rate": f"{self.submit_rate or 0:g}",
            "credit_floor": str(self.credit_floor),
        }


@dataclass(frozen=True, slots=True)
class Account:
    """Credits `left` by our count (None: upstream has not said yet, `at` is when it did last), and those
    `committed` to jobs in flight and unsure ones; spent today (UTC); `drift` is what left it uncounted, if anything
    did."""

    left: int | None = None
    at: float | None = None
    committed: int = 0
    spent_today: int = 0
    drift: Drift | None = None
