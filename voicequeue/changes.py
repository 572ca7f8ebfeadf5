"""What a person (or a webhook, or the policy) may do to a job: each gives the move it leads to. Pure.

`now` is in Unix seconds. Raises NotAllowed where the job's state does not allow it.
"""

from __future__ import annotations

from functools import partial

from voicequeue.errors import NotAllowed
from voicequeue.job import MOVES, WHEN_CANCELLING, Code, Failure, Job, Move, State
from voicequeue.records import failure_text, task_field
from voicequeue.stage import PRICES, Stage

#: As the time when an order was last not ready: nobody knows how long it is under way already.
UNKNOWN = "0"

#: Not over, nor in the middle of being charged.
CANCELLABLE = tuple(state for state in State if state is not State.CANCELLED and State.CANCELLED in MOVES[state])

#: The order is on its way to upstream, or its answer was lost: the job can only be marked as to be cancelled.
UNDER_WAY = tuple(WHEN_CANCELLING)


def can_be_cancelled(job: Job) -> bool:
    """Whether it is not over, nor to be cancelled already."""
    return job.state in (*CANCELLABLE, *UNDER_WAY) and not job.cancelling


def not_over(job: Job) -> Job:
    """The job, if it can be cancelled, or is to be already. Raises NotAllowed."""
    if job.state not in (*CANCELLABLE, *UNDER_WAY):
        raise NotAllowed(f"job {job.id} cannot be cancelled: it is {job.state} already")
    return job


def cancel(job: Job, now: float) -> Move:
    """Nothing more is done for it here; what upstream was paid for goes on there. One that is under way is marked
    instead."""
    cancelled = partial(_move(job), State.CANCELLED, fields={"settled": f"{now:.6f}"})
    if job.state is State.PENDING:
        return cancelled(reason="cancelled; upstream goes on, and what comes is kept", due=now)
    return cancelled(reason="cancelled")


def retry(job: Job, now: float, *, resubmit: bool = False) -> Move:
    """A failed job goes on at the first stage that has no result.

    Where upstream has the order of that stage, it is asked again, free, unless `resubmit` says to
    order anew.
    """
    if job.state is not State.FAILED:
        raise NotAllowed(f"only a failed job can be retried; job {job.id} is {job.state}")
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    if job.has_result:
        return _go_on(job, now, cleared)
    if job.may_still_come and not resubmit:
        fields = {**cleared, "since": f"{now:.6f}", "asked": UNKNOWN}
        return _move(job)(State.PENDING, due=now, reason="retry: ask again", fields=fields)
    reason = "retry: order again" if pays_again(job, resubmit=resubmit) else "retry"
    return _move(job)(State.QUEUED, reason=reason, fields={**cleared, task_field(job.stage): None})


def _go_on(job: Job, now: float, cleared: dict[str, str | None]) -> Move:
    """With the result that came late."""
    if later := _stages_from(job)[1:]:
        return _move(job)(State.QUEUED, to_stage=later[0], reason="retry: the result came late", fields=cleared)
    fields = {**cleared, "settled": f"{now:.6f}"}
    return _move(job)(State.SUCCEEDED, reason="retry: the result came late", fields=fields)


def pays_again(job: Job, *, resubmit: bool = False) -> bool:
    """Whether retrying a failed job orders a stage that was charged, or may have been."""
    failed_with_another = job.attempt == 0  # the voice that it shares was charged to that one
    if failed_with_another or job.has_result or (job.may_still_come and not resubmit):
        return False
    return job.failure is not None and job.failure.code in _PAID


_PAID = frozenset({Code.DEADLINE, Code.UPSTREAM_FAILED, Code.ABANDONED})


def take_up(job: Job, now: float, *, task_id: str, reason: str = "somebody gave the task id") -> Move:
    """The task id of an order whose answer was lost: it was charged, and is asked about."""
    _must_be(job, State.UNSURE, State.CHARGING)
    fields = {task_field(job.stage): task_id, "since": f"{now:.6f}", "asked": UNKNOWN}
    return _move(job)(State.PENDING, due=now, reason=reason, fields=fields, credits=PRICES[job.stage])


def order_again(job: Job, now: float, *, reason: str = "somebody ordered it again") -> Move:
    """Send the request of an unsure stage once more: if it was charged, it is charged twice.

    Not for a job that is to be cancelled: who asked for that wants no further order. Given up, it can be retried.
    """
    _must_be(job, State.UNSURE)
    if job.cancelling:
        raise NotAllowed(f"job {job.id} is to be cancelled, and not ordered again; give it up, then it can be retried")
    return _move(job)(State.ADMITTED, due=now, reason=reason, unsettled=PRICES[job.stage])


def abandon(job: Job, now: float) -> Move:
    """Give up on an unsure job."""
    _must_be(job, State.UNSURE)
    failure = Failure(Code.ABANDONED, job.stage, "given up: nobody knows whether it was charged")
    fields = {"failure": failure_text(failure), "settled": f"{now:.6f}"}
    return _move(job)(State.FAILED, reason=Code.ABANDONED, fields=fields, unsettled=PRICES[job.stage])


def found_late(job: Job, now: float, *, task_id: str) -> Move:
    """The task id of an order that somebody had given up: it was charged, and what comes is kept."""
    fields = {task_field(job.stage): task_id, "since": f"{now:.6f}", "asked": UNKNOWN}
    reason = "a webhook told the task id; what comes is kept"
    return _move(job)(job.state, due=now, reason=reason, fields=fields, credits=PRICES[job.stage])


def _must_be(job: Job, *states: State) -> None:
    if job.state not in states:
        raise NotAllowed(f"only an unsure job can be reviewed; job {job.id} is {job.state}")


def _move(job: Job) -> partial[Move]:
    return partial(Move, job.id, job.version, job.state, job.stage)


def cost(job: Job, *, resubmit: bool = False) -> int:
    """Credits that retrying a failed job may still cost, the stages after this one included."""
    free = job.has_result or (job.may_still_come and not resubmit)
    return sum(PRICES[stage] for stage in _stages_from(job)[int(free) :])


def _stages_from(job: Job) -> tuple[Stage, ...]:
    """The stage where the job stands, and those after it."""
    return job.spec.stages[job.spec.stages.index(job.stage) :]
