"""Evidence about a job whose charge is unsure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voicequeue.domain.balance import Around, Balance, around
from voicequeue.domain.job import Job, State, Step, iso
from voicequeue.domain.stage import PRICES

if TYPE_CHECKING:
    from voicequeue.domain import schemas


@dataclass(frozen=True, slots=True)
class Unsure:
    """An unsure job with its last timeline entry, which says what happened, and the balances around the charge.

    `account` is None where no balances are available. An answer that could not be read is the job's `answer`.
    """

    job: Job
    last: Step
    account: Around | None

    @property
    def at_stake(self) -> int:
        """The credits that its order costs, and that may have been charged."""
        return PRICES[self.job.stage]

    def as_dict(self) -> schemas.ChargeReview:
        """Return the JSON representation."""
        return {
            **self.job.as_dict(),
            "reason": self.last.reason,
            "answer": self.job.answer,
            "since": iso(self.last.at),
            "at_stake": self.at_stake,
            "credits_before": self.account.before.credits if self.account else None,
            "credits_after": self.account.after.credits if self.account else None,
            "credits_unexplained": self.account.unexplained if self.account else None,
        }


def known(job: Job, timeline: Sequence[Step], balances: Sequence[Balance]) -> Unsure | None:
    """Return the review of an unsure job; None for a job that is not unsure by its timeline."""
    if len(timeline) < 2 or timeline[-1].state is not State.UNSURE:
        return None
    charging, last = timeline[-2:]
    return Unsure(job, last, around(balances, charging.at, last.at))
