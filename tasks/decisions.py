"""Transitions that follow from upstream's answers. Pure: a claim and an answer in, a transition out.

Polls, webhooks and maintenance share these functions, so that the result does not depend on what triggered the request.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tasks.musicapi import (
    AmbiguousFailure,
    InvalidRequest,
    Moderated,
    MusicReady,
    NotReady,
    TaskFailed,
    TaskResult,
    UpstreamError,
    VoiceReady,
)
from voicequeue.domain import recording_check, serialization, timeouts, transitions
from voicequeue.domain.claims import PollClaim, StalledJob, SubmitClaim
from voicequeue.domain.clip import Clip, merge_clips
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Failure, FailureReport, Job, Transition
from voicequeue.domain.recording_check import CheckOutcome, UncheckedJob
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import FailureCode, State

#: The time (seconds) for which a job rests whose check takes long: as long as it has waited for it, between these. The
#: longest is shorter than the time for which outcomes are kept (voicequeue/storage/recordings.py).
CHECK_REST_MIN_S, CHECK_REST_MAX_S = 3.0, 60.0

#: The time (seconds) for which a job rests whose link could not be signed.
SOURCE_REST_S = 30.0

#: Reason for queueing jobs that a stopping worker did not start.
STOPPING = "its worker is stopping; nothing was sent"

#: Its recording may have been corrected meanwhile.
CHANGED_SINCE_CHECK = "it has changed since its recording was checked; nothing was sent"

#: The process was suspended after its claim. Another worker may have resubmitted the job, so this one must not.
CLAIM_EXPIRED = "the claim expired before anything was sent"

#: A failover would forget the claim, and the order would be sent again.
UNREPLICATED = "too few replicas of Redis have recorded its claim; nothing was sent"

#: The order would not be what was asked for.
NEWER_RELEASE = "it has content of a newer release of voicequeue; nothing was sent"

#: The time (seconds) for which such a job rests, so that workers of that release find it.
NEWER_RELEASE_REST_S = 10.0


def accepted(claim: SubmitClaim, task_id: str, now: float, poll_in: float, model: str = "") -> Transition:
    """Return the transition of an accepted order: its credits are spent and it is polled in `poll_in` seconds."""
    fields: dict[str, str | None] = {serialization.task_field(claim.stage): task_id, "submitted_at": f"{now:.6f}"}
    # Clear what an earlier stage or order left.
    fields |= {"not_ready_at": None, "upstream_response": None, **transitions.NO_FAILURE_REPORT}
    if model:
        fields["model"] = model
    return _submit_transition(claim)(State.PENDING, due=now + poll_in, fields=fields, credits=PRICES[claim.stage])


def not_accepted(claim: SubmitClaim, error: UpstreamError, now: float, refusal: Refusal | None = None) -> Transition:
    """Return the transition of an order that was not accepted; one that may be charged becomes unsure.

    `refusal` is set where the error may apply to all orders. The store decides that from the answers to other orders.
    """
    if error.may_be_charged:
        answer = error.answer if isinstance(error, AmbiguousFailure) else None
        return _submit_transition(claim)(State.UNSURE, reason=error.message, fields={"upstream_response": answer})
    if refusal is not None:
        return _submit_transition(claim)(State.QUEUED, reason=error.message, refused=refusal)
    if isinstance(error, InvalidRequest):
        code = FailureCode.MODERATED if isinstance(error, Moderated) else FailureCode.REFUSED
        failure = Failure(code, claim.stage, error.message)
        return _submit_transition(claim)(State.FAILED, reason=code, fields=_failure_fields(failure, now))
    return _submit_transition(claim)(State.QUEUED, reason=error.message)


def answered_late(job: Job, transition: Transition) -> Transition | None:
    """Return the transition of an answer that arrived after the job became unsure; None if it is ambiguous too."""
    if transition.to_state is State.UNSURE:
        return None
    # Not charged: the job keeps its slot and is submitted again.
    to, due = (
        (State.ADMITTED, job.updated_at)
        if transition.to_state is State.QUEUED
        else (transition.to_state, transition.due)
    )
    reason = "late answer"
    return replace(
        transition, version=job.version, state=State.UNSURE, to_state=to, due=due, reason=reason, refused=None
    )


def not_sent(claim: SubmitClaim, reason: str) -> Transition:
    """Queue a claimed job whose POST was not sent."""
    return _submit_transition(claim)(State.QUEUED, reason=reason)


def of_newer_release(claim: SubmitClaim, now: float) -> Transition:
    """Queue a claimed job whose content this release does not know, for a worker of a newer release."""
    return replace(not_sent(claim, NEWER_RELEASE), rests_until=now + NEWER_RELEASE_REST_S)


def not_started(job: Job) -> Transition:
    """Queue an admitted job of a stopping worker, so that another worker can claim it at once."""
    return Transition(job.id, job.version, State.ADMITTED, job.stage, State.QUEUED, reason=STOPPING)


def check_failed(job: UncheckedJob, outcome: CheckOutcome, now: float, policy: timeouts.RetryPolicy) -> Transition:
    """Fail an admitted job whose recording cannot be used; after a temporary failure, queue it for another check.

    Nothing was sent. The job holds no slot until the next check.
    """
    earlier = job.recheck
    since = earlier.since if earlier and earlier.count else now
    count = (earlier.count if earlier else 0) + 1
    after_s = outcome.retry_after_s
    due = policy.next_attempt_at(since, count, now, min_delay_s=after_s) if outcome.is_temporary else None
    if due is not None:
        recheck = recording_check.Recheck(since, now, count)
        reason = f"check {count} of its recording failed: {outcome.message}; checked again in {due - now:.0f} s"
        # Behind the jobs that are not checked yet, so that a host that is down does not keep them from their turn.
        return _rests(job, due, reason, recheck, requeued_at=f"{due:.6f}")
    code = outcome.code or FailureCode.RECORDING_UNREACHABLE
    sent = "its first order, which was lost, may have been charged" if job.may_be_charged else "nothing was ordered"
    failure = Failure(code, Stage.VOICE, f"its recording cannot be used: {outcome.message}; {sent}")
    fields = _failure_fields(failure, now)
    return _checked_transition(job)(State.FAILED, reason=code, fields=fields)


def source_failed(claim: SubmitClaim, message: str, now: float, *, is_temporary: bool) -> Transition:
    """Fail a claimed job whose recording has no link; after a temporary failure, queue it for a while."""
    if is_temporary:
        recheck = recording_check.recheck_text(recording_check.Recheck(now, now, 0))
        rests_until = now + SOURCE_REST_S
        return _submit_transition(claim)(
            State.QUEUED, reason=message, fields={"recheck": recheck}, rests_until=rests_until
        )
    failure = Failure(FailureCode.RECORDING_UNREACHABLE, claim.stage, f"{message}; nothing was sent")
    return _submit_transition(claim)(State.FAILED, reason=failure.code, fields=_failure_fields(failure, now))


def check_in_progress(job: UncheckedJob, now: float, *, keeps_place: bool = True) -> Transition:
    """Queue an admitted job whose check takes long; no failure is counted.

    It loses its place if its host is known to be slow, so that the jobs of other hosts have their turn.
    """
    recheck = job.waiting(now)
    until = now + _rest_s(recheck, now)
    fields = {} if keeps_place else {"requeued_at": f"{until:.6f}"}
    return _rests(job, until, "its recording is being checked", recheck, **fields)


def check_postponed(job: UncheckedJob, now: float, pause_s: float, policy: timeouts.RetryPolicy) -> Transition:
    """Queue an admitted job whose host is left alone for `pause_s` seconds: nothing was requested, nothing failed.

    It rests no longer than until the end of its time for checks: then there is a last one.
    """
    recheck = job.waiting(now)
    rest_s = min(max(pause_s, _rest_s(recheck, now)), recheck.since + policy.give_up_after_s - now)
    until = now + max(CHECK_REST_MIN_S, rest_s)
    reason = "its recording was not checked: the last checks at its host failed, so it is left alone for a while"
    return _rests(job, until, reason, recheck, requeued_at=f"{until:.6f}")


def _rest_s(recheck: recording_check.Recheck, now: float) -> float:
    return min(CHECK_REST_MAX_S, max(CHECK_REST_MIN_S, now - max(recheck.since, recheck.checked_at)))


def _rests(
    job: UncheckedJob, until: float, reason: str, recheck: recording_check.Recheck, **fields: str | None
) -> Transition:
    fields["recheck"] = recording_check.recheck_text(recheck)
    return _checked_transition(job)(State.QUEUED, reason=reason, fields=fields, rests_until=until)


def _checked_transition(job: UncheckedJob) -> partial[Transition]:
    return partial(Transition, job.job_id, job.version, State.ADMITTED, Stage.VOICE)


def worker_died(job_id: str, version: int, stage: Stage) -> Transition:
    """Make a job unsure whose worker died while charging: the POST may have been sent."""
    reason = "the worker died while charging"
    return Transition(
        job_id, version, State.CHARGING, stage, State.UNSURE, reason=reason, fields={"upstream_response": None}
    )


def claim_not_received(job: StalledJob, holder: str, now: float) -> Transition:
    """Admit a job again for which the reply to the claim of `holder` was lost, and which expired: nothing was sent."""
    reason = "the claim reply was lost; nothing was sent"
    unsure = partial(Transition, job.job_id, job.version, State.UNSURE, job.stage)
    return unsure(State.ADMITTED, due=now, reason=reason, holder=holder)


def expired(job: StalledJob, now: float) -> Transition:
    """Fail a job that was not submitted within its time limit, or not resubmitted after its order was lost."""
    message = "not submitted within its time limit"
    if job.may_be_charged:
        message = "not resubmitted within its time limit; its first order, which was lost, may have been charged"
    failure = Failure(FailureCode.EXPIRED, job.stage, message)
    fields = _failure_fields(failure, now)
    return Transition(job.job_id, job.version, job.state, job.stage, State.FAILED, reason=failure.code, fields=fields)


def transition_from_result(
    claim: PollClaim, result: TaskResult, now: float, recheck_s: float = 0.0
) -> Transition | None:
    """Return the transition that a poll leads to; None to poll again.

    A failure is final when upstream repeats it at least `recheck_s` seconds after the first report.
    """
    # The difference may be negative: Redis's clock can be set back in between.
    is_final = claim.failure_report is not None and abs(now - claim.failure_report.at) >= recheck_s
    if claim.state is not State.PENDING:
        return _polled_late(claim, result, now, is_final=is_final)
    match result:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return _voice_ready(claim, result, now)
        case MusicReady() if claim.stage is Stage.MUSIC:
            return _songs_ready(claim, merge_clips(claim.clips, result.clips), now)
        case NotReady() if claim.stage is Stage.MUSIC and _is_complete(clips := merge_clips(claim.clips, result.clips)):
            return _songs_ready(claim, clips, now)
        case TaskFailed() if is_final:
            return _failed_upstream(claim, result, now, recheck_s)
    return None


def _is_complete(clips: tuple[Clip, ...]) -> bool:
    """Return whether every song has its link, from this answer or an earlier one, or has ended without one."""
    return any(clip.is_finished for clip in clips) and not any(clip.is_missing for clip in clips)


def finished_songs(claim: PollClaim, result: TaskResult) -> tuple[Clip, ...]:
    """Return the known songs if one has finished since the last poll: a later answer may lack it, so they are kept."""
    if claim.stage is not Stage.MUSIC or not isinstance(result, NotReady):
        return ()
    clips = merge_clips(claim.clips, result.clips)
    earlier_ids = {clip.clip_id for clip in claim.clips if clip.is_finished}
    return clips if {clip.clip_id for clip in clips if clip.is_finished} - earlier_ids else ()


def failure_report(claim: PollClaim, result: TaskResult, now: float) -> FailureReport | None:
    """Return the failure that upstream reports and may still revoke."""
    if not isinstance(result, TaskFailed):
        return None
    return FailureReport(claim.failure_report.at if claim.failure_report else now, result.message)


def _failed_upstream(claim: PollClaim, failed: TaskFailed, now: float, recheck_s: float) -> Transition:
    """Fail the job and poll its order at growing intervals, or queue it where a retry resubmits it.

    A job with a finished song succeeds instead.
    """
    if any(clip.is_finished for clip in claim.clips):
        return _songs_ready(claim, claim.clips, now)
    if claim.resubmits:
        # The next order has other songs: those of the failed one would keep it incomplete.
        fields: dict[str, str | None] = {serialization.task_field(claim.stage): None, **transitions.NO_FAILURE_REPORT}
        fields |= {"clips": None} if claim.clips else {}
        reason = f"upstream reported a failure: {failed.message}; resubmitting"
        return _poll_transition(claim)(State.QUEUED, reason=reason, fields=fields)
    next_poll = now + max(recheck_s, timeouts.late_poll_delay(now - claim.submitted_at))
    return _failed(claim, Failure(FailureCode.UPSTREAM_FAILED, claim.stage, failed.message), now, next_poll)


def _polled_late(claim: PollClaim, result: TaskResult, now: float, *, is_final: bool) -> Transition | None:
    """Return the transition that keeps the late result of a settled job; its state does not change.

    A failed job may still be retried, so a failure that upstream reports does not end its polls.
    """
    stays = partial(_poll_transition(claim), claim.state)
    match result:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return stays(reason="late voice kept", fields=_voice_fields(result))
        case MusicReady() | NotReady() if claim.stage is Stage.MUSIC:
            return _songs_late(claim, merge_clips(claim.clips, result.clips), now)
        case TaskFailed() if is_final and claim.state is State.CANCELLED:
            return stays(reason=f"upstream reported a failure: {result.message}")
    return None


def _songs_late(claim: PollClaim, clips: tuple[Clip, ...], now: float) -> Transition | None:
    """Return the transition that keeps late songs; None without new ones. Missing songs are polled again."""
    is_complete = not any(clip.is_missing for clip in clips)
    finished_ids = {clip.clip_id for clip in clips if clip.is_finished}
    earlier_ids = {clip.clip_id for clip in claim.clips if clip.is_finished}
    if not finished_ids or (finished_ids == earlier_ids and not is_complete):
        return None
    return _poll_transition(claim)(
        claim.state,
        due=None if is_complete else now + timeouts.late_poll_delay(now - claim.submitted_at),
        reason="late song kept" if is_complete else "part of the late song kept",
        fields={"clips": serialization.clips_text(clips)},
    )


def overdue(
    claim: PollClaim, now: float, deadline_s: float, *, message: str = "", result: TaskResult | None = None
) -> Transition | None:
    """Return the transition of an order that exceeds its deadline; None before that.

    `message` is upstream's last message and `result` its last answer. Finished songs are the result of the job, and
    missing ones are polled again. Nothing but the deadline ends a paid order without a result, not even "task not
    found": with the key of another account upstream says that about every task. A retry polls again, which is free.
    """
    if now - claim.submitted_at <= deadline_s:
        return None
    if claim.state is not State.PENDING:
        return _poll_transition(claim)(claim.state, reason=f"no result within {deadline_s:g} s; polling ended")
    clips = merge_clips(claim.clips, result.clips) if isinstance(result, NotReady) else claim.clips
    if any(clip.is_finished for clip in clips):
        return _songs_ready(claim, clips, now)
    text = f"not ready {deadline_s:g} s after it was submitted" + (f"; upstream says: {message}" if message else "")
    failure = Failure(FailureCode.DEADLINE, claim.stage, text)
    failed = _failed(claim, failure, now, now + timeouts.late_poll_delay(now - claim.submitted_at))
    return replace(failed, fields={**failed.fields, "clips": serialization.clips_text(clips)}) if clips else failed


def _songs_ready(claim: PollClaim, clips: tuple[Clip, ...], now: float) -> Transition:
    """Complete a job with all or some of its songs; missing ones are polled again."""
    fields = {"clips": serialization.clips_text(clips), "settled": f"{now:.6f}"}
    if not any(clip.is_missing for clip in clips):
        return _poll_transition(claim)(State.SUCCEEDED, fields=fields)
    next_poll, reason = (
        now + timeouts.late_poll_delay(now - claim.submitted_at),
        "part of the song is missing; polling again",
    )
    return _poll_transition(claim)(State.SUCCEEDED, due=next_poll, reason=reason, fields=fields)


def _voice_ready(claim: PollClaim, ready: VoiceReady, now: float) -> Transition:
    fields = _voice_fields(ready)
    if claim.next_stage is None:
        return _poll_transition(claim)(State.SUCCEEDED, fields={**fields, "settled": f"{now:.6f}"})
    return _poll_transition(claim)(State.ADMITTED, to_stage=claim.next_stage, due=now, fields=fields)


def _voice_fields(ready: VoiceReady) -> dict[str, str | None]:
    return {"persona_id": ready.persona_id, "voice_name": ready.name}


def _failed(claim: PollClaim, failure: Failure, now: float, next_poll: float | None = None) -> Transition:
    return _poll_transition(claim)(
        State.FAILED, reason=failure.code, due=next_poll, fields=_failure_fields(failure, now)
    )


def _failure_fields(failure: Failure, now: float) -> dict[str, str | None]:
    return {"failure": serialization.failure_text(failure), "settled": f"{now:.6f}"}


def _poll_transition(claim: PollClaim) -> partial[Transition]:
    return partial(Transition, claim.job_id, claim.version, claim.state, claim.stage)


def _submit_transition(claim: SubmitClaim) -> partial[Transition]:
    return partial(Transition, claim.job_id, claim.version, State.CHARGING, claim.stage, holder=claim.holder)
