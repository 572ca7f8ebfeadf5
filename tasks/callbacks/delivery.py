"""The step behind `callback.deliver`: a chunk of callbacks, each tried once if it is its time.

One receiver's trouble never touches the others of the chunk: each host has a lane of its own.
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


@dataclass(frozen=True)
class CallbackServices:
    """What one process delivers callbacks with."""

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
    """Try each of these that is still to be delivered."""
    lanes: dict[str, list[tuple[Call, Target]]] = {}
    enough = time.monotonic() + services.patience.lane_s
    for call in services.callbacks.claim(ids, services.clock(), lease=services.patience.lease_s):
        try:
            target = Target.of(call.url())
        except (Refused, Undeliverable) as error:
            _give_up(services, call, str(error), tried=False)
        else:
            lanes.setdefault(f"{target.host}:{target.port}", []).append((call, target))
    list(services.threads.map(partial(_lane, services, enough), lanes, lanes.values()))


def _lane(services: CallbackServices, enough: float, host: str, calls: Iterable[tuple[Call, Target]]) -> None:
    """One host's callbacks, one after the other; what is not begun by then is due at once, again.

    Its claim would run out, and somebody else send it as well.
    """
    for call, target in calls:
        try:
            if time.monotonic() > enough:
                services.callbacks.later(call.id, services.clock(), services.clock(), tried=False)
            else:
                _try(services, host, call, target)
        except RedisError as error:
            # It is due again when its claim has run out. Redis quotes what it was sent: the name must do.
            log.error("left to its next time: %s", type(error).__name__, extra=_about(call))


def _try(services: CallbackServices, host: str, call: Call, target: Target) -> None:
    if (later := services.hosts.enter(host, services.clock())) is not None:
        _put_off(services, call, later)
        return
    began = time.monotonic()
    answer = _sent(services, call, target)
    is_there = not isinstance(answer, Again) or answer.host_is_there
    took = time.monotonic() - began
    services.tally.count("try", type(answer).__name__.lower())
    services.hosts.leave(host, services.clock(), is_there=is_there, took=took)
    log.info("callback %s", _TOLD[type(answer)], extra={**_about(call), "duration": round(took, 3)})
    _settle(services, call, answer)


_TOLD: Mapping[type, str] = {Delivered: "delivered", Again: "failed", Never: "refused"}


def _about(call: Call) -> dict[str, object]:
    of = {"batch": call.batch} if call.job_id is None else {"job": call.job_id}
    return {**of, "callback": call.id, "type": call.type, "tries": call.tries + 1}


def _sent(services: CallbackServices, call: Call, target: Target) -> Answer:
    try:
        return services.sender.send(call, target, time.time())  # receivers compare it with their clocks
    except Exception as error:  # a defect of ours: it counts as a try, or it would be tried for ever
        log.exception("a defect", extra=_about(call))
        return Again(f"a defect of voicequeue: {type(error).__name__}")


def _put_off(services: CallbackServices, call: Call, later: float) -> None:
    """Without a try, unless its day is over."""
    now = services.clock()
    if now >= call.since + services.patience.for_s:
        _give_up(services, call, "its host does not answer, or too slowly for all that it is sent", tried=False)
    else:
        services.callbacks.later(call.id, now, later, tried=False)


def _settle(services: CallbackServices, call: Call, answer: Answer) -> None:
    now = services.clock()
    match answer:
        case Delivered():
            services.callbacks.delivered(call.id, now)
        case Never():
            _give_up(services, call, answer.reason)
        case Again():
            due = services.patience.next_try(call.since, call.tries + 1, now, at_least=answer.after)
            if due is None:
                _give_up(services, call, answer.reason)
            else:
                services.callbacks.later(call.id, now, due, answer.reason, tried=True)


def _give_up(services: CallbackServices, call: Call, reason: str, *, tried: bool = True) -> None:
    if services.callbacks.give_up(call.id, services.clock(), reason, tried=tried):
        log.warning("callback undelivered: %s", reason, extra=_about(call))
