"""The step behind `callback.deliver`: one attempt for each callback of a chunk that is due.

Each host has a lane of its own for each namespace, so a slow receiver delays no other receiver of the chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError

from tasks.callbacks.host_limiter import HostLimiter
from tasks.callbacks.sender import Delivered, PermanentFailure, Sender, SendResult, TemporaryFailure
from tasks.callbacks.signing import CallbackSigner, NotSignableError
from voicequeue.domain import timeouts
from voicequeue.domain.namespaces import namespace_of
from voicequeue.net.http_types import Target, UrlNotAllowed
from voicequeue.storage.callbacks import CallbackClaim, CallbackOutbox, UndeliverableError
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.heartbeats import Heartbeats
from voicequeue.storage.monitoring.metrics import MetricsCounter

log = logging.getLogger("voicequeue")

#: The outcome of an attempt (a label of its metric) and the log event, by result.
_OUTCOMES: Mapping[type, tuple[str, str]] = {
    Delivered: ("delivered", "callback delivered"),
    TemporaryFailure: ("retry", "callback failed"),
    PermanentFailure: ("failed", "callback refused"),
}


@dataclass(frozen=True)
class CallbackServices:
    """The dependencies of callback delivery, one set per process."""

    callbacks: CallbackOutbox
    heartbeats: Heartbeats
    metrics: MetricsCounter
    signer: CallbackSigner
    sender: Sender
    host_limiter: HostLimiter
    threads: Executor
    timeouts: timeouts.CallbackTimeouts
    #: The queue's time (voicequeue/storage/connection/clock.py).
    clock: Clock


def deliver(services: CallbackServices, ids: Sequence[str]) -> None:
    """Attempt each of these callbacks that can be claimed, the lanes of their hosts in parallel."""
    lanes: dict[str, list[tuple[CallbackClaim, Target]]] = {}
    deadline = time.monotonic() + services.timeouts.start_window_s
    for claim in services.callbacks.claim(ids, services.clock(), lease_s=services.timeouts.lease_s):
        try:
            target = Target.parse(claim.url())
        except (UrlNotAllowed, UndeliverableError) as error:
            _give_up(services, claim, str(error), tried=False)
        else:
            # A lane for each namespace: one that makes a host fail does not delay the callbacks of others to it.
            lane = f"{namespace_of(claim.batch)}/{target.host}:{target.port}"
            lanes.setdefault(lane, []).append((claim, target))
    list(services.threads.map(partial(_deliver_lane, services, deadline), lanes, lanes.values()))


def _deliver_lane(
    services: CallbackServices, deadline: float, host: str, claims: Iterable[tuple[CallbackClaim, Target]]
) -> None:
    """Deliver one host's callbacks in sequence. Those not attempted by the deadline are due again at once.

    An attempt after it could outlast the claim, and another worker would send the callback too.
    """
    for claim, target in claims:
        try:
            if time.monotonic() > deadline:
                services.callbacks.schedule_retry(claim.id, services.clock(), services.clock(), is_attempted=False)
            else:
                _attempt(services, host, claim, target)
        except RedisError as error:
            # The callback is due again when its claim expires. Redis errors can quote the data: log the type only.
            log.error("cannot record the callback's outcome: %s", type(error).__name__, extra=_log_fields(claim))


def _attempt(services: CallbackServices, host: str, claim: CallbackClaim, target: Target) -> None:
    try:
        secrets = services.signer.secrets(claim, target, services.clock())
    except (NotSignableError, UndeliverableError) as error:
        _hold(services, claim, str(error))
        return
    if (due := services.host_limiter.try_acquire(host, services.clock())) is not None:
        _postpone(services, claim, due)
        return
    started = time.monotonic()
    answer = _send(services, claim, target, secrets)
    is_there = not isinstance(answer, TemporaryFailure) or answer.is_host_available
    took = time.monotonic() - started
    outcome, event = _OUTCOMES[type(answer)]
    services.metrics.increment("callback_attempt", outcome)
    services.host_limiter.release(host, services.clock(), is_available=is_there, took_s=took)
    log.info(event, extra={**_log_fields(claim), "duration": round(took, 3)})
    _finish(services, claim, answer)


def _log_fields(claim: CallbackClaim) -> dict[str, object]:
    subject = {"batch": claim.batch} if claim.job_id is None else {"job": claim.job_id}
    return {**subject, "callback_id": claim.id, "event_type": claim.type, "attempts": claim.attempts + 1}


def _hold(services: CallbackServices, claim: CallbackClaim, reason: str) -> None:
    """Keep a callback that cannot be signed until it can be, without a request. It is not given up."""
    now = services.clock()
    due = services.timeouts.next_attempt_at(claim.deliverable_since, claim.attempts + 1, now)
    services.metrics.increment("callback_attempt", "unsigned")
    log.error("callback cannot be signed: %s", reason, extra=_log_fields(claim))
    services.callbacks.schedule_retry(
        claim.id, now, due or now + services.timeouts.backoff_max_s, reason, is_attempted=True
    )


def _send(services: CallbackServices, claim: CallbackClaim, target: Target, secrets: Sequence[str]) -> SendResult:
    try:
        return services.sender.send(claim, target, secrets, time.time())  # receivers compare it with their own clocks
    except Exception as error:  # a defect counts as an attempt; otherwise it would be retried forever
        log.exception("a defect", extra=_log_fields(claim))
        return TemporaryFailure(f"a defect of voicequeue: {type(error).__name__}")


def _postpone(services: CallbackServices, claim: CallbackClaim, due: float) -> None:
    """Postpone the callback without an attempt, or give it up if its retry period is over."""
    now = services.clock()
    if now >= claim.deliverable_since + services.timeouts.give_up_after_s:
        _give_up(services, claim, "the host does not respond, or is too slow for its callbacks", tried=False)
    else:
        services.callbacks.schedule_retry(claim.id, now, due, is_attempted=False)


def _finish(services: CallbackServices, claim: CallbackClaim, answer: SendResult) -> None:
    now = services.clock()
    match answer:
        case Delivered():
            services.callbacks.mark_delivered(claim.id, now)
        case PermanentFailure():
            _give_up(services, claim, answer.reason)
        case TemporaryFailure():
            due = services.timeouts.next_attempt_at(
                claim.deliverable_since, claim.attempts + 1, now, min_delay_s=answer.retry_after_s
            )
            if due is None:
                _give_up(services, claim, answer.reason)
            else:
                services.callbacks.schedule_retry(claim.id, now, due, answer.reason, is_attempted=True)


def _give_up(services: CallbackServices, claim: CallbackClaim, reason: str, *, tried: bool = True) -> None:
    if services.callbacks.mark_undelivered(claim.id, services.clock(), reason, is_attempted=tried):
        log.warning("callback undelivered: %s", reason, extra=_log_fields(claim))
