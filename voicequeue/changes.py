"""What a person (or a webhook, or the policy) may do to a job: each gives the move it leads to. Pure.

`now` is in Unix seconds. Raises NotAllowed where the job's state does not allow it.
"""

from __future__ import annotations

from functools import partial

from voicequeue.errors import NotAllowed
from voicequeue.job import MOVES, Code, Failure, Job, Move, State
from voicequeue.records import failure_text, task_field
from voicequeue.stage import PRICES, Stage

#: As the time when an order was last not ready: nobody knows how long it is under way already.
UNKNOWN = "0"

#: Why a job in this state cannot be cancelled, where it is not simply over.
_WHY_NOT_CANCEL = {
    State.CHARGING: "its request is on the way to upstream at this moment; try again in a second",
    State.UNSURE: "it may have been charged, which has to be settled first (voicequeue review)",
}


#: Not over, nor in the middle of being charged.
CANCELLABLE = tuple(state for state in State if state is not State.CANCELLED and State.CANCELLED in MOVES[state])


def can_be_cancelled(job: Job) -> bool:
    """Whether it is not over, nor in the middle of being charged."""
    return job.state in CANCELLABLE


def cancel(job: Job, now: float) -> Move:
    """Nothing more is done for it here; what upstream was paid for goes on there."""
    if not can_be_cancelled(job):
        why = _WHY_NOT_CANCEL.get(job.state, f"it is {job.state} already")
        raise NotAllowed(f"job {job.id} cannot be cancelled: {why}")
    cancelled = partial(_move(job), State.CANCELLED, fields={"settled": f"{now:.6f}"})
    if job.state is State.PENDING:
        return cancelled(reason="cancelled; upstream goes on, and what comes is kept", due=now)
    return cancelled(reason="cancelled")


def retry(job: Job, now: float, *, resubmit: bool = False) -> Move:
    """A failed job goes on at the first stage that has no result.

    Where upstream has the order of that stage, it is asked again, free, unless `resubmit` says to
    order anew. Of a job that succeeded without all of its songs the others are asked for, free.
    """
    if job.state is State.SUCCEEDED and job.is_incomplete and job.may_still_come and not resubmit:
        return _ask_for_the_rest(job, now)
    if job.state is not State.FAILED:
        raise NotAllowed(f"only a failed job can be retried; job {job.id} is {job.state}")
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    if job.has_result:
        return _go_on(job, now, cleared)
    if job.may_still_come and not resubmit:
        fields = {**cleared, "since": f"{now:.6f}", "asked": UNKNOWN}
        return _move(job)(State.PENDING, due=now, reason="retry: ask again", fields=fields)
    reason = "retry: order again" if pays_again(job, resubmit=resubmit) else "retry"
    # Songs that an order named and never gave are not those of the next one.
    fields = {**cleared, task_field(job.stage): None, **({"clips": None} if job.clips else {})}
    return _move(job)(State.QUEUED, reason=reason, fields=fields)


def _ask_for_the_rest(job: Job, now: float) -> Move:
    fields = {"since": f"{now:.6f}", "asked": UNKNOWN}
    return _move(job)(job.state, due=now, reason="retry: ask for the songs that are missing", fields=fields)


def _go_on(job: Job, now: float, cleared: dict[str, str | None]) -> Move:
    """With the result that came late."""
    if later := _stages_from(job)[1:]:
        return _move(job)(State.QUEUED, to_stage=later[0], reason="retry: the result came late", fields=cleared)
    fields = {**cleared, "settled": f"{now:.6f}"}
    due = now if job.is_incomplete else None
    return _move(job)(State.SUCCEEDED, due=due, reason="retry: the result came late", fields=fields)


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
    fields = {task_field(job.stage): task_id, "since": f"{now:.6f}", "asked": UNKNOWN, "answer": None}
    return _move(job)(State.PENDING, due=now, reason=reason, fields=fields, credits=PRICES[job.stage])


def order_again(job: Job, now: float, *, reason: str = "somebody ordered it again") -> Move:
    """Send the request of an unsure stage once more: if it was charged, it is charged twice."""
    _must_be(job, State.UNSURE)
    return _move(job)(State.ADMITTED, due=now, reason=reason)


def abandon(job: Job, now: float) -> Move:
    """Give up on an unsure job."""
    _must_be(job, State.UNSURE)
    failure = Failure(Code.ABANDONED, job.stage, "given up: nobody knows whether it was charged")
    return _move(job)(
        State.FAILED, reason=Code.ABANDONED, fields={"failure": failure_text(failure), "settled": f"{now:.6f}"}
    )


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
