"""Overview of the queue, of a batch and of the backlog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from voicequeue.domain.gate import Account, Gate, Hold
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import INACTIVE, State

if TYPE_CHECKING:
    from voicequeue.domain import schemas


@dataclass(frozen=True, slots=True)
class BacklogLane:
    """Queued jobs of one priority and batch (None: without a batch).

    `with_voice` of them have their voice. `oldest_at` is in Unix seconds.
    """

    priority: Priority
    batch: str | None
    count: int
    oldest_at: float
    with_voice: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A named set of jobs with its counters and limits.

    `states` counts its jobs by state. `credits` are spent; `reserved_credits` are for jobs in flight, unsure
    jobs and lost orders that may have been charged.
    """

    name: str
    states: dict[State, int]
    credits: int
    is_paused: bool = False
    max_credits: int | None = None
    max_in_flight: int | None = None
    reserved_credits: int = 0

    @property
    def total(self) -> int:
        """The number of its jobs, without deleted ones."""
        return sum(self.states.values())

    @property
    def is_settled(self) -> bool:
        """True if every job is final or waits for an operator (`unsure`)."""
        return self.total == sum(self.states[state] for state in INACTIVE)

    def as_dict(self) -> schemas.BatchProgress:
        """Return the JSON representation of its progress."""
        return {
            "name": self.name,
            "states": self.states,
            "total": self.total,
            "settled": self.is_settled,
            "credits": self.credits,
            "credits_reserved": self.reserved_credits,
        }

    def limits_dict(self) -> schemas.BatchLimits:
        """Return the JSON representation of its pause and limits."""
        return {"paused": self.is_paused, "max_credits": self.max_credits, "max_in_flight": self.max_in_flight}


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    """Number of callbacks by state, and of the workers that deliver them.

    `blocked` are those of the pending ones that wait for an earlier callback of their job. `delivered` counts all time.
    """

    pending: int = 0
    blocked: int = 0
    undelivered: int = 0
    delivered: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ArchiveCounts:
    """Number of jobs by archiving state, and of the workers that archive.

    `jobs` and `files` count all that were ever archived.
    """

    pending: int = 0
    failed: int = 0
    jobs: int = 0
    files: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class RefusedJob:
    """A job whose order upstream refuses while it accepts others, with its message.

    It was refused `refusals` times in a row and is not submitted again before `next_attempt_at` (Unix seconds).
    """

    job_id: str
    stage: Stage
    message: str
    refusals: int
    next_attempt_at: float

    def as_dict(self) -> schemas.RefusedJob:
        """Return the JSON representation."""
        return {
            "job_id": self.job_id,
            "stage": self.stage,
            "message": self.message,
            "refusals": self.refusals,
            "next_attempt_at": to_iso8601(self.next_attempt_at),
        }


@dataclass(frozen=True, slots=True)
class Status:
    """Overview of the queue or of one batch.

    `failures` are failed jobs by code. `rejected_messages`, `callbacks` and `archive` are 0 in the status of a batch.
    `in_flight_limit` is the number of jobs that may be in flight now; `jobs_per_minute` the number that recently
    succeeded per minute; `seconds_left` the time to settle all jobs at that rate (None: unknown). `rejected_messages`
    is the number of messages that did not become a job, and `refused_jobs` the first jobs that upstream refuses while
    it accepts others. `at` is when the overview was read, by the queue's time.
    """

    states: dict[State, int]
    gate: Gate
    in_flight: int
    in_flight_limit: int
    credits: int
    workers: int
    account: Account
    backlog: tuple[BacklogLane, ...]
    failures: dict[str, int]
    jobs_per_minute: float
    seconds_left: float | None
    rejected_messages: int = 0
    callbacks: CallbackCounts = CallbackCounts()
    archive: ArchiveCounts = ArchiveCounts()
    refused_jobs: tuple[RefusedJob, ...] = ()
    at: float = 0.0

    @property
    def backlog_credits(self) -> int:
        """The maximum cost of the queued jobs: each with a song, and with a voice unless it has one."""
        return sum(line.count * sum(PRICES.values()) - line.with_voice * PRICES[Stage.VOICE] for line in self.backlog)

    def as_dict(self, batch: str | None) -> schemas.Status:
        """Return the JSON representation; `batch` is the name of the batch (None: the whole queue)."""
        return {
            "batch": batch,
            "states": self.states,
            "gate": {"open": self.gate.is_open, "holds": [_hold_dict(hold) for hold in self.gate.holds]},
            "in_flight": self.in_flight,
            "in_flight_limit": self.in_flight_limit,
            "backlog": [_backlog_dict(priority, lines) for priority, lines in by_priority(self.backlog)],
            "jobs_per_minute": self.jobs_per_minute,
            "seconds_left": self.seconds_left,
            "credits": self.credits,
            "balance": self.account.balance,
            "balance_at": to_iso8601(self.account.updated_at),
            "credits_reserved": self.account.reserved,
            "credits_today": self.account.spent_today,
            "credits_unexplained": self.account.uncounted.unexplained if self.account.uncounted else 0,
            "failed_by_code": self.failures,
            "rejected_messages": self.rejected_messages,
            "refused_jobs": [job.as_dict() for job in self.refused_jobs],
            "callbacks": {"pending": self.callbacks.pending, "undelivered": self.callbacks.undelivered},
            "archive": {"pending": self.archive.pending, "failed": self.archive.failed},
            "workers": self.workers,
        }


def _hold_dict(hold: Hold) -> schemas.Hold:
    return {
        "reason": hold.reason,
        "detail": hold.detail,
        "since": to_iso8601(hold.since),
        "until": to_iso8601(hold.until),
        "trial": hold.is_on_trial,
    }


def _backlog_dict(priority: Priority, lines: list[BacklogLane]) -> schemas.Backlog:
    oldest = min(line.oldest_at for line in lines)
    return {"priority": priority, "count": sum(line.count for line in lines), "oldest_at": to_iso8601(oldest)}


def by_priority(backlog: tuple[BacklogLane, ...]) -> Iterator[tuple[Priority, list[BacklogLane]]]:
    """Yield the lanes of the backlog, grouped by priority."""
    return ((priority, list(lines)) for priority, lines in groupby(backlog, key=lambda line: line.priority))
