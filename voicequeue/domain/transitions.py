"""Transitions that an operator, a webhook or the policy requests. Pure.

`now` is in Unix seconds. Each function raises InvalidStateError where the job's state does not allow the transition.
"""

from __future__ import annotations

from functools import partial

from voicequeue.domain.claims import ChargedOrder
from voicequeue.domain.job import Failure, FailureReport, Job, Transition
from voicequeue.domain.recording_check import Recheck, recheck_text
from voicequeue.domain.serialization import failure_report_text, failure_text, lost_text, task_field
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import CANCELLING_TRANSITIONS, MAY_HAVE_LATE_RESULT, TRANSITIONS, FailureCode, State
from voicequeue.errors import InvalidStateError, check_field
from voicequeue.texts import require_encodable

#: The `not_ready_at` time of an order whose time of submission is unknown.
UNKNOWN_TIME = "0"

#: Fields of a job without a reported failure.
NO_FAILURE_REPORT: dict[str, str | None] = {"failure_report": None, "resubmit": None}

#: States that can be cancelled at once: neither settled nor being charged.
CANCELLABLE = tuple(state for state in State if state is not State.CANCELLED and State.CANCELLED in TRANSITIONS[state])

#: States of an order in progress or without an answer: the job can only be marked as cancelling.
ONLY_MARKABLE = tuple(CANCELLING_TRANSITIONS)


def can_be_cancelled(job: Job) -> bool:
    """Return whether a job is neither settled nor marked as cancelling already."""
    return job.state in (*CANCELLABLE, *ONLY_MARKABLE) and not job.is_cancelling


def require_cancellable(job: Job) -> Job:
    """Return the job if it can be cancelled or is marked as cancelling. Raises InvalidStateError."""
    if job.state not in (*CANCELLABLE, *ONLY_MARKABLE):
        raise InvalidStateError(f"job {job.id} cannot be cancelled: it is {job.state} already")
    return job


def cancel(job: Job, now: float) -> Transition:
    """Cancel a job; upstream completes what it was paid for, and the result is kept.

    A job whose order is in progress is marked as cancelling instead.
    """
    cancelled = partial(_transition(job), State.CANCELLED, fields={"settled": f"{now:.6f}"})
    if job.state is State.PENDING:
        return cancelled(reason="cancelled; a late result is kept", due=now)
    return cancelled(reason="cancelled")


def require_version(job: Job, version: int) -> None:
    """Raise InvalidStateError if the job has changed since this version of it."""
    if job.version != version:
        raise InvalidStateError(f"job {job.id} has changed since version {version}: a retry may cost more now")


def retry(job: Job, now: float, *, resubmit: bool = False, version: int | None = None) -> Transition:
    """Return the transition that resumes a failed job at its first stage without a result.

    If upstream has the order of that stage, it is polled again, free, unless `resubmit` is set. If upstream reported a
    failure and repeats it, the stage is submitted again. For a job that succeeded without all of its songs, the missing
    ones are polled, free. With a `version`, the job must still have it.
    """
    if version is not None:
        require_version(job, version)
    if job.state is State.SUCCEEDED and job.is_incomplete and job.may_have_late_result and not resubmit:
        return _poll_missing_songs(job, now)
    if job.state is not State.FAILED:
        raise InvalidStateError(f"only a failed job can be retried; job {job.id} is {job.state}")
    cleared: dict[str, str | None] = {"failure": None, "settled": None, **NO_FAILURE_REPORT}
    if job.has_result:
        return _resume_with_late_result(job, now, cleared)
    if job.may_have_late_result and not resubmit:
        resubmits = _is_failed_upstream(job)
        fields = {
            **cleared,
            "submitted_at": f"{now:.6f}",
            "not_ready_at": UNKNOWN_TIME,
            **(_resubmit_fields(job) if resubmits else {}),
        }
        reason = "retry: poll, and resubmit if the failure is confirmed" if resubmits else "retry: poll"
        return _transition(job)(State.PENDING, due=now, reason=reason, fields=fields)
    reason = "retry: resubmit" if pays_again(job, resubmit=resubmit) else "retry"
    # The next order has other songs: those that the failed one only named are removed.
    fields = {**cleared, task_field(job.stage): None, **({"clips": None} if job.clips else {})}
    if job.stage is Stage.VOICE and job.spec.audio_url is not None:
        fields["recheck"] = recheck_text(Recheck(now, now, 0))  # an earlier check of the recording does not count
    return _transition(job)(State.QUEUED, reason=reason, fields=fields)


def require_correctable(job: Job) -> Job:
    """Return the job if a retry may give it another recording. Raises InvalidStateError."""
    if job.spec.audio_url is None:
        raise InvalidStateError(f"job {job.id} has no recording to correct: it uses the voice {job.spec.persona_id}")
    if job.state is not State.FAILED:
        raise InvalidStateError(f"only a failed job can be retried; job {job.id} is {job.state}")
    if job.stage is not Stage.VOICE or job.persona_id is not None:
        raise InvalidStateError(f"the voice of job {job.id} exists already: a retry uses it, and needs no recording")
    return require_unordered(job)


def is_correctable(job: Job) -> bool:
    """Return whether a retry may give the job another recording."""
    try:
        require_correctable(job)
    except InvalidStateError:
        return False
    return True


def require_unordered(job: Job) -> Job:
    """Return the job if no order for its voice was charged, or may have been. Raises InvalidStateError."""
    if job.stage in job.task_ids or job.credits:
        raise InvalidStateError(
            f"the voice of job {job.id} was ordered from its recording and paid already; retry it without a new "
            "recording, or enqueue a new job"
        )
    if job.stage in job.lost_stages.values():
        raise InvalidStateError(
            f"an order for the voice of job {job.id} was lost and may have been charged; retry it without a new "
            "recording, or enqueue a new job"
        )
    return job


def _poll_missing_songs(job: Job, now: float) -> Transition:
    fields = {"submitted_at": f"{now:.6f}", "not_ready_at": UNKNOWN_TIME}
    return _transition(job)(job.state, due=now, reason="retry: poll for missing songs", fields=fields)


def _is_failed_upstream(job: Job) -> bool:
    return job.failure is not None and job.failure.code is FailureCode.UPSTREAM_FAILED


def _resubmit_fields(job: Job) -> dict[str, str | None]:
    """Return the fields of a job that is resubmitted as soon as upstream repeats its failure."""
    message = job.failure.message if job.failure else ""
    return {"failure_report": failure_report_text(FailureReport(0.0, message)), "resubmit": "1"}


def _resume_with_late_result(job: Job, now: float, cleared: dict[str, str | None]) -> Transition:
    """Resume a job whose result arrived late."""
    if later := _stages_from(job)[1:]:
        return _transition(job)(
            State.QUEUED, to_stage=later[0], reason="retry: continue with the late result", fields=cleared
        )
    fields = {**cleared, "settled": f"{now:.6f}"}
    due = now if job.is_incomplete else None
    return _transition(job)(State.SUCCEEDED, due=due, reason="retry: continue with the late result", fields=fields)


def pays_again(job: Job, *, resubmit: bool = False) -> bool:
    """Return whether retrying a failed job submits a stage that was charged, or may have been."""
    was_never_submitted = job.attempt == 0  # the voice it shares was charged to another job
    if was_never_submitted or job.has_result or _is_polled_only(job, resubmit=resubmit):
        return False
    is_paid = job.failure is not None and job.failure.code in _PAID
    return is_paid or job.may_have_late_result or job.stage in job.lost_stages.values()


def _is_polled_only(job: Job, *, resubmit: bool) -> bool:
    """Return whether a retry only polls this stage and never submits it."""
    return job.may_have_late_result and not resubmit and not _is_failed_upstream(job)


_PAID = frozenset({FailureCode.DEADLINE, FailureCode.UPSTREAM_FAILED, FailureCode.ABANDONED})


def lost_order(job: Job, task_id: str, attempt: int | None = None) -> ChargedOrder:
    """Return the order that an operator supplies the task id of: the one with the number `attempt`; without a number,
    the unsure one, or the last one that was lost.

    Raises InvalidJobError, InvalidStateError.
    """
    check_field("task_id", require_encodable, task_id)
    if task_id in job.charged_task_ids.values():
        raise InvalidStateError(f"job {job.id} has this task already, and its charge is counted")
    if attempt is None and job.state not in (State.UNSURE, State.CHARGING):
        attempt = max(job.lost_stages, default=None)
    if attempt is not None and (stage := job.lost_stages.get(attempt)) is not None:
        return ChargedOrder(job.id, stage, attempt, task_id)
    _must_be(job, State.UNSURE, State.CHARGING)
    _must_be_order(job, attempt)
    return ChargedOrder(job.id, job.stage, job.attempt, task_id)


def continue_with_order(job: Job, order: ChargedOrder, now: float, *, reason: str) -> Transition | None:
    """Return the transition of a job that continues with an order that upstream has confirmed as charged.

    None where the job does not need that order, because it has another one or the result.
    """
    is_replaced = order.stage in job.task_ids or (job.state is State.CHARGING and job.attempt != order.attempt)
    if job.stage is not order.stage or job.has_result or is_replaced:
        return None
    is_settled = job.state in MAY_HAVE_LATE_RESULT
    # A job that was about to be submitted is submitted after all if this order turns out to have failed.
    resubmits = job.state in (State.WAITING, State.QUEUED, State.ADMITTED)
    fields: dict[str, str | None] = {
        task_field(order.stage): order.task_id,
        "submitted_at": f"{now:.6f}",
        "not_ready_at": UNKNOWN_TIME,
    }
    fields |= {"upstream_response": None, **NO_FAILURE_REPORT, **({"resubmit": "1"} if resubmits else {})}
    gives_up_another = job.state is State.UNSURE and job.attempt != order.attempt
    if gives_up_another:
        fields["lost_orders"] = _lost_field(job)
    return _transition(job)(
        job.state if is_settled else State.PENDING,
        due=now,
        reason=f"{reason}; a late result is kept" if is_settled else reason,
        fields=fields,
        credits=PRICES[order.stage],
        attempt=order.attempt,
        released_credits=PRICES[order.stage] if gives_up_another else 0,
    )


def resubmit(
    job: Job, now: float, *, attempt: int | None = None, reason: str = "resubmitted by an operator"
) -> Transition:
    """Submit the request of an unsure stage again: if the first one was charged, it is charged twice.

    A job that is marked as cancelling must not be submitted again. Once it is given up, it can be retried.
    """
    _must_be(job, State.UNSURE)
    _must_be_order(job, attempt)
    if job.is_cancelling:
        raise InvalidStateError(
            f"job {job.id} is being cancelled and cannot be resubmitted; give it up first, then retry it"
        )
    return _transition(job)(
        State.ADMITTED,
        due=now,
        reason=reason,
        fields={"lost_orders": _lost_field(job)},
        released_credits=PRICES[job.stage],
    )


def abandon(job: Job, now: float, *, attempt: int | None = None) -> Transition:
    """Give up an unsure job."""
    _must_be(job, State.UNSURE)
    _must_be_order(job, attempt)
    failure = Failure(FailureCode.ABANDONED, job.stage, "given up: whether it was charged is unknown")
    fields = {"failure": failure_text(failure), "settled": f"{now:.6f}", "lost_orders": _lost_field(job)}
    return _transition(job)(
        State.FAILED, reason=FailureCode.ABANDONED, fields=fields, released_credits=PRICES[job.stage]
    )


def _lost_field(job: Job) -> str:
    """Return the field of the lost orders, with the latest one added."""
    return lost_text({**job.lost_stages, job.attempt: job.stage})


def _must_be(job: Job, *states: State) -> None:
    if job.state not in states:
        raise InvalidStateError(f"only an unsure job can be reviewed; job {job.id} is {job.state}")


def _must_be_order(job: Job, attempt: int | None) -> None:
    if attempt not in (None, job.attempt):
        raise InvalidStateError(f"order {attempt} of job {job.id} is not unsure: its present order is {job.attempt}")


def _transition(job: Job) -> partial[Transition]:
    return partial(Transition, job.id, job.version, job.state, job.stage)


def retry_cost(job: Job, *, resubmit: bool = False) -> int:
    """Return the credits that retrying a failed job may still cost, later stages included."""
    free = job.has_result or _is_polled_only(job, resubmit=resubmit)
    return sum(PRICES[stage] for stage in _stages_from(job)[int(free) :])


def _stages_from(job: Job) -> tuple[Stage, ...]:
    """Return the current stage of the job and those after it."""
    return job.spec.stages[job.spec.stages.index(job.stage) :]
