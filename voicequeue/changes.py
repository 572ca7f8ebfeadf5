"""What a person (or a webhook, or the policy) may do to a job: each gives the move it leads to. Pure.

`now` is in Unix seconds. Raises NotAllowed where the job's state does not allow it.
"""

from __future__ import annotations

from functools import partial

from voicequeue.errors import NotAllowed
from voicequeue.job import MOVES, Code, Failure, Job, Move, State
from voicequeue.records import failure_text, task_field
from voicequeue.stage import PRICES

#: Why a job in this state cannot be cancelled, where it is not simply over.
_WHY_NOT_CANCEL = {
    State.CHARGING: "its request is on the way to upstream at this moment; try again in a second",
    State.UNSURE: "it may have been charged, which has to be settled first (voicequeue review)",
}


def cancel(job: Job, now: float) -> Move:
    """Nothing more is done for it here; what upstream was paid for goes on there."""
    if State.CANCELLED not in MOVES[job.state]:
        why = _WHY_NOT_CANCEL.get(job.state, f"it is {job.state} already")
        raise NotAllowed(f"job {job.id} cannot be cancelled: {why}")
    reason = "cancelled; upstream goes on, the credits are spent" if job.state is State.PENDING else "cancelled"
    return _move(job)(State.CANCELLED, reason=reason, fields={"settled": f"{now:.6f}"})


def retry(job: Job, now: float) -> Move:
    """A failed job goes on at the stage that has no result: asked again where it was paid, else queued."""
    if job.state is not State.FAILED:
        raise NotAllowed(f"only a failed job can be retried; job {job.id} is {job.state}")
    cleared: dict[str, str | None] = {"failure": None, "settled": None}
    if can_be_asked_again(job):
        fields = {**cleared, "since": f"{now:.6f}"}
        return _move(job)(State.PENDING, due=now, reason="retry: ask again", fields=fields)
    return _move(job)(State.QUEUED, reason="retry", fields=cleared)


def can_be_asked_again(job: Job) -> bool:
    """Whether retrying this failed job is free: its order may still come, or has come meanwhile."""
    return job.failure is not None and job.failure.code is Code.DEADLINE and job.stage in job.task_ids


def take_up(job: Job, now: float, *, task_id: str, reason: str = "somebody gave the task id") -> Move:
    """The task id of an order whose answer was lost: it was charged, and is asked about."""
    _must_be(job, State.UNSURE, State.CHARGING)
    fields = {task_field(job.stage): task_id, "since": f"{now:.6f}"}
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


def _must_be(job: Job, *states: State) -> None:
    if job.state not in states:
        raise NotAllowed(f"only an unsure job can be reviewed; job {job.id} is {job.state}")


def _move(job: Job) -> partial[Move]:
    return partial(Move, job.id, job.version, job.state, job.stage)


def cost(job: Job) -> int:
    """Credits that going on from here may cost: of the stage where it stands, and those after it."""
    rest = job.spec.stages[job.spec.stages.index(job.stage) :]
    return sum(PRICES[stage] for stage in rest)
