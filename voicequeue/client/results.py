"""Results of enqueueing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any

from voicequeue.domain.claims import BudgetRefusal, EnqueueOutcome
from voicequeue.domain.job import Job
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import (
    CONSENT_REQUIRED,
    BudgetExceededError,
    ErasedError,
    InvalidJobError,
    KeyConflictError,
    Problem,
    VoiceQueueError,
)


@dataclass(frozen=True, slots=True)
class Rejection:
    """An item that was not enqueued.

    Attributes:
        index: Position of the item in the input, from 0.
        error: The reason.
    """

    index: int
    error: VoiceQueueError


@dataclass(slots=True)
class EnqueueSummary:
    """The summary of `VoiceQueue.enqueue_many`.

    Attributes:
        new: Number of jobs that were enqueued.
        existing: Number of jobs that existed before, with the same key and content.
        rejected: Number of items that were not enqueued.
        credits: Price of the new jobs.
        rejections: The rejected items; empty if `on_result` received the results.
    """

    new: int = 0
    existing: int = 0
    rejected: int = 0
    credits: int = 0
    rejections: list[Rejection] = field(default_factory=list)

    def take(self, result: EnqueueItemResult, on_result: Callable[[EnqueueItemResult], object] | None) -> None:
        """Count the result of one item, and pass it on; without `on_result` keep that of a rejected item."""
        self.add(result)
        if on_result is not None:
            on_result(result)
        elif result.error is not None:
            self.rejections.append(Rejection(result.index, result.error))

    def add(self, entry: EnqueueItemResult) -> None:
        """Count the result of one item. Of an item that was rejected in part, the accepted jobs are counted too."""
        self.new += entry.new_count
        self.credits += entry.credits
        if entry.error is not None:
            self.rejected += 1
        else:
            self.existing += len(entry.job_ids) - entry.new_count


@dataclass(frozen=True, slots=True)
class EnqueueItemResult:
    """The result of one item of `VoiceQueue.enqueue_many`.

    Attributes:
        index: Position of the item in the input, from 0.
        job_ids: Ids of its jobs, one for each song; the job that creates the voice is the first.
        new_count: Number of these jobs that were enqueued now.
        credits: Price of the new jobs.
        error: Why the item was rejected, as a whole or in part; None if it was accepted.
    """

    index: int
    job_ids: tuple[str, ...] = ()
    new_count: int = 0
    credits: int = 0
    error: InvalidJobError | KeyConflictError | ErasedError | BudgetExceededError | None = None

    @property
    def job_id(self) -> str:
        """The first of its jobs."""
        return self.job_ids[0]


def item_result(
    index: int, jobs: Sequence[tuple[str, VoiceJob]], outcomes: Sequence[EnqueueOutcome | BudgetRefusal]
) -> EnqueueItemResult:
    """Return the result of an item, given its jobs with their ids and the outcome that the store returned for each."""
    if len(jobs) == 1 and outcomes[0] is EnqueueOutcome.NEW:  # the common case
        [(job_id, spec)] = jobs
        return EnqueueItemResult(index, (job_id,), 1, spec.credits)
    results = list(zip(jobs, outcomes, strict=True))
    return EnqueueItemResult(
        index,
        tuple(job_id for job_id, _ in jobs),
        sum(outcome.is_new for outcome in outcomes),
        sum(_price(spec, outcome) for (_, spec), outcome in results),
        next((error for (job_id, spec), outcome in results if (error := _error(job_id, spec, outcome))), None),
    )


def _price(spec: VoiceJob, outcome: EnqueueOutcome | BudgetRefusal) -> int:
    if not outcome.is_new:
        return 0
    return spec.credits - (PRICES[Stage.VOICE] if outcome is EnqueueOutcome.SHARES_VOICE else 0)


def _error(
    job_id: str, spec: VoiceJob, outcome: EnqueueOutcome | BudgetRefusal
) -> InvalidJobError | KeyConflictError | ErasedError | BudgetExceededError | None:
    if isinstance(outcome, BudgetRefusal):
        return BudgetExceededError(
            outcome.owner,
            outcome.period,
            outcome.price,
            limit=outcome.limit,
            remaining=outcome.remaining,
            resets_at=outcome.resets_at,
        )
    if outcome is EnqueueOutcome.CONFLICT:
        return KeyConflictError(spec.key or "", job_id)
    if outcome is EnqueueOutcome.OTHER_VOICE:
        return InvalidJobError([Problem("voice", "is already used for another recording in this batch")])
    if outcome is EnqueueOutcome.ERASED:
        return ErasedError()
    if outcome is EnqueueOutcome.NO_CONSENT:
        return InvalidJobError([Problem("metadata.consent_ref", CONSENT_REQUIRED)])
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EnqueuedJob(Job):
    """The job that `VoiceQueue.enqueue` returns, with what the call has done; it equals the job that `get` returns.

    Attributes:
        is_new: Whether it was enqueued now; false if a job with its key and content existed.
        price: Credits that the item costs, with all its songs.
        further_job_ids: Ids of the item's other jobs, which share the voice.
    """

    is_new: bool
    price: int
    further_job_ids: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and _record(self) == _record(other)

    __hash__ = Job.__hash__


_NAMES = tuple(field.name for field in fields(Job))
_values = attrgetter(*_NAMES)


def _record(job: Job) -> dict[str, Any]:
    return dict(zip(_NAMES, _values(job), strict=True))


def enqueued_job(job: Job, result: EnqueueItemResult, spec: VoiceJob) -> EnqueuedJob:
    """Return the job of an item with the result of enqueueing it."""
    price = result.credits if result.new_count else spec.credits
    return EnqueuedJob(**_record(job), is_new=result.new_count > 0, price=price, further_job_ids=result.job_ids[1:])


def new_job(job: Job) -> EnqueuedJob:
    """Return the job of an item that is only this job, if it is new."""
    return EnqueuedJob(**_record(job), is_new=True, price=job.spec.credits)
