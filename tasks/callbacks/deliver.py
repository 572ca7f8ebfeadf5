"""The step behind `callback.deliver`: a chunk of callbacks, each tried once if it is its time.

One receiver's trouble never touches the others of the chunk: each host has a lane of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from redis.exceptions import RedisError

from tasks.callbacks.connections import Refused
from tasks.callbacks.courier import Again, Answer, Courier, Delivered, Never
from tasks.callbacks.hosts import Hosts
from voicequeue import flow
from voicequeue.callbacks import Call, Callbacks

log = logging.getLogger("voicequeue")


@dataclass(frozen=True)
class Desk:
    """What one process delivers with."""

    callbacks: Callbacks
    courier: Courier
    hosts: Hosts
    threads: Executor
    patience: flow.CallbackPatience
    clock: Callable[[], float] = field(default=time.time)


def deliver(desk: Desk, ids: Sequence[str]) -> None:
    """Try each of these that is still to be delivered."""
    calls = desk.callbacks.claim(ids, desk.clock(), lease=desk.patience.lease_s)
    lanes: dict[str, list[tuple[Call, str]]] = {}
    for call in calls:
        try:
            url = call.url()
            lanes.setdefault(desk.courier.host(url), []).append((call, url))
        except (Refused, ValueError):
            _settle(desk, call, Never("the job, or the URL to call back, is gone or cannot be read"))
    list(desk.threads.map(partial(_lane, desk), lanes, lanes.values()))


def _lane(desk: Desk, host: str, calls: Iterable[tuple[Call, str]]) -> None:
    """One host's callbacks, one after the other; what the time does not suffice for is due at once, again."""
    enough = time.monotonic() + desk.patience.lane_s
    for call, url in calls:
        try:
            if time.monotonic() > enough:
                desk.callbacks.later(call.id, desk.clock(), desk.clock(), tried=False)
            else:
                _try(desk, host, call, url)
        except Exception as error:
            # It is due again when its claim has run out. Redis quotes what it was sent: the name must do.
            log.error("callback %s: %r", call.id, type(error), exc_info=not isinstance(error, RedisError))


def _try(desk: Desk, host: str, call: Call, url: str) -> None:
    if (later := desk.hosts.enter(host, desk.clock())) is not None:
        _put_off(desk, call, later)
        return
    answer: Answer = Again("the try was cut short")
    began = time.monotonic()
    try:
        answer = desk.courier.send(call, url, desk.clock())
    finally:
        is_there = not isinstance(answer, Again) or answer.host_is_there
        desk.hosts.leave(host, desk.clock(), is_there=is_there, took=time.monotonic() - began)
    _settle(desk, call, answer)


def _put_off(desk: Desk, call: Call, later: float) -> None:
    """Without a try, unless its day is over."""
    now = desk.clock()
    if now >= call.since + desk.patience.for_s:
        _give_up(desk, call, "its host does not answer, or too slowly for all that it is sent", tried=False)
    else:
        desk.callbacks.later(call.id, now, later, tried=False)


def _settle(desk: Desk, call: Call, answer: Answer) -> None:
    now = desk.clock()
    match answer:
        case Delivered():
            desk.callbacks.delivered(call.id, now)
        case Never():
            _give_up(desk, call, answer.reason)
        case Again():
            due = desk.patience.next_try(call.since, call.tries + 1, now, at_least=answer.after)
            if due is None:
                _give_up(desk, call, answer.reason)
            else:
                desk.callbacks.later(call.id, now, due, answer.reason, tried=True)


def _give_up(desk: Desk, call: Call, reason: str, *, tried: bool = True) -> None:
    if desk.callbacks.give_up(call.id, desk.clock(), reason, tried=tried):
        log.warning("callback %s (%s): undelivered: %s", call.id, call.type, reason)
