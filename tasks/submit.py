"""Submission of orders: send the paid POST of a stage for a chunk of jobs, and record each answer.

A submission may run twice, late or after a crash: a job that was claimed or has moved on is skipped.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from redis.exceptions import RedisError

from tasks import decisions
from tasks.context import TaskContext, defer_to_reconciler, job_span
from tasks.musicapi import Completed, InvalidRequest, RequestPool, UpstreamError, requests
from tasks.musicapi.requests import ApiRequest
from tasks.poll_scheduler import duration_kind
from tasks.recording_gate import RecordingGate
from tasks.sources import SourceError, hide_signature
from voicequeue.client.orders import OrderEffect, record_charged_order
from voicequeue.domain.claims import ChargedOrder, PollReschedule, StalledJob, SubmitClaim, SubmitDeferred
from voicequeue.domain.gate import Refusal
from voicequeue.domain.job import Transition
from voicequeue.domain.serialization import task_field
from voicequeue.domain.spec import NewerJob, VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State

log = logging.getLogger("voicequeue")

#: Seconds between two checks for a stopping process while jobs wait for free request slots.
STOP_CHECK_S = 0.5

#: Seconds after its time at which a first poll is handed out while other answers are awaited: until then it can share
#: their message.
LATE_POLL_S = 1.0

#: Seconds for which a job has waited for a process if its message is not among the next ones.
WAITED_S = 1.0

#: Seconds for which an answer is written again while Redis's replicas do not record it: the time of a failover. The new
#: primary would otherwise not know that the order was accepted.
REPLICATED_WITHIN_S = 30.0

#: Seconds after which a checked recording is seen at the latest while answers are awaited.
RECORDING_CHECK_S = 0.05


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """Outcome of a chunk.

    `pending` are the jobs whose order upstream accepted, to be polled in `poll_in_s` seconds. `deferred` are the jobs
    that the time limit or the submit rate left out, to be submitted in `retry_in_s` seconds.
    """

    pending: list[str] = field(default_factory=list)
    poll_in_s: float = 0.0
    deferred: list[str] = field(default_factory=list)
    retry_in_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """A POST in flight; `model` is that of the song, if the order is for one."""

    claim: SubmitClaim
    model: str = ""

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self.claim.job_id

    @property
    def stage(self) -> Stage:
        """The stage that it orders."""
        return self.claim.stage


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """A job whose order upstream accepted: its new version, the time of its first poll (Unix seconds), and the seconds
    until then when the answer was written."""

    job_id: str
    version: int
    due: float
    poll_in_s: float


class NewerContentError(Exception):
    """The job has content that this release does not know: its order would not be what was asked for."""


def fill_up(services: TaskContext, stage: Stage, job_ids: list[str]) -> list[str]:
    """Add jobs that have waited for a process, as many as this one can send at once.

    Jobs that arrive one by one have a message each. While answers are slow, each would occupy a process alone.
    """
    free = services.upstream.connections - len(job_ids)
    if free <= 0 or services.is_stopping():
        return job_ids
    try:
        waiting = services.store.coordination.waiting_for_order(
            stage, services.clock(), waited_s=WAITED_S, at_most=free
        )
    except RedisError:  # their own messages follow
        return job_ids
    return list(dict.fromkeys([*job_ids, *waiting]))


def submit_orders(
    services: TaskContext, stage: Stage, job_ids: Sequence[str], poll: Callable[[list[str]], object] | None = None
) -> SubmitResult:
    """Send the POST of `stage` once for each job that is admitted to it.

    Recordings are checked first where that is configured, while the orders of other jobs are sent. Only as many jobs
    are claimed as can be sent at once. Answers are written as they arrive, those that arrive together in one call, and
    free the slots of the next claims. Jobs whose first poll would be late until all answers have arrived are given to
    `poll`, and are not in the result. When the process stops, the remaining jobs are queued again and only the answers
    to sent requests are awaited.
    """
    job_ids, jitter = list(dict.fromkeys(job_ids)), services.polls.jitter()
    claim_deadline = services.clock() + services.timeouts.submit_s
    orders = RequestPool[Order, str](services.upstream, partial(job_span, services, "order"))
    recordings, retry_in_s, accepted = RecordingGate(services, stage), dict[str, float](), dict[str, AcceptedJob]()
    waiting = deque(recordings.enter(job_ids))
    while waiting or recordings.is_open or orders.is_open:
        if services.is_stopping():
            _requeue(services, stage, [*waiting, *recordings.leave()])
            waiting.clear()
        waiting.extend(recordings.collect(0.0 if waiting or orders.is_open else STOP_CHECK_S))
        if services.clock() > claim_deadline:
            retry_in_s |= dict.fromkeys(waiting, 0.0)
            waiting.clear()
        batch = [waiting.popleft() for _ in range(min(orders.free_slots, len(waiting)))]
        with defer_to_reconciler(batch):
            retry_in_s |= _send_orders(services, stage, batch, orders, recordings)
        timeout_s = RECORDING_CHECK_S if recordings.is_open else STOP_CHECK_S if waiting else None
        if poll is not None and orders.is_open:
            timeout_s = _until_late_poll(services, accepted, timeout_s)
        completed = orders.collect(timeout_s)
        accepted |= {job.job_id: job for job in _record_answers(services, jitter, completed)}
        if poll is not None and orders.is_open:
            _poll_late(services, accepted, poll)
    # One message polls all of them, so they share the earliest due time.
    poll_in_s = min((job.poll_in_s for job in accepted.values()), default=0.0)
    due = services.clock() + poll_in_s
    services.store.reschedule_polls(
        PollReschedule(job.job_id, job.version, due) for job in accepted.values() if job.poll_in_s > poll_in_s
    )
    pending = [job_id for job_id in job_ids if job_id in accepted]
    deferred = [job_id for job_id in job_ids if job_id in retry_in_s]
    return SubmitResult(pending, poll_in_s, deferred, retry_in_s=max(retry_in_s.values(), default=0.0))


def _until_late_poll(
    services: TaskContext, accepted: Mapping[str, AcceptedJob], timeout_s: float | None
) -> float | None:
    """Return the seconds until the first poll of an accepted job is late, at most `timeout_s`; None for no limit."""
    if not accepted:
        return timeout_s
    until_poll_s = max(0.0, min(job.due for job in accepted.values()) + LATE_POLL_S - services.clock())
    return until_poll_s if timeout_s is None else min(timeout_s, until_poll_s)


def _poll_late(services: TaskContext, accepted: dict[str, AcceptedJob], poll: Callable[[list[str]], object]) -> None:
    """Once a first poll is late, give the jobs whose first poll is due to `poll`, and remove them from `accepted`."""
    now = services.clock()
    due_jobs = [job for job in accepted.values() if job.due <= now]
    if any(job.due + LATE_POLL_S <= now for job in due_jobs):
        due_ids = [job.job_id for job in due_jobs]
        with defer_to_reconciler(due_ids):
            poll(due_ids)
        for job_id in due_ids:
            del accepted[job_id]


def _send_orders(
    services: TaskContext,
    stage: Stage,
    job_ids: list[str],
    orders: RequestPool[Order, str],
    recordings: RecordingGate,
) -> dict[str, float]:
    """Claim jobs and send their POSTs; return the jobs to submit later, each with its delay in seconds."""
    if not job_ids:
        return {}
    now, holder = services.clock(), secrets.token_hex(8)
    claims = services.store.claim_submit(job_ids, stage, holder, now, lease_s=services.timeouts.submit_lease_s)
    posts: list[tuple[Order, ApiRequest[str]]] = []
    transitions: list[tuple[SubmitClaim, Transition]] = []
    for claim in claims:
        if isinstance(claim, SubmitClaim) and not claim.is_replicated:
            transitions.append((claim, decisions.not_sent(claim, decisions.UNREPLICATED)))
        elif isinstance(claim, SubmitClaim) and not recordings.is_current(claim):
            transitions.append((claim, decisions.not_sent(claim, decisions.CHANGED_SINCE_CHECK)))
        elif isinstance(claim, SubmitClaim):
            with defer_to_reconciler([claim.job_id]):
                try:
                    posts.append(_post(services, claim))
                except InvalidRequest as error:
                    transitions.append((claim, decisions.not_accepted(claim, error, now)))
                except NewerContentError:
                    transitions.append((claim, decisions.of_newer_release(claim, now)))
                except SourceError as error:
                    transitions.append((claim, _without_source(claim, error, now)))
    if reason := _reason_not_to_send(services, claimed_at=now):
        transitions += [(order.claim, decisions.not_sent(order.claim, reason)) for order, _ in posts]
        posts.clear()
    orders.send(posts)
    is_replicated = {claim.is_replicated for claim in claims if isinstance(claim, SubmitClaim)}
    if False in is_replicated:
        services.health.report_unreplicated()
    elif is_replicated:
        services.health.report_replicated()
    _write(services, transitions)
    unclaimed = [decisions.claim_not_received(claim, holder, now) for claim in claims if isinstance(claim, StalledJob)]
    is_written = services.store.apply_transitions(unclaimed, now)
    readmitted = [transition.job_id for transition, written in zip(unclaimed, is_written, strict=True) if written]
    delays = zip(job_ids, claims, strict=True)
    delayed = {job_id: delay.retry_in_s for job_id, delay in delays if isinstance(delay, SubmitDeferred)}
    return delayed | dict.fromkeys(readmitted, 0.0)


def _reason_not_to_send(services: TaskContext, *, claimed_at: float) -> str:
    """Return why POSTs claimed at that time must not be sent any longer; empty if they may."""
    if services.clock() >= claimed_at + services.timeouts.submit_lease_s:
        return decisions.CLAIM_EXPIRED
    return decisions.STOPPING if services.is_stopping() else ""


def _requeue(services: TaskContext, stage: Stage, job_ids: Collection[str]) -> None:
    """Queue the jobs that are still admitted to the stage."""
    if not job_ids:
        return
    with defer_to_reconciler(list(job_ids)):
        jobs = [job for job in services.store.get(list(job_ids)) if job and job.stage is stage]
        transitions = [decisions.not_started(job) for job in jobs if job.state is State.ADMITTED]
        services.store.apply_transitions(transitions, services.clock())


def _post(services: TaskContext, claim: SubmitClaim) -> tuple[Order, ApiRequest[str]]:
    """Return the POST of a claim. Raises InvalidRequest for a record that it cannot be made from, NewerContentError and
    SourceError."""
    spec = _read_spec(claim)
    webhook = services.webhooks.for_order(claim) if services.webhooks else None
    if claim.stage is Stage.VOICE and spec.audio_url is not None:
        return Order(claim), requests.create_voice(services.sources.link(spec.audio_url), webhook)
    persona_id = claim.persona_id or spec.persona_id
    if claim.stage is Stage.MUSIC and persona_id is not None and spec.song is not None:
        return Order(claim, spec.song.mv), requests.create_music(persona_id, spec.song, webhook)
    raise InvalidRequest(f"the record lacks what the {claim.stage} stage needs")


def _without_source(claim: SubmitClaim, error: SourceError, now: float) -> Transition:
    log.warning("not submitted: %s", error, extra={"job": claim.job_id, "stage": str(claim.stage)})
    return decisions.source_failed(claim, str(error), now, is_temporary=error.is_temporary)


def _read_spec(claim: SubmitClaim) -> VoiceJob:
    try:
        spec = claim.spec()
    except ValueError:
        raise InvalidRequest("this release cannot read the job's record") from None
    if isinstance(spec, NewerJob):
        raise NewerContentError
    return spec


def _record_answers(
    services: TaskContext, jitter: float, completed: Sequence[Completed[Order, str]]
) -> list[AcceptedJob]:
    """Write the answers to POSTs; return the jobs whose order was accepted."""
    transitions: list[tuple[SubmitClaim, Transition]] = []
    now = services.clock()
    for post in completed:
        with defer_to_reconciler([post.key.job_id]):
            transitions.append((post.key.claim, _transition_for(services, jitter, post, now)))
    return _write(services, transitions, within_s=0.0 if services.is_stopping() else REPLICATED_WITHIN_S)


def _transition_for(services: TaskContext, jitter: float, post: Completed[Order, str], now: float) -> Transition:
    claim, result = post.key.claim, post.result
    if isinstance(result, UpstreamError):
        hide_signature(result)
    refusal = _report_health(services, claim, result)
    if isinstance(result, UpstreamError):
        transition = decisions.not_accepted(claim, result, now, refusal)
    else:
        poll_in_s = services.polls.delay_for_age(0.0, duration_kind(claim.stage, post.key.model), jitter)
        transition = decisions.accepted(claim, result, now, poll_in_s, post.key.model)
    context = {
        "job": claim.job_id,
        "stage": str(claim.stage),
        "attempt": claim.attempt,
        "outcome": str(transition.to_state),
    }
    optional = {"task_id": transition.fields.get(task_field(claim.stage)), "reason": transition.reason}
    details = {name: value for name, value in optional.items() if value}
    log.info("submitted", extra={**context, **details, "duration": round(post.duration_s, 3)})
    return transition


def _report_health(services: TaskContext, claim: SubmitClaim, result: str | UpstreamError) -> Refusal | None:
    """Report what an answer says about upstream.

    The answer may have been paid for, so it is written even if Redis does not accept the report.
    """
    try:
        return services.health.report_order(claim.job_id, result)
    except RedisError as error:
        context = {"job": claim.job_id, "stage": str(claim.stage)}
        log.warning("could not report the answer to other workers: %s", type(error).__name__, extra=context)
        return None


def _write(
    services: TaskContext, transitions: Sequence[tuple[SubmitClaim, Transition]], within_s: float = 0.0
) -> list[AcceptedJob]:
    """Write the transitions that answers lead to, even after the claim has expired; return the accepted jobs.

    They are written again for `within_s` seconds until Redis's replicas have them.
    """
    if not transitions:
        return []
    accepted: list[AcceptedJob] = []
    with defer_to_reconciler([claim.job_id for claim, _ in transitions]):
        moves = [transition for _, transition in transitions]
        effects = services.store.apply_with_effects(moves, services.clock(), within_s)
        for (claim, transition), effect in zip(transitions, effects, strict=True):
            if effect and transition.refused:
                services.health.log_refusal(claim.job_id, transition.refused, effect)
            if (
                (effect or _write_late(services, claim, transition))
                and transition.to_state is State.PENDING
                and transition.due is not None
            ):
                poll_in_s = transition.due - services.clock()
                accepted.append(AcceptedJob(claim.job_id, transition.version + 1, transition.due, poll_in_s))
    return accepted


def _write_late(services: TaskContext, claim: SubmitClaim, transition: Transition) -> bool:
    """Record an answer whose transition no longer applies; return whether the job is in the state it leads to."""
    [job] = services.store.get([claim.job_id])
    if job is not None and job.attempt == claim.attempt:
        if job.state is transition.to_state and job.task_ids.get(claim.stage) == transition.fields.get(
            task_field(claim.stage)
        ):
            return True  # it was written; only the reply of Redis was lost
        if job.state is State.UNSURE and (better := decisions.answered_late(job, transition)):
            return services.store.apply_transitions([better], services.clock()) == [True]
    if (task_id := transition.fields.get(task_field(claim.stage))) is not None:
        order = ChargedOrder(claim.job_id, claim.stage, claim.attempt, task_id)
        named = record_charged_order(services.store, order, services.clock(), reason="late answer")
        if named is not OrderEffect.JOB_NOT_FOUND:
            return named is OrderEffect.CONTINUED
    # The text of the answer may be shown in the record only, so it is not logged.
    discarded = {
        name: value for name, value in transition.fields.items() if name != "upstream_response"
    } or transition.reason
    log.error("job has left the expected state: %s", discarded, extra={"job": claim.job_id, "stage": str(claim.stage)})
    return False
