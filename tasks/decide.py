"""What follows from upstream's answers. Pure: a claim and an answer in, a decision out.

The poll, the webhook and the pulse share these, so that a job's fate does not depend on who asked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tasks.musicapi import (
    Cost,
    Moderated,
    MusicReady,
    Reading,
    Refused,
    TaskFailed,
    UpstreamError,
    VoiceReady,
)
from voicequeue import flow, records
from voicequeue.claims import Charged, Claimed, Overdue
from voicequeue.gate import Refusal
from voicequeue.job import Code, Failure, Job, Move, State
from voicequeue.stage import PRICES, Stage

#: Why jobs are queued again that a worker did not begin.
STOPPING = "its worker is stopping; nothing was sent"

#: A process was frozen after its claim. Another worker may have decided to order again, so this one must not.
TOO_LATE = "the claim ran out before anything was sent"


def accepted(claim: Charged, task_id: str, now: float, poll_in: float, model: str = "") -> Move:
    """Upstream took the order: the credits are spent, and the task is to be asked about."""
    fields: dict[str, str | None] = {records.task_field(claim.stage): task_id, "since": f"{now:.6f}"}
    fields["asked"] = None  # of this stage nothing is known yet
    if model:
        fields["model"] = model
    return _from_charging(claim)(State.PENDING, due=now + poll_in, fields=fields, credits=PRICES[claim.stage])


def not_accepted(claim: Charged, error: UpstreamError, now: float, refusal: Refusal | None = None) -> Move:
    """Upstream did not take the order, or did not say: nothing is ever sent again blindly.

    `refusal`: it may be meant for others too. Which it is shows when others are sent, so the store decides.
    """
    if error.cost is Cost.UNKNOWN:
        return _from_charging(claim)(State.UNSURE, reason=error.message)
    if refusal is not None:
        return _from_charging(claim)(State.QUEUED, reason=error.message, refused=refusal)
    if isinstance(error, Refused):
        code = Code.MODERATED if isinstance(error, Moderated) else Code.REFUSED
        failure = Failure(code, claim.stage, error.message)
        return _from_charging(claim)(State.FAILED, reason=code, fields=_failure_fields(failure, now))
    return _from_charging(claim)(State.QUEUED, reason=error.message)


def late(job: Job, move: Move) -> Move | None:
    """The same answer for a job that went unsure before it came; None if it makes nothing surer."""
    if move.to is State.UNSURE:
        return None
    # Certainly not charged: the job keeps its slot and is sent again.
    to, due = (State.ADMITTED, job.updated_at) if move.to is State.QUEUED else (move.to, move.due)
    reason = "the answer came late"
    return replace(move, version=job.version, state=State.UNSURE, to=to, due=due, reason=reason, refused=None)


def not_sent(claim: Charged, reason: str) -> Move:
    """Queue a claimed job again for which nothing was sent."""
    return _from_charging(claim)(State.QUEUED, reason=reason)


def not_begun(job: Job) -> Move:
    """Queue an admitted job again whose worker stops, so that another worker can take it at once."""
    return Move(job.id, job.version, State.ADMITTED, job.stage, State.QUEUED, reason=STOPPING)


def lost(job_id: str, version: int, stage: Stage) -> Move:
    """A worker died while charging: the POST may have been sent."""
    return Move(job_id, version, State.CHARGING, stage, State.UNSURE, reason="the worker died while charging")


def unheard(job: Overdue, now: float) -> Move:
    """A claim was lost on its way to who asked for it, and given up before he asked again: he has sent nothing."""
    reason = "the claim never arrived, so nothing was sent"
    return Move(job.job_id, job.version, State.UNSURE, job.stage, State.ADMITTED, due=now, reason=reason)


def expired(job: Overdue, now: float) -> Move:
    """A job that nothing was ordered for in the time it was given."""
    failure = Failure(Code.EXPIRED, job.stage, "nothing was ordered for it in the time it was given")
    fields = _failure_fields(failure, now)
    return Move(job.job_id, job.version, job.state, job.stage, State.FAILED, reason=failure.code, fields=fields)


def read(claim: Claimed, reading: Reading, now: float) -> Move | None:
    """The move that a poll's answer leads to; None to ask again later."""
    if claim.state is not State.PENDING:
        return _read_late(claim, reading)
    match reading:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return _voice_ready(claim, reading, now)
        case MusicReady() if claim.stage is Stage.MUSIC:
            fields = {"clips": records.clips_text(reading.clips), "settled": f"{now:.6f}"}
            return _from(claim)(State.SUCCEEDED, fields=fields)
        case TaskFailed():
            return _failed(claim, Failure(Code.UPSTREAM_FAILED, claim.stage, reading.message), now)
    return None


def _read_late(claim: Claimed, reading: Reading) -> Move | None:
    """What comes after a job failed or was cancelled is kept, and changes nothing else."""
    stays = partial(_from(claim), claim.state)
    match reading:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return stays(reason="the voice came late, and is kept", fields=_voice_fields(reading))
        case MusicReady() if claim.stage is Stage.MUSIC:
            return stays(reason="the song came late, and is kept", fields={"clips": records.clips_text(reading.clips)})
        case TaskFailed():
            failure = Failure(Code.UPSTREAM_FAILED, claim.stage, reading.message)
            fields = {"failure": records.failure_text(failure)} if claim.state is State.FAILED else {}
            return stays(reason=f"upstream failed it: {reading.message}", fields=fields)
    return None


def overdue(claim: Claimed, now: float, deadline: float, said: str = "") -> Move | None:
    """The move for a stage that took too long; None while it has time left.

    Nothing but this ends a stage that was paid and of which upstream says nothing, not even "task
    not found" (a key of another account says that of every task): retrying it asks again, free.
    `said` is what upstream said last.
    """
    if now - claim.since <= deadline:
        return None
    if claim.state is not State.PENDING:
        return _from(claim)(claim.state, reason=f"nothing came in {deadline:g} s; it is not looked for any more")
    message = f"not ready {deadline:g} s after it was ordered" + (f"; upstream says: {said}" if said else "")
    look_again = now + flow.look_again(now - claim.since)
    return _failed(claim, Failure(Code.DEADLINE, claim.stage, message), now, look_again)


def _voice_ready(claim: Claimed, ready: VoiceReady, now: float) -> Move:
    fields = _voice_fields(ready)
    if claim.next_stage is None:
        return _from(claim)(State.SUCCEEDED, fields={**fields, "settled": f"{now:.6f}"})
    return _from(claim)(State.ADMITTED, to_stage=claim.next_stage, due=now, fields=fields)


def _voice_fields(ready: VoiceReady) -> dict[str, str | None]:
    return {"persona_id": ready.persona_id, "voice_name": ready.name}


def _failed(claim: Claimed, failure: Failure, now: float, look_again: float | None = None) -> Move:
    return _from(claim)(State.FAILED, reason=failure.code, due=look_again, fields=_failure_fields(failure, now))


def _failure_fields(failure: Failure, now: float) -> dict[str, str | None]:
    return {"failure": records.failure_text(failure), "settled": f"{now:.6f}"}


def _from(claim: Claimed) -> partial[Move]:
    return partial(Move, claim.job_id, claim.version, claim.state, claim.stage)


def _from_charging(claim: Charged) -> partial[Move]:
    return partial(Move, claim.job_id, claim.version, State.CHARGING, claim.stage)
