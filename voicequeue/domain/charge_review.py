"""Evidence about a job whose charge is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from voicequeue.domain.balance import Balance, BalanceWindow, balance_window
from voicequeue.domain.job import Job, TimelineEntry, to_iso8601
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import FailureCode, State

if TYPE_CHECKING:
    from voicequeue.domain import schemas


@dataclass(frozen=True, slots=True)
class ChargeReview:
    """An unsure job and the evidence about its charge.

    Attributes:
        job: The job; a response that could not be parsed is its `unreadable_response`.
        last_entry: Last entry of its timeline, which says what happened.
        balance_window: Balances around the charge; None where no balances are available.
    """

    job: Job
    last_entry: TimelineEntry
    balance_window: BalanceWindow | None

    @property
    def attempt(self) -> int:
        """The number of the order, from 1."""
        return self.job.attempt

    @property
    def credits_at_stake(self) -> int:
        """The credits that its order costs, and that may have been charged."""
        return PRICES[self.job.stage]

    def as_dict(self) -> schemas.ChargeReview:
        """Return the JSON representation."""
        return {
            **self.job.as_dict(),
            "attempt": self.attempt,
            "reason": self.last_entry.reason,
            "upstream_response": self.job.unreadable_response,
            "since": to_iso8601(self.last_entry.at),
            "credits_at_stake": self.credits_at_stake,
            "credits_before": self.balance_window.before.credits if self.balance_window else None,
            "credits_after": self.balance_window.after.credits if self.balance_window else None,
            "credits_unexplained": self.balance_window.unexplained if self.balance_window else None,
        }


class ReviewDecision(StrEnum):
    """A decision about an unsure order."""

    CONFIRM = "confirm"
    RESUBMIT = "resubmit"
    ABANDON = "abandon"


def is_decided(job: Job, decision: ReviewDecision, attempt: int, task_id: str | None) -> bool:
    """Return whether the order with this number was reviewed with this result before."""
    is_abandoned = job.failure is not None and job.failure.code is FailureCode.ABANDONED and job.attempt == attempt
    match decision:
        case ReviewDecision.CONFIRM:
            return task_id is not None and job.charged_task_ids.get(attempt) == task_id
        case ReviewDecision.RESUBMIT:
            return attempt in job.lost_stages and not is_abandoned
        case ReviewDecision.ABANDON:
            return is_abandoned


def review_charge(job: Job, timeline: Sequence[TimelineEntry], balances: Sequence[Balance]) -> ChargeReview | None:
    """Return the review of an unsure job; None for a job that is not unsure by its timeline."""
    if len(timeline) < 2 or timeline[-1].state is not State.UNSURE:
        return None
    charging, last = timeline[-2:]
    return ChargeReview(job, last, balance_window(balances, charging.at, last.at))
