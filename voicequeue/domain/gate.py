"""The gate that suspends charging, its holds, the limits and the account. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from voicequeue.domain.balance import UncountedSpending

if TYPE_CHECKING:
    from voicequeue.domain import operator_schemas

#: Minimum POSTs per minute; the same as in scripts/lib/flow_control.lua.
SUBMIT_RATE_MIN = 0.01


class HoldReason(StrEnum):
    """Reason of a hold."""

    PAUSED = "paused"
    OUT_OF_CREDITS = "out_of_credits"
    UNAUTHORIZED = "unauthorized"
    COOLDOWN = "cooldown"
    UPSTREAM_DOWN = "upstream_down"
    UNREPLICATED = "unreplicated"


class HoldEffect(IntEnum):
    """Effect on all orders of a request that upstream refused or did not answer.

    ALONE: it concerns this request only, so far. ON_TRIAL: from now on one order at a time is sent. CLOSED: charging is
    suspended.
    """

    ALONE = 0
    NONE = 1
    ON_TRIAL = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that upstream refused with an error that may apply to every order or to this one only; nothing was
    charged.

    The store decides which (scripts/lib/refusals.lua). If it applies to all, charging is suspended for `hold_s`, then
    for longer, up to `max_hold_s` (None: until an operator resumes). The job itself is submitted again after `hold_s`,
    then later, up to `max_rest_s`, and not before `wait_s`, the delay that upstream asked for. It fails after
    `max_attempts` refusals while other orders were accepted. Times are in seconds.
    """

    reason: HoldReason
    message: str
    hold_s: float
    max_hold_s: float | None
    max_rest_s: float
    wait_s: float = 0.0
    max_attempts: int = 3


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason to suspend charging.

    Attributes:
        reason: A `HoldReason` or `paused.<stage>`.
        detail: Details, such as upstream's text and the job that received it.
        since: Time when the hold began (Unix seconds).
        until: Time when it ends (Unix seconds); None until it is resolved.
        is_on_trial: True if one job at a time is submitted; the hold ends when upstream accepts one.
    """

    reason: str
    detail: str
    since: float
    until: float | None = None
    is_on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate that all charges pass.

    Attributes:
        holds: Holds that suspend charging at the moment; empty if the gate is open.
    """

    holds: tuple[Hold, ...] = ()

    @property
    def is_open(self) -> bool:
        """True if there is no hold."""
        return not self.holds

    def hold_for(self, reason: str) -> Hold | None:
        """Return the hold with this reason, if there is one."""
        return next((hold for hold in self.holds if hold.reason == reason), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on charging.

    Attributes:
        in_flight: Maximum number of jobs in flight.
        initial_in_flight: Initial limit of jobs in flight. The number that upstream accepts at once is found
            automatically, starting here.
        submit_rate: Maximum number of POSTs per minute; None for no limit.
        min_balance: Minimum balance to keep, in credits.
    """

    in_flight: int = 100
    initial_in_flight: int = 10
    submit_rate: float | None = None
    min_balance: int = 0

    def script_arguments(self) -> tuple[float | str, ...]:
        """Return the limits as arguments of the scripts."""
        rate = "" if self.submit_rate is None else self.submit_rate
        return (self.in_flight, self.initial_in_flight, rate, self.min_balance)

    def as_dict(self) -> operator_schemas.Limits:
        """Return the JSON representation."""
        return {"in_flight": self.in_flight, "submit_rate": self.submit_rate, "min_balance": self.min_balance}

    def as_text(self) -> dict[str, str]:
        """Return the limits by name as text; a submit rate of 0 means unlimited."""
        return {
            "in_flight": str(self.in_flight),
            "initial_in_flight": str(self.initial_in_flight),
            "submit_rate": f"{self.submit_rate or 0:g}",
            "min_balance": str(self.min_balance),
        }


@dataclass(frozen=True, slots=True)
class Account:
    """The account by our count.

    Attributes:
        balance: Credits on the account; None until upstream has reported them.
        updated_at: Time when upstream last reported the balance (Unix seconds); None until it has.
        reserved: Credits reserved for jobs in flight and unsure jobs.
        spent_today: Credits spent in the current UTC day.
        uncounted: Spending that was not counted; None if there is none.
        queued_credits: Credits that queued and waiting jobs will take in addition, each shared voice once.
    """

    balance: int | None = None
    updated_at: float | None = None
    reserved: int = 0
    spent_today: int = 0
    uncounted: UncountedSpending | None = None
    queued_credits: int = 0
