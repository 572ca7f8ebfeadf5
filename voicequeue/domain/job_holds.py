"""Holds of jobs: why a queued or waiting job is not submitted now. Computed when they are read, never stored. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from voicequeue.domain.job import to_iso8601
from voicequeue.domain.newer_records import stored
from voicequeue.domain.states import State
from voicequeue.texts import owner_text

if TYPE_CHECKING:
    from voicequeue.domain import schemas
    from voicequeue.domain.gate import Hold
    from voicequeue.domain.stage import Stage

#: The owner of the holds that concern all orders.
GATE = "gate"


class JobHoldReason(StrEnum):
    """Reason of a hold of jobs, besides those of the gate."""

    BATCH_PAUSED = "batch_paused"
    BATCH_STOPPED = "batch_stopped"
    BATCH_IN_FLIGHT = "batch_in_flight"
    BATCH_CREDITS = "batch_credits"
    BUDGET_IN_FLIGHT = "budget_in_flight"
    BUDGET_DAY = "budget_day"
    BUDGET_MONTH = "budget_month"
    REFUSED = "refused"
    RECORDING = "recording"
    VOICE = "voice"


#: Reasons that end at their time, or when an operator ends them, however fast jobs are processed.
_LASTING = frozenset(
    (
        JobHoldReason.BATCH_PAUSED,
        JobHoldReason.BATCH_STOPPED,
        JobHoldReason.BATCH_CREDITS,
        JobHoldReason.BUDGET_DAY,
        JobHoldReason.BUDGET_MONTH,
    )
)

#: States in which a job may have holds.
HOLDABLE = frozenset((State.QUEUED, State.WAITING))

#: The sentence of each reason; {owner} is the owner of the hold, {end} when it ends.
_DETAILS = {
    JobHoldReason.BATCH_PAUSED: "{owner} is paused, until it is resumed",
    JobHoldReason.BATCH_STOPPED: "{owner} has stopped itself, because too many of its jobs failed, until it is resumed",
    JobHoldReason.BATCH_IN_FLIGHT: "{owner} has as many jobs in flight as it may",
    JobHoldReason.BATCH_CREDITS: "the credit limit of {owner} is reached, until it is raised",
    JobHoldReason.BUDGET_IN_FLIGHT: "{owner} has as many jobs in flight as it may",
    JobHoldReason.BUDGET_DAY: "today's budget of {owner} is reached{end}",
    JobHoldReason.BUDGET_MONTH: "this month's budget of {owner} is reached{end}",
    JobHoldReason.REFUSED: "MusicAPI refused the order; it is sent again later",
    JobHoldReason.RECORDING: "the recording could not be fetched; it is fetched again later",
    JobHoldReason.VOICE: "waits for the voice that {owner} creates",
}
_RESETS = "; it resets at {until}"
_DOES_NOT_SUFFICE = (
    "; its next reset does not help: it is below the price of the job, or jobs in flight, unsure jobs and lost orders "
    "use it up"
)


@dataclass(frozen=True, slots=True)
class JobHold:
    """One reason why a job is not submitted now.

    Attributes:
        reason: A `JobHoldReason`, or the reason of a hold of the gate.
        owner: Whose limit it is: `gate`, `account`, `namespace/NAME`, `key/NAME`, `batch/NAME`, or `job/ID`.
        until: Time when it ends at the latest (Unix seconds); None if that is unknown, or an operator ends it.
    """

    reason: str
    owner: str
    until: float | None = None

    @property
    def is_passed(self) -> bool:
        """True if jobs behind this one in its lane may be admitted before it."""
        return self.owner.partition("/")[0] in ("key", "job")

    def lasts_beyond(self, at: float) -> bool:
        """Return whether it holds its job until later than this time, or until an operator ends it."""
        return self.reason in _LASTING and (self.until is None or self.until > at)

    @property
    def detail(self) -> str:
        """The reason as a sentence."""
        if self.owner == GATE:
            return f"no order is submitted: {self.reason}"
        end = _RESETS.format(until=to_iso8601(self.until)) if self.until else _DOES_NOT_SUFFICE
        text = _DETAILS.get(stored(JobHoldReason, self.reason), f"{self.reason}: {{owner}}")
        return text.format(owner=owner_text(self.owner), end=end)

    def as_dict(self) -> schemas.JobHold:
        """Return the JSON representation."""
        return {
            "reason": self.reason,
            "owner": self.owner,
            "until": to_iso8601(self.until),
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class BacklogHold:
    """A hold of lanes of the backlog, and the number of their jobs.

    Attributes:
        hold: The hold of the first job of each lane.
        jobs: Number of jobs in these lanes; of a hold of an API key or of one job only the first of each lane, because
            others pass it.
    """

    hold: JobHold
    jobs: int

    def as_dict(self) -> schemas.BacklogHold:
        """Return the JSON representation."""
        return {**self.hold.as_dict(), "jobs": self.jobs}


def gate_holds(holds: tuple[Hold, ...], stage: Stage) -> list[JobHold]:
    """Return the holds of the gate that concern this stage."""
    reasons = {hold.reason: hold.until for hold in holds}
    return [
        JobHold(reason, GATE, until)
        for reason, until in reasons.items()
        if "." not in reason or reason.endswith(f".{stage}")
    ]


def count_by_hold(holds: list[list[JobHold]], jobs: list[int]) -> list[BacklogHold]:
    """Return the holds of lanes, each once, with the number of jobs in its lanes; the largest number first."""
    counts: dict[JobHold, int] = {}
    for lane_holds, count in zip(holds, jobs, strict=True):
        for hold in lane_holds:
            counts[hold] = counts.get(hold, 0) + (1 if hold.is_passed else count)
    return [BacklogHold(hold, count) for hold, count in sorted(counts.items(), key=lambda item: -item[1])]
