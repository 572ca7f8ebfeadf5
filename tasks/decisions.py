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
    NoAnswer,
    NotReady,
    Reading,
    Refused,
    TaskFailed,
    UpstreamError,
    VoiceReady,
)
from voicequeue.domain import serialization, timeouts, transitions
from voicequeue.domain.claims import Charged, Claimed, Overdue
from voicequeue.domain.clip import Clip, merged
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Code, Doubt, Failure, Job, Move, State
from voicequeue.domain.stage import PRICES, Stage

#: Why jobs are queued again that a worker did not begin.
STOPPING = "its worker is stopping; nothing was sent"

#: A process was frozen after its claim. Another worker may have decided to order again, so this one must not.
TOO_LATE = "the claim ran out before anything was sent"


def accepted(claim: Charged, task_id: str, now: float, poll_in: float, model: str = "") -> Move:
    """Upstream took the order: the credits are spent, and the task is to be asked about."""
    fields: dict[str, str | None] = {serialization.task_field(claim.stage): task_id, "since": f"{now:.6f}"}
    # Of this stage nothing is known yet.
    fields |= {"asked": None, "answer": None, **transitions.UNDOUBTED}
    if model:
        fields["model"] = model
    return _from_charging(claim)(State.PENDING, due=now + poll_in, fields=fields, credits=PRICES[claim.stage])


def not_accepted(claim: Charged, error: UpstreamError, now: float, refusal: Refusal | None = None) -> Move:
    """Upstream did not take the order, or did not say: nothing is ever sent again blindly.

    `refusal`: it may be meant for others too. Which it is shows when others are sent, so the store decides.
    """
    if error.cost is Cost.UNKNOWN:
        answer = error.answer if isinstance(error, NoAnswer) else None
        return _from_charging(claim)(State.UNSURE, reason=error.message, fields={"answer": answer})
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
    reason = "the worker died while charging"
    return Move(job_id, version, State.CHARGING, stage, State.UNSURE, reason=reason, fields={"answer": None})


def unheard(job: Overdue, now: float) -> Move:
    """A claim was lost on its way to who asked for it, and given up before he asked again: he has sent nothing."""
    reason = "the claim never arrived, so nothing was sent"
    return Move(job.job_id, job.version, State.UNSURE, job.stage, State.ADMITTED, due=now, reason=reason)


def expired(job: Overdue, now: float) -> Move:
    """A job that nothing was ordered for in the time it was given, or not again after its order was lost."""
    message = "nothing was ordered for it in the time it was given"
    if job.may_be_charged:
        message = "not ordered again in the time it was given; its first order, which was lost, may have been charged"
    failure = Failure(Code.EXPIRED, job.stage, message)
    fields = _failure_fields(failure, now)
    return Move(job.job_id, job.version, job.state, job.stage, State.FAILED, reason=failure.code, fields=fields)


def read(claim: Claimed, reading: Reading, now: float, recheck_s: float = 0.0) -> Move | None:
    """The move that a poll's answer leads to; None to ask again later.

    A failure is final when upstream says so a second time, at least `recheck_s` after the first.
    """
    # Apart in either direction: Redis's clock may be set back in between.
    is_final = claim.doubt is not None and abs(now - claim.doubt.at) >= recheck_s
    if claim.state is not State.PENDING:
        return _read_late(claim, reading, now, is_final=is_final)
    match reading:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return _voice_ready(claim, reading, now)
        case MusicReady() if claim.stage is Stage.MUSIC:
            return _sung(claim, merged(claim.clips, reading.clips), now)
        case NotReady() if claim.stage is Stage.MUSIC and _is_whole(clips := merged(claim.clips, reading.clips)):
            return _sung(claim, clips, now)
        case TaskFailed() if is_final:
            return _failed_upstream(claim, reading, now, recheck_s)
    return None


def _is_whole(clips: tuple[Clip, ...]) -> bool:
    """Whether each song has its link, in this answer or in an earlier one, or has ended."""
    return any(clip.is_finished for clip in clips) and not any(clip.is_missing for clip in clips)


def finished_songs(claim: Claimed, reading: Reading) -> tuple[Clip, ...]:
    """Return the songs that are known now if one of them has finished since, to be kept: a later answer may lack it."""
    if claim.stage is not Stage.MUSIC or not isinstance(reading, NotReady):
        return ()
    clips = merged(claim.clips, reading.clips)
    known = {clip.clip_id for clip in claim.clips if clip.is_finished}
    return clips if {clip.clip_id for clip in clips if clip.is_finished} - known else ()


def doubt(claim: Claimed, reading: Reading, now: float) -> Doubt | None:
    """Return the failure that upstream reports, which it may take back."""
    if not isinstance(reading, TaskFailed):
        return None
    return Doubt(claim.doubt.at if claim.doubt else now, reading.message)


def _failed_upstream(claim: Claimed, reading: TaskFailed, now: float, recheck_s: float) -> Move:
    """Fail the job, whose order is asked about ever more rarely; or queue it, where a retry is to order it again.

    With a song of it that was there before, the job succeeds.
    """
    if any(clip.is_finished for clip in claim.clips):
        return _sung(claim, claim.clips, now)
    if claim.reorder:
        # Songs that the failed order named are not those of the next one, which would wait for them.
        fields: dict[str, str | None] = {serialization.task_field(claim.stage): None, **transitions.UNDOUBTED}
        fields |= {"clips": None} if claim.clips else {}
        reason = f"upstream failed it: {reading.message}; to be ordered again"
        return _from(claim)(State.QUEUED, reason=reason, fields=fields)
    look_again = now + max(recheck_s, timeouts.look_again(now - claim.since))
    return _failed(claim, Failure(Code.UPSTREAM_FAILED, claim.stage, reading.message), now, look_again)


def _read_late(claim: Claimed, reading: Reading, now: float, *, is_final: bool) -> Move | None:
    """Return the move that keeps what came after a job was over; nothing else changes.

    A failed one may still be retried, so what upstream says of a failure need not be the end of it.
    """
    stays = partial(_from(claim), claim.state)
    match reading:
        case VoiceReady() if claim.stage is Stage.VOICE:
            return stays(reason="the voice came late, and is kept", fields=_voice_fields(reading))
        case MusicReady() | NotReady() if claim.stage is Stage.MUSIC:
            return _sung_late(claim, merged(claim.clips, reading.clips), now)
        case TaskFailed() if is_final and claim.state is State.CANCELLED:
            return stays(reason=f"upstream failed it: {reading.message}")
    return None


def _sung_late(claim: Claimed, clips: tuple[Clip, ...], now: float) -> Move | None:
    """Songs that came after a job was over; None where none did. The rest of them is asked for further on."""
    is_all = not any(clip.is_missing for clip in clips)
    finished = {clip.clip_id for clip in clips if clip.is_finished}
    if not finished or (finished == {clip.clip_id for clip in claim.clips if clip.is_finished} and not is_all):
        return None
    return _from(claim)(
        claim.state,
        due=None if is_all else now + timeouts.look_again(now - claim.since),
        reason="the song came late, and is kept" if is_all else "a part of the song came late, and is kept",
        fields={"clips": serialization.clips_text(clips)},
    )


def overdue(
    claim: Claimed, now: float, deadline: float, *, said: str = "", reading: Reading | None = None
) -> Move | None:
    """The move for a stage that took too long; None while it has time left.

    Nothing but this ends a stage that was paid and of which upstream says nothing, not even "task
    not found" (a key of another account says that of every task): retrying it asks again, free.
    `said` is what upstream said last, `reading` what its last answer was read as: the songs that are there are the
    result, and the others are asked for further on.
    """
    if now - claim.since <= deadline:
        return None
    if claim.state is not State.PENDING:
        return _from(claim)(claim.state, reason=f"nothing came in {deadline:g} s; it is not looked for any more")
    message = f"not ready {deadline:g} s after it was ordered" + (f"; upstream says: {said}" if said else "")
    clips = merged(claim.clips, reading.clips) if isinstance(reading, NotReady) else claim.clips
    if any(clip.is_finished for clip in clips):
        return _sung(claim, clips, now)
    move = _failed(
        claim, Failure(Code.DEADLINE, claim.stage, message), now, now + timeouts.look_again(now - claim.since)
    )
    return replace(move, fields={**move.fields, "clips": serialization.clips_text(clips)}) if clips else move


def _sung(claim: Claimed, clips: tuple[Clip, ...], now: float) -> Move:
    """The songs are there, or some of them are: the others are asked for further on."""
    fields = {"clips": serialization.clips_text(clips), "settled": f"{now:.6f}"}
    if not any(clip.is_missing for clip in clips):
        return _from(claim)(State.SUCCEEDED, fields=fields)
    look_again, reason = now + timeouts.look_again(now - claim.since), "a part of the song is missing, and is asked for"
    return _from(claim)(State.SUCCEEDED, due=look_again, reason=reason, fields=fields)


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
    return {"failure": serialization.failure_text(failure), "settled": f"{now:.6f}"}


def _from(claim: Claimed) -> partial[Move]:
    return partial(Move, claim.job_id, claim.version, claim.state, claim.stage)


def _from_charging(claim: Charged) -> partial[Move]:
    return partial(Move, claim.job_id, claim.version, State.CHARGING, claim.stage)
