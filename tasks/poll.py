"""Polling of orders: get the results of a chunk of pending tasks, and record each of them.

A poll may run twice, late or after a crash: a job that was polled meanwhile is skipped.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import attrgetter

from tasks import decisions
from tasks.context import TaskContext, defer_to_reconciler, job_span
from tasks.musicapi import InvalidRequest, RequestPool, TaskResult, UpstreamError, requests
from voicequeue.domain.claims import PollClaim, PollReschedule
from voicequeue.domain.clip import Clip
from voicequeue.domain.job import FailureReport, Transition
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State

log = logging.getLogger("voicequeue")


@dataclass(frozen=True, slots=True)
class PollRound:
    """Jobs of a stage to poll together, in `delay_s` seconds."""

    job_ids: list[str]
    delay_s: float
    stage: Stage


@dataclass(frozen=True, slots=True)
class PollResult:
    """Outcome of a chunk: the next polls, soonest first, and the jobs whose song is to be submitted.

    `is_full` is True if the chunk has as many jobs as one may have, so that more may be due.
    """

    rounds: list[PollRound] = field(default_factory=list)
    to_music: list[str] = field(default_factory=list)
    is_full: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """Answer to one poll.

    `transition` is None while the task is not ready. `has_response` is False where upstream did not answer.
    `failure_report` is the failure that upstream reports, and `clips` are the songs if one has finished since the last
    poll.
    """

    transition: Transition | None
    has_response: bool
    failure_report: FailureReport | None = None
    clips: tuple[Clip, ...] = ()


def poll_orders(
    services: TaskContext,
    job_ids: Sequence[str],
    *,
    overdue_s: float = 0.0,
    slow_after_s: float | None = None,
    on_slow: Callable[[], object] = lambda: None,
) -> PollResult:
    """Poll each job that is due, and others that are due about now or have been for `overdue_s` seconds; write the
    results. Without jobs, poll all that is due.

    `on_slow` is called once if the answers take longer than `slow_after_s` seconds.
    """
    coalesce_s, lease = services.poll_plan.coalesce_window_s, services.timeouts.poll_lease_s
    claims = services.store.claim_poll(
        job_ids,
        services.clock(),
        lease_s=lease,
        coalesce_window_s=coalesce_s,
        overdue_s=overdue_s,
        at_most=services.chunk_size,
    )
    if not claims:
        return PollResult()
    answers, unpolled = _poll_claims(services, claims, slow_after_s, on_slow)
    now, jitter = services.clock(), services.polls.jitter()
    transitions: list[Transition] = []
    next_polls: list[tuple[PollClaim, PollReschedule]] = []
    for claim in claims[: len(claims) - len(unpolled)]:
        answer = answers.get(claim.job_id)
        if (transition := _transition_for(services, claim, answer, now)) is not None:
            transitions.append(transition)
        else:
            next_polls.append((claim, _next_poll(services, claim, answer, now, jitter)))
    next_polls += [(claim, PollReschedule(claim.job_id, claim.version, now)) for claim in unpolled]
    applied = _apply(services, claims, transitions, now)
    to_music = [transition.job_id for transition in applied if transition.to_state is State.ADMITTED]
    rounds = _reschedule(services, next_polls, now)
    return PollResult(rounds, to_music, is_full=len(claims) >= services.chunk_size)


def _reschedule(
    services: TaskContext, next_polls: Sequence[tuple[PollClaim, PollReschedule]], now: float
) -> list[PollRound]:
    """Write the next polls; return those of pending jobs by stage and time, the soonest first.

    Maintenance dispatches the polls of settled jobs.
    """
    settled = [poll for claim, poll in next_polls if claim.state is not State.PENDING]
    groups: list[tuple[Stage, list[PollReschedule]]] = []
    for stage in Stage:
        pending = [poll for claim, poll in next_polls if claim.state is State.PENDING and claim.stage is stage]
        groups += [(stage, group) for group in _coalesced(pending, services.poll_plan.coalesce_window_s)]
    planned_ids = set(services.store.reschedule_polls(chain(settled, *(group for _, group in groups))))
    rounds = [
        PollRound([poll.job_id for poll in group if poll.job_id in planned_ids], group[0].due - now, stage)
        for stage, group in groups
    ]
    return sorted((poll_round for poll_round in rounds if poll_round.job_ids), key=attrgetter("delay_s"))


def _apply(
    services: TaskContext, claims: Sequence[PollClaim], transitions: Sequence[Transition], now: float
) -> list[Transition]:
    """Write transitions and record the durations of the orders they complete; return those that were applied."""
    is_applied = services.store.apply_transitions(transitions, now)
    applied = [transition for transition, written in zip(transitions, is_applied, strict=True) if written]
    ready_ids = {transition.job_id for transition in applied if _is_complete(transition)}
    ready = [claim for claim in claims if claim.job_id in ready_ids and claim.state is State.PENDING]
    services.polls.record_durations(ready, now)
    return applied


def _is_complete(transition: Transition) -> bool:
    """Return whether the whole result arrived. An incomplete song says nothing about how long songs take."""
    return transition.to_state is State.ADMITTED or (transition.to_state is State.SUCCEEDED and not transition.due)


def _transition_for(
    services: TaskContext, claim: PollClaim, answer: PollAnswer | None, now: float
) -> Transition | None:
    if answer is not None:
        return answer.transition
    # The deadline also applies where a poll failed unexpectedly.
    message = claim.failure_report.message if claim.failure_report else ""
    return decisions.overdue(claim, now, _deadline_s(services, claim), message=message)


def _coalesced(polls: Iterable[PollReschedule], coalesce_s: float) -> list[list[PollReschedule]]:
    """Group polls due within `coalesce_s` seconds of the first of a group, at its time; soonest first."""
    groups: list[list[PollReschedule]] = []
    for poll in sorted(polls, key=attrgetter("due")):
        if not groups or poll.due > groups[-1][0].due + coalesce_s:
            groups.append([])
        groups[-1].append(poll)
    return [[replace(poll, due=group[0].due) for poll in group] for group in groups]


def _next_poll(
    services: TaskContext, claim: PollClaim, answer: PollAnswer | None, now: float, jitter: float
) -> PollReschedule:
    """Return the next poll of a job, with the failure that upstream reports."""
    failure_report = answer.failure_report if answer else claim.failure_report
    if failure_report and not claim.failure_report:
        context = {"job": claim.job_id, "stage": str(claim.stage), "reason": failure_report.message}
        log.info("upstream reported a failure; polling again", extra=context)
    is_not_ready = answer is not None and answer.has_response and claim.state is State.PENDING
    due = now + services.polls.next_delay(claim, now, jitter, has_failure_report=failure_report is not None)
    return PollReschedule(
        claim.job_id,
        claim.version,
        due,
        now if is_not_ready else None,
        failure_report,
        keeps_failure_report=claim.failure_report is None,
        clips=answer.clips if answer else (),
    )


def _poll_claims(
    services: TaskContext, claims: Sequence[PollClaim], slow_after_s: float | None, on_slow: Callable[[], object]
) -> tuple[dict[str, PollAnswer], list[PollClaim]]:
    """Poll claimed jobs.

    Return the answers by job, without the jobs whose poll failed unexpectedly, and the claims at the end that a
    stopping process did not poll.
    """
    polls = RequestPool[PollClaim, TaskResult](services.upstream, partial(job_span, services, "poll"))
    remaining, answers = deque(claims), dict[str, PollAnswer]()
    slow_at = None if slow_after_s is None else time.monotonic() + slow_after_s
    results: dict[PollClaim, TaskResult | UpstreamError] = {}
    while polls.is_open or (remaining and not services.is_stopping()):
        free_slots = 0 if services.is_stopping() else min(polls.free_slots, len(remaining))
        batch = [remaining.popleft() for _ in range(free_slots)]
        polls.send([(claim, requests.get_task(claim.task_id, claim.stage)) for claim in batch])
        completed_polls = polls.collect(max(0.0, slow_at - time.monotonic()) if slow_at else None)
        if slow_at and time.monotonic() >= slow_at:
            slow_at = None
            on_slow()
        now = services.clock()
        for completed in completed_polls:
            with defer_to_reconciler([completed.key.job_id]):
                results[completed.key] = completed.result
                answers[completed.key.job_id] = _answer(services, completed.key, completed.result, now)
    _report_health(services, results)
    return answers, list(remaining)


def _report_health(services: TaskContext, results: dict[PollClaim, TaskResult | UpstreamError]) -> None:
    """Report what the answers say about upstream, and log the jobs that it alone does not answer for."""
    # For the late result of a settled job, a missing answer says nothing about upstream.
    current = {claim.job_id: result for claim, result in results.items() if claim.state is State.PENDING}
    with defer_to_reconciler(list(current)):
        unanswered = services.health.report_polls(current)
        for claim, result in results.items():
            if claim.job_id in unanswered or isinstance(result, InvalidRequest):
                log.warning("poll failed: %s", result, extra={"job": claim.job_id, "stage": str(claim.stage)})


def _answer(services: TaskContext, claim: PollClaim, result: TaskResult | UpstreamError, now: float) -> PollAnswer:
    deadline_s = _deadline_s(services, claim)
    if isinstance(result, UpstreamError):
        transition = decisions.overdue(claim, now, deadline_s, message=result.message)
        return PollAnswer(transition, has_response=False, failure_report=claim.failure_report)
    failure_report = decisions.failure_report(claim, result, now)
    transition = decisions.transition_from_result(
        claim, result, now, services.poll_plan.recheck_s
    ) or decisions.overdue(
        claim, now, deadline_s, message=failure_report.message if failure_report else "", result=result
    )
    return PollAnswer(
        transition, has_response=True, failure_report=failure_report, clips=decisions.finished_songs(claim, result)
    )


def _deadline_s(services: TaskContext, claim: PollClaim) -> float:
    """Return how long after its order a result is awaited, in seconds; for a settled job, a late result."""
    return services.deadlines[claim.stage] if claim.state is State.PENDING else services.timeouts.late_result_ttl_s
