"""Arguments and replies of the scripts, and outcomes read from the records when a reply was lost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voicequeue.domain import serialization
from voicequeue.domain.budgets import ACCOUNT, period_ends
from voicequeue.domain.claims import (
    BudgetRefusal,
    EnqueueOutcome,
    PollClaim,
    PollReschedule,
    StalledJob,
    SubmitClaim,
    SubmitDeferred,
)
from voicequeue.domain.job import Transition
from voicequeue.domain.newer_records import stored
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import CANCELLING_TRANSITIONS, SHARED_VOICE_TRANSITIONS, State


def parse_submit_claim(
    job_id: str, stage: Stage, reply: list[Any] | None, *, expires_at: float, holder: str, is_replicated: bool
) -> SubmitClaim | SubmitDeferred | StalledJob | None:
    """Return the reply of scripts/claim_submit.lua for one job; None if it cannot be claimed."""
    match reply:
        case [version, attempt, content, persona_id]:
            return SubmitClaim(
                job_id, int(version), stage, int(attempt), content, persona_id, expires_at, holder, is_replicated
            )
        case [version, "unsure"]:
            return StalledJob(job_id, int(version), State.UNSURE, stage)
        case [seconds]:
            return SubmitDeferred(float(seconds))
    return None


def parse_stalled_job(job_id: str, version: str, state: str, stage: str, lost_orders: str = "") -> StalledJob:
    """Return one job from the reply of scripts/lease_expired.lua or scripts/lease_overdue.lua."""
    may_be_charged = bool(lost_orders)
    return StalledJob(job_id, int(version), stored(State, state), stored(Stage, stage), may_be_charged=may_be_charged)


def parse_poll_claim(reply: Sequence[str]) -> PollClaim:
    """Return one claim from the reply of scripts/claim_poll.lua."""
    job_id, version, state, stage, task_id, submitted_at, not_ready_at, *more = reply
    next_stage, model, clips, report, resubmits = more
    return PollClaim(
        job_id,
        int(version),
        stored(State, state),
        Stage(stage),
        task_id,
        submitted_at=float(submitted_at),
        last_not_ready_at=float(not_ready_at) if not_ready_at else None,
        next_stage=stored(Stage, next_stage) if next_stage else None,
        model=model,
        clips=serialization.parse_clips(clips),
        failure_report=serialization.parse_failure_report(report),
        resubmits=bool(resubmits),
    )


def failure_report_argument(look: PollReschedule) -> str:
    """Return the `failure_report` argument of scripts/reschedule_polls.lua."""
    if look.failure_report is None:
        return "" if look.keeps_failure_report else "-"
    return serialization.failure_report_text(look.failure_report)


def is_applied(move: Transition, record: Sequence[str | None], now: float) -> bool:
    """Return whether a record is in the state after this transition.

    The same script may have changed a job that shares a voice, and cancels a job marked for cancellation.
    """
    version, updated, state = record
    is_updated_now = int(version or 0) > move.version and updated == f"{now:.6f}"
    if_refused = {State.FAILED} if move.refused else set()
    alternatives = {*SHARED_VOICE_TRANSITIONS.get(move.to_state, ()), *CANCELLING_TRANSITIONS.get(move.state, ())}
    return is_updated_now and state in {move.to_state, *alternatives, *if_refused}


def parse_enqueue_outcome(reply: Any, now: float, *, shows_account: bool) -> EnqueueOutcome | BudgetRefusal:
    """Return the reply of scripts/enqueue.lua for one job. The figures of the account are for operators only."""
    if not isinstance(reply, list):
        return EnqueueOutcome(reply)
    _, owner, period, limit, remaining, price = reply
    shown, resets_at = shows_account or owner != ACCOUNT, period_ends(now)[period]
    return BudgetRefusal(
        owner, period, int(price), int(limit) if shown else None, int(remaining) if shown else None, resets_at
    )


def outcome_at_creation(spec: VoiceJob, stage: str, state: str) -> EnqueueOutcome:
    """Return the outcome of enqueueing a job, derived from its record a moment later."""
    return EnqueueOutcome.SHARES_VOICE if state == State.WAITING or stage != spec.stages[0] else EnqueueOutcome.NEW
