"""What a person (or a webhook, or the policy) may do to a job: each gives the move it leads to. Pure.

`now` is in Unix seconds. Raises NotAllowed where the job's state does not allow it.
"""

from __future__ import annotations

from functools import partial

from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import MAY_BE_LATE, MOVES, WHEN_CANCELLING, Code, Doubt, Failure, Job, Move, State
from voicequeue.domain.serialization import doubt_text, failure_text, lost_text, task_field
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import NotAllowed, checked
from voicequeue.texts import whole

#: As the time when an order was last not ready: nobody knows how long it is under way already.
UNKNOWN = "0"

#: The fields of a job of whose order upstream has reported no failure.
UNDOUBTED: dict[str, str | None] = {"doubt": None, "reorder": None}

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
    order anew. Where it said that the order failed, and says so again, the stage is ordered anew. Of a job that
    succeeded without all of its songs the others are asked for, free.
    """
    if job.state is State.SUCCEEDED and job.is_incomplete and job.may_still_come and not resubmit:
        return _ask_for_the_rest(job, now)
    if job.state is not State.FAILED:
        raise NotAllowed(f"only a failed job can be retried; job {job.id} is {job.state}")
    cleared: dict[str, str | None] = {"failure": None, "settled": None, **UNDOUBTED}
    if job.has_result:
        return _go_on(job, now, cleared)
    if job.may_still_come and not resubmit:
        reorders = _is_failed_upstream(job)
        fields = {**cleared, "since": f"{now:.6f}", "asked": UNKNOWN, **(_reported(job) if reorders else {})}
        reason = "retry: ask again, and order again if upstream has failed it" if reorders else "retry: ask again"
        return _move(job)(State.PENDING, due=now, reason=reason, fields=fields)
    reason = "retry: order again" if pays_again(job, resubmit=resubmit) else "retry"
    # Songs that an order named and never gave are not those of the next one.
    fields = {**cleared, task_field(job.stage): None, **({"clips": None} if job.clips else {})}
    return _move(job)(State.QUEUED, reason=reason, fields=fields)


def _ask_for_the_rest(job: Job, now: float) -> Move:
    fields = {"since": f"{now:.6f}", "asked": UNKNOWN}
    return _move(job)(job.state, due=now, reason="retry: ask for the songs that are missing", fields=fields)


def _is_failed_upstream(job: Job) -> bool:
    return job.failure is not None and job.failure.code is Code.UPSTREAM_FAILED


def _reported(job: Job) -> dict[str, str | None]:
    """Return the fields of a job that is ordered again as soon as upstream repeats that it has failed."""
    message = job.failure.message if job.failure else ""
    return {"doubt": doubt_text(Doubt(0.0, message)), "reorder": "1"}


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
    if failed_with_another or job.has_result or _is_asked_alone(job, resubmit=resubmit):
        return False
    is_paid = job.failure is not None and job.failure.code in _PAID
    return is_paid or job.may_still_come or job.stage in job.lost.values()


def _is_asked_alone(job: Job, *, resubmit: bool) -> bool:
    """Whether a retry asks upstream about this stage, and does not order it whatever the answer is."""
    return job.may_still_come and not resubmit and not _is_failed_upstream(job)


_PAID = frozenset({Code.DEADLINE, Code.UPSTREAM_FAILED, Code.ABANDONED})


def lost_order(job: Job, task_id: str) -> ChargedOrder:
    """Return the order that a person gives the task id of: the one that is unsure, or the last one that was lost.

    Raises InvalidJob, NotAllowed.
    """
    checked("task_id", whole, task_id)
    if task_id in job.orders.values():
        raise NotAllowed(f"job {job.id} has this task already, and its charge is counted")
    if job.state not in (State.UNSURE, State.CHARGING) and job.lost:
        attempt = max(job.lost)
        return ChargedOrder(job.id, job.lost[attempt], attempt, task_id)
    _must_be(job, State.UNSURE, State.CHARGING)
    return ChargedOrder(job.id, job.stage, job.attempt, task_id)


def named(job: Job, order: ChargedOrder, now: float, *, reason: str) -> Move | None:
    """Return the move of a job that continues with an order which upstream has named: charged, and to be asked about.

    None where the job does without that order, because it has another one, or the result.
    """
    is_replaced = order.stage in job.task_ids or (job.state is State.CHARGING and job.attempt != order.attempt)
    if job.stage is not order.stage or job.has_result or is_replaced:
        return None
    is_over = job.state in MAY_BE_LATE
    # What was about to be ordered is, if upstream turns out to have failed this order.
    reorders = job.state in (State.WAITING, State.QUEUED, State.ADMITTED)
    fields: dict[str, str | None] = {task_field(order.stage): order.task_id, "since": f"{now:.6f}", "asked": UNKNOWN}
    fields |= {"answer": None, **UNDOUBTED, **({"reorder": "1"} if reorders else {})}
    is_another = job.state is State.UNSURE and job.attempt != order.attempt
    if is_another:
        fields["lost"] = _lost_too(job)
    return _move(job)(
        job.state if is_over else State.PENDING,
        due=now,
        reason=f"{reason}; what comes is kept" if is_over else reason,
        fields=fields,
        credits=PRICES[order.stage],
        attempt=order.attempt,
        unsettled=PRICES[order.stage] if is_another else 0,
    )


def order_again(job: Job, now: float, *, reason: str = "somebody ordered it again") -> Move:
    """Send the request of an unsure stage once more: if it was charged, it is charged twice.

    Not for a job that is to be cancelled: who asked for that wants no further order. Given up, it can be retried.
    """
    _must_be(job, State.UNSURE)
    if job.cancelling:
        raise NotAllowed(f"job {job.id} is to be cancelled, and not ordered again; give it up, then it can be retried")
    return _move(job)(
        State.ADMITTED, due=now, reason=reason, fields={"lost": _lost_too(job)}, unsettled=PRICES[job.stage]
    )


def abandon(job: Job, now: float) -> Move:
    """Give up on an unsure job."""
    _must_be(job, State.UNSURE)
    failure = Failure(Code.ABANDONED, job.stage, "given up: nobody knows whether it was charged")
    fields = {"failure": failure_text(failure), "settled": f"{now:.6f}", "lost": _lost_too(job)}
    return _move(job)(State.FAILED, reason=Code.ABANDONED, fields=fields, unsettled=PRICES[job.stage])


def _lost_too(job: Job) -> str:
    """Return the field of its lost orders, the last one among them."""
    return lost_text({**job.lost, job.attempt: job.stage})


def _must_be(job: Job, *states: State) -> None:
    if job.state not in states:
        raise NotAllowed(f"only an unsure job can be reviewed; job {job.id} is {job.state}")


def _move(job: Job) -> partial[Move]:
    return partial(Move, job.id, job.version, job.state, job.stage)


def cost(job: Job, *, resubmit: bool = False) -> int:
    """Credits that retrying a failed job may still cost, the stages after this one included."""
    free = job.has_result or _is_asked_alone(job, resubmit=resubmit)
    return sum(PRICES[stage] for stage in _stages_from(job)[int(free) :])


def _stages_from(job: Job) -> tuple[Stage, ...]:
    """The stage where the job stands, and those after it."""
    return job.spec.stages[job.spec.stages.index(job.stage) :]
