"""Overview of the queue, of a batch and of the backlog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from voicequeue.domain.gate import Account, Gate, Hold
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.job_holds import BacklogHold
from voicequeue.domain.namespaces import ALL, qualify
from voicequeue.domain.spec import Priority
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import INACTIVE, State
from voicequeue.domain.stop_loss import STOP_MIN, BatchStop

if TYPE_CHECKING:
    from voicequeue.domain import schemas


@dataclass(frozen=True, slots=True)
class BacklogLane:
    """Queued jobs of one priority and batch.

    Attributes:
        priority: Priority of the jobs.
        batch: Batch of the jobs; None for jobs without a batch.
        count: Number of jobs.
        oldest_at: Time when the oldest of them was enqueued (Unix seconds).
        with_voice: Number of them that have their voice.
        namespace: Namespace of the jobs; empty for the default one.
        head_id: Id of the next of them to be admitted.
    """

    priority: Priority
    batch: str | None
    count: int
    oldest_at: float
    with_voice: int = 0
    namespace: str = ""
    head_id: str = field(default="", compare=False)

    @property
    def qualified_batch(self) -> str:
        """The batch with its namespace, such as `shop/spring`; of jobs without a batch, the namespace alone."""
        return qualify(self.namespace, self.batch or "")


@dataclass(frozen=True, slots=True)
class Batch:
    """A named set of jobs with its counters and limits.

    Attributes:
        name: Name of the batch.
        states: Number of jobs by state.
        credits: Credits spent.
        is_paused: True if no orders of the batch are submitted: an operator paused it, or it has stopped itself.
        max_credits: Maximum number of credits that the batch may spend; None for no limit.
        max_in_flight: Maximum number of jobs of the batch in flight at once; None for no limit.
        reserved_credits: Credits reserved for jobs in flight, unsure jobs, and lost orders that may have been charged.
        queued_credits: Credits that its queued and waiting jobs will take in addition, each shared voice once.
        failures: Number of failed jobs by failure code.
        stop_after: Fraction of failed jobs at which the batch stops itself; None for no limit.
        stop_min: Number of settled jobs without which `stop_after` does not apply.
        stop: Why and when the batch has stopped itself; None if it has not, or was resumed.
        namespace: Namespace that owns the batch; empty for the default one.
        created_at: Time when its first job was enqueued (Unix seconds); None where only its limits were read.
    """

    name: str
    states: dict[State, int]
    credits: int
    is_paused: bool = False
    max_credits: int | None = None
    max_in_flight: int | None = None
    reserved_credits: int = 0
    queued_credits: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    stop_after: float | None = None
    stop_min: int = STOP_MIN
    stop: BatchStop | None = None
    namespace: str = ""
    created_at: float | None = field(default=None, compare=False)

    @property
    def qualified_name(self) -> str:
        """The name with its namespace, such as `shop/spring`."""
        return qualify(self.namespace, self.name)

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
            "namespace": self.namespace,
            "states": self.states,
            "total": self.total,
            "settled": self.is_settled,
            "credits": self.credits,
            "credits_reserved": self.reserved_credits,
            "credits_queued": self.queued_credits,
            "failed_by_code": dict(self.failures),
            "stopped": self.stop.as_dict() if self.stop else None,
        }

    def full_dict(self) -> schemas.Batch:
        """Return the JSON representation of its progress, its pause and its limits."""
        return {**self.as_dict(), **self.limits_dict(), "created_at": to_iso8601(self.created_at)}

    def limits_dict(self) -> schemas.BatchLimits:
        """Return the JSON representation of its pause and limits."""
        return {
            "paused": self.is_paused,
            "max_credits": self.max_credits,
            "max_in_flight": self.max_in_flight,
            "stop_after": self.stop_after,
            "stop_min": self.stop_min,
        }


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    """Number of callbacks by state, and of the workers that deliver them.

    Attributes:
        pending: Callbacks to be delivered.
        blocked: Pending callbacks that wait for an earlier callback of their job.
        undelivered: Callbacks given up.
        delivered: Callbacks delivered, of all time.
        workers: Workers that deliver callbacks.
    """

    pending: int = 0
    blocked: int = 0
    undelivered: int = 0
    delivered: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ArchiveCounts:
    """Number of jobs by archiving state, and of the workers that archive.

    Attributes:
        pending: Jobs whose songs are to be archived.
        failed: Jobs whose archiving was given up.
        jobs: Jobs that were ever archived.
        files: Files that were ever archived.
        workers: Workers that archive.
    """

    pending: int = 0
    failed: int = 0
    jobs: int = 0
    files: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class RefusedJob:
    """A job whose order upstream refuses while it accepts others.

    Attributes:
        job_id: Id of the job.
        stage: Stage that is refused.
        message: Upstream's message.
        refusals: Number of refusals in a row.
        next_attempt_at: Time before which the order is not submitted again (Unix seconds).
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

    Attributes:
        states: Number of jobs by state.
        gate: Holds that suspend charging; always those of the queue.
        in_flight: Number of jobs in flight in the whole queue, also for a batch.
        in_flight_limit: Number of jobs of the whole queue that may be in flight now; adjusted automatically.
        credits: Credits spent by these jobs.
        workers: Number of workers with a recent heartbeat.
        account: The account by our count.
        backlog: Queued jobs by priority and batch.
        backlog_holds: Why queued jobs are not admitted although the gate is open, with their number.
        failures: Number of failed jobs by failure code.
        jobs_per_minute: Number of jobs of the whole queue that recently succeeded per minute.
        seconds_left: Time to settle all jobs at that rate, in seconds; None if unknown, while the gate is closed, or if
            a limit or a pause holds jobs for longer.
        rejected_messages: Number of stored messages that did not become a job; 0 for a batch.
        callbacks: Number of callbacks by state; 0 for a batch.
        archive: Number of jobs by archiving state; 0 for a batch.
        refused_jobs: First jobs that upstream refuses while it accepts others.
        stopped_batches: Batches that have stopped themselves and have jobs that are not settled, the latest stop
            first; none for a batch.
        at: Time when the overview was read (Unix seconds), by the queue's time.
        namespace: Namespace that the numbers are of; `*` for all. In one namespace, the balance is None.
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
    backlog_holds: tuple[BacklogHold, ...] = ()
    rejected_messages: int = 0
    callbacks: CallbackCounts = CallbackCounts()
    archive: ArchiveCounts = ArchiveCounts()
    refused_jobs: tuple[RefusedJob, ...] = ()
    stopped_batches: tuple[Batch, ...] = ()
    at: float = 0.0
    namespace: str = ALL

    def as_dict(self, batch: str | None) -> schemas.Status:
        """Return the JSON representation; `batch` is the name of the batch (None: the whole queue)."""
        return {
            "namespace": self.namespace,
            "batch": batch,
            "states": self.states,
            "gate": {"open": self.gate.is_open, "holds": [_hold_dict(hold) for hold in self.gate.holds]},
            "in_flight": self.in_flight,
            "in_flight_limit": self.in_flight_limit,
            "backlog": [_backlog_dict(priority, lines) for priority, lines in by_priority(self.backlog)],
            "backlog_holds": [hold.as_dict() for hold in self.backlog_holds],
            "jobs_per_minute": self.jobs_per_minute,
            "seconds_left": self.seconds_left,
            "credits": self.credits,
            "balance": self.account.balance,
            "balance_at": to_iso8601(self.account.updated_at),
            "credits_reserved": self.account.reserved,
            "credits_queued": self.account.queued_credits,
            "credits_today": self.account.spent_today,
            "credits_unexplained": self.account.uncounted.unexplained if self.account.uncounted else 0,
            "failed_by_code": self.failures,
            "rejected_messages": self.rejected_messages,
            "refused_jobs": [job.as_dict() for job in self.refused_jobs],
            "stopped_batches": [
                batch.qualified_name if self.namespace == ALL else batch.name for batch in self.stopped_batches
            ],
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
