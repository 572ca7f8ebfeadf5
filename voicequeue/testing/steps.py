"""The transitions of a scripted job, as the real workers make them. Pure.

The counterpart of tasks/decisions.py; tests/fake/test_steps.py compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from voicequeue.domain import serialization, timeouts, transitions
from voicequeue.domain.claims import PollClaim, StalledJob, SubmitClaim
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Failure, Job, Transition
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import FailureCode, State
from voicequeue.testing.outcomes import Ending, Outcome

#: Failures that are found before anything is ordered, by the state of the job then.
UNORDERED = {
    FailureCode.EXPIRED: State.QUEUED,
    FailureCode.RECORDING_UNREACHABLE: State.ADMITTED,
    FailureCode.RECORDING_UNFIT: State.ADMITTED,
}

#: Failures with which MusicAPI answers an order, which then costs nothing.
REFUSED = frozenset({FailureCode.REFUSED, FailureCode.MODERATED})


def not_ordered(job: Job, outcome: Outcome, now: float) -> Transition | None:
    """Return the transition of a job that fails before its order; None if it does not."""
    if outcome.code is None or UNORDERED.get(outcome.code) is not job.state:
        return None
    return Transition(
        job.id,
        job.version,
        job.state,
        job.stage,
        State.FAILED,
        reason=outcome.code,
        fields=_failure(outcome, job.stage, now),
    )


def expired(job: StalledJob, now: float) -> Transition:
    """Return the transition of a job that was not submitted within its time limit."""
    message = "not submitted within its time limit"
    if job.may_be_charged:
        message = "not resubmitted within its time limit; its first order, which was lost, may have been charged"
    failure = Failure(FailureCode.EXPIRED, job.stage, message)
    fields = {"failure": serialization.failure_text(failure), "settled": f"{now:.6f}"}
    return Transition(job.job_id, job.version, job.state, job.stage, State.FAILED, reason=failure.code, fields=fields)


def ordered(job: Job, claim: SubmitClaim, outcome: Outcome, task_id: str, now: float) -> Transition:
    """Return the transition that the answer to an order leads to."""
    move = partial(Transition, claim.job_id, claim.version, State.CHARGING, claim.stage, holder=claim.holder)
    if outcome.ending is Ending.UNSURE:
        return move(State.UNSURE, reason=outcome.message, fields={"upstream_response": None})
    if outcome.code in REFUSED:
        return move(State.FAILED, reason=outcome.code, fields=_failure(outcome, claim.stage, now))
    fields: dict[str, str | None] = {serialization.task_field(claim.stage): task_id, "submitted_at": f"{now:.6f}"}
    fields |= {"not_ready_at": None, "upstream_response": None, **transitions.NO_FAILURE_REPORT}
    if claim.stage is Stage.MUSIC and job.spec.song is not None:
        fields["model"] = job.spec.song.mv
    return move(State.PENDING, due=now, fields=fields, credits=PRICES[claim.stage])


def finished(job: Job, claim: PollClaim, outcome: Outcome, now: float) -> Transition:
    """Return the transition that the result of an order leads to."""
    move = partial(Transition, claim.job_id, claim.version, claim.state, claim.stage)
    if outcome.code is not None and claim.resubmits:
        fields: dict[str, str | None] = {serialization.task_field(claim.stage): None, **transitions.NO_FAILURE_REPORT}
        reason = f"upstream reported a failure: {outcome.message}; resubmitting"
        return move(State.QUEUED, reason=reason, fields=fields)
    if outcome.code is not None:
        next_poll = now + timeouts.late_poll_delay(now - claim.submitted_at)
        return move(State.FAILED, due=next_poll, reason=outcome.code, fields=_failure(outcome, claim.stage, now))
    if claim.stage is Stage.MUSIC:
        clips = songs_of(job) if outcome.clips is None else outcome.clips
        return move(State.SUCCEEDED, fields={"clips": serialization.clips_text(clips), "settled": f"{now:.6f}"})
    voice = {"persona_id": outcome.persona_id or f"persona-{job.id}", "voice_name": job.spec.name or f"voice-{job.id}"}
    if claim.next_stage is not None:
        return move(State.ADMITTED, to_stage=claim.next_stage, due=now, fields=voice)
    return move(State.SUCCEEDED, fields={**voice, "settled": f"{now:.6f}"})


def songs_of(job: Job) -> tuple[Clip, ...]:
    """Return the two songs that MusicAPI would create for a job."""
    song = job.spec.song
    if song is None:
        return ()
    links = [f"https://cdn.musicapi.example/{job.id}-{number}" for number in (1, 2)]
    return tuple(
        Clip(
            clip_id=link.rpartition("/")[2],
            state="succeeded",
            title=song.title,
            audio_url=f"{link}.mp3",
            image_url=f"{link}.jpg",
            duration=180.0,
            tags=song.tags,
            lyrics=song.prompt,
            mv=song.mv,
        )
        for link in links
    )


def _failure(outcome: Outcome, stage: Stage, now: float) -> Mapping[str, str | None]:
    failure = Failure(outcome.code or FailureCode.REFUSED, stage, outcome.message)
    return {"failure": serialization.failure_text(failure), "settled": f"{now:.6f}"}
