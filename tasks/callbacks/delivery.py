"""The step behind `callback.deliver`: one attempt for each callback of a chunk that is due.

Each host has a lane of its own, so a slow receiver delays no other receiver of the chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError

from tasks.callbacks.host_limiter import Hosts
from tasks.callbacks.sender import Again, Answer, Delivered, Never, Sender
from voicequeue.domain import timeouts
from voicequeue.net.http_client import Refused, Target
from voicequeue.storage.callbacks import Call, Callbacks, Undeliverable
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.heartbeats import Pulses
from voicequeue.storage.monitoring.metrics import Tally

log = logging.getLogger("voicequeue")

#: Log events by the outcome of an attempt.
_EVENTS: Mapping[type, str] = {
    Delivered: "callback delivered",
    Again: "callback failed",
    Never: "callback refused",
}


@dataclass(frozen=True)
class CallbackServices:
    """The dependencies of callback delivery, one set per process."""

    callbacks: Callbacks
    pulses: Pulses
    tally: Tally
    sender: Sender
    hosts: Hosts
    threads: Executor
    patience: timeouts.CallbackPatience
    #: The queue's time (voicequeue/storage/connection/clock.py).
    clock: Clock


def deliver(services: CallbackServices, ids: Sequence[str]) -> None:
    """Attempt each of these callbacks that can be claimed, the lanes of their hosts in parallel."""
    lanes: dict[str, list[tuple[Call, Target]]] = {}
    deadline = time.monotonic() + services.patience.lane_s
    for claim in services.callbacks.claim(ids, services.clock(), lease=services.patience.lease_s):
        try:
            target = Target.of(claim.url())
        except (Refused, Undeliverable) as error:
            _give_up(services, claim, str(error), tried=False)
        else:
            lanes.setdefault(f"{target.host}:{target.port}", []).append((claim, target))
    list(services.threads.map(partial(_deliver_lane, services, deadline), lanes, lanes.values()))


def _deliver_lane(
    services: CallbackServices, deadline: float, host: str, claims: Iterable[tuple[Call, Target]]
) -> None:
    """Deliver one host's callbacks in sequence. Those not attempted by the deadline are due again at once.

    An attempt after it could outlast the claim, and another worker would send the callback too.
    """
    for claim, target in claims:
        try:
            if time.monotonic() > deadline:
                services.callbacks.later(claim.id, services.clock(), services.clock(), tried=False)
            else:
                _attempt(services, host, claim, target)
        except RedisError as error:
            # The callback is due again when its claim expires. Redis errors can quote the data: log the type only.
            log.error("cannot record the callback's outcome: %s", type(error).__name__, extra=_log_fields(claim))


def _attempt(services: CallbackServices, host: str, claim: Call, target: Target) -> None:
    if (due := services.hosts.enter(host, services.clock())) is not None:
        _postpone(services, claim, due)
        return
    started = time.monotonic()
    answer = _send(services, claim, target)
    is_there = not isinstance(answer, Again) or answer.host_is_there
    took = time.monotonic() - started
    services.tally.count("try", type(answer).__name__.lower())
    services.hosts.leave(host, services.clock(), is_there=is_there, took=took)
    log.info(_EVENTS[type(answer)], extra={**_log_fields(claim), "duration": round(took, 3)})
    _finish(services, claim, answer)


def _log_fields(claim: Call) -> dict[str, object]:
    subject = {"batch": claim.batch} if claim.job_id is None else {"job": claim.job_id}
    return {**subject, "callback": claim.id, "type": claim.type, "tries": claim.tries + 1}


def _send(services: CallbackServices, claim: Call, target: Target) -> Answer:
    try:
        return services.sender.send(claim, target, time.time())  # receivers compare it with their own clocks
    except Exception as error:  # a defect counts as an attempt; otherwise it would be retried forever
        log.exception("a defect", extra=_log_fields(claim))
        return Again(f"a defect of voicequeue: {type(error).__name__}")


def _postpone(services: CallbackServices, claim: Call, due: float) -> None:
    """Postpone the callback without an attempt, or give it up if its retry period is over."""
    now = services.clock()
    if now >= claim.since + services.patience.for_s:
        _give_up(services, claim, "the host does not respond, or is too slow for its callbacks", tried=False)
    else:
        services.callbacks.later(claim.id, now, due, tried=False)


def _finish(services: CallbackServices, claim: Call, answer: Answer) -> None:
    now = services.clock()
    match answer:
        case Delivered():
            services.callbacks.delivered(claim.id, now)
        case Never():
            _give_up(services, claim, answer.reason)
        case Again():
            due = services.patience.next_try(claim.since, claim.tries + 1, now, at_least=answer.after)
            if due is None:
                _give_up(services, claim, answer.reason)
            else:
                services.callbacks.later(claim.id, now, due, answer.reason, tried=True)


def _give_up(services: CallbackServices, claim: Call, reason: str, *, tried: bool = True) -> None:
    if services.callbacks.give_up(claim.id, services.clock(), reason, tried=tried):
        log.warning("callback undelivered: %s", reason, extra=_log_fields(claim))
