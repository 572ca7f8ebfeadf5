"""Celery's consumer, for queues into which other programs write, and for workers that do much.

Celery drops what is no task of its own, and logs all that was in it. Here it is kept among the
rejected messages with the reason, and the log has its name and id alone. Other programs reach one task, and no other.

Celery tells Flower of its tasks at each turn of its loop, a few events at once; here twice a second, all of them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import RedisError, ResponseError

from config.celeryconfig import BROKER_TRANSPORT_OPTIONS
from tasks.enqueue import ENQUEUE, only_argument
from voicequeue.errors import DISCREET_MAX, InvalidJob, Problem
from voicequeue.storage.celery_queues import INTAKE, QUEUE_NAMES
from voicequeue.storage.connection import no_later_than
from voicequeue.storage.rejected_messages import RejectedMessage
from workers.clock import WAIT_S, event_loop_time, timer_time
from workers.dependencies import services
from workers.held_messages import Waiting
from workers.message_validation import JSON, fault, instant, name_and_id

log = logging.getLogger("voicequeue.consumer")

#: A message that waits for longer (seconds) would be delivered again, and wait twice.
ETA_MAX_S = float(BROKER_TRANSPORT_OPTIONS["visibility_timeout"])

#: After so many seconds the event loop tries to note the message again.
AGAIN_S = 2.0


#: How long (seconds) what tasks do may wait until it is told with what others do.
TOLD_AFTER_S = 0.5


class Consumer(CeleryConsumer):
    """Looks at each message before Celery does, and tells of many tasks at once."""

    hub: Any
    timer: Any
    strategies: Any
    connection_errors: Any
    _will_tell = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Gossip would carry out tasks that a publication names, and Mingle would forget messages by others' lists.
        super().__init__(*args, **{**kwargs, "without_gossip": True, "without_mingle": True})
        self._waiting = Waiting()

    def start(self) -> None:
        """Work until the end. An error that a key of a wrong type causes is logged with that key and its cure."""
        try:
            super().start()
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                for wrong in services().store.wrong_types(QUEUE_NAMES):
                    log.critical("%s; %s", wrong, wrong.cure)
            raise

    def on_close(self) -> None:
        """Forget what waits for its `eta`: it is delivered again."""
        super().on_close()
        self._waiting = Waiting()

    def update_strategies(self) -> None:
        """Prepare what takes the messages of each task but Celery's own. An `eta` is the queue's time."""
        super().update_strategies()
        ours = {name: take for name, take in self.strategies.items() if not name.startswith("celery.")}
        self.strategies = {name: partial(take, to_timestamp=timer_time) for name, take in ours.items()}

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # Celery has no types
        """There is something to tell."""
        if self.hub and not self._will_tell:
            self._will_tell = True
            self.hub.call_later(TOLD_AFTER_S, self._flush_events)

    def _flush_events(self) -> None:
        self._will_tell = False
        super()._flush_events()  # type: ignore[misc]

    def shutdown(self) -> None:
        """End, when what there is to tell was told."""
        self._flush_events()
        super().shutdown()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """What is called with each message."""
        take = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if reason := self._fault(message):
                self.refuse(message, reason)
            else:
                take(message)

        return on_task_received

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002  Celery's signature
        """Celery cannot make a request of it."""
        self.refuse(message, "its headers or options cannot be used")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """kombu cannot open it: a compression that is not there, for instance."""
        self.refuse(message, f"the body cannot be decoded: {type(exc).__name__}")

    def _fault(self, message: Any) -> str | InvalidJob:
        payload = message.payload if message.content_type == JSON else None
        task, now = message.headers.get("task"), event_loop_time()
        reason = fault(
            message.headers,
            message.content_type,
            payload,
            known=(ENQUEUE,) if message.delivery_info["routing_key"] == INTAKE else self.strategies,
            now=now,
            eta_max_s=ETA_MAX_S if task == ENQUEUE else math.inf,
        )
        found = reason or fault_of_arguments(task, payload)
        return found or (self._fault_of_wait(message, now) if task == ENQUEUE else "")

    def _fault_of_wait(self, message: Any, now: float) -> str:
        """Count a message that waits for its `eta`, unless this worker holds too many; say so then."""
        at = instant(message.headers.get("eta"))
        if at is None or self._waiting.add(at.timestamp(), len(message.body), now=now):
            return ""
        return "eta: too many messages wait for theirs; send it later, or without eta and countdown"

    def refuse(self, message: Any, reason: str | InvalidJob) -> None:
        """Keep the message among the rejected ones with all of the reason; only then does it leave its queue."""
        try:
            with no_later_than(time.monotonic() + WAIT_S):
                rejected = _rejected(message, str(reason))
                services().store.rejects.add(rejected)
        except RedisError as error:
            log.warning("a message cannot be noted as rejected yet: %s", type(error).__name__)
            self.timer.call_after(AGAIN_S, self.refuse, (message, reason))
            return
        logged = reason.discreet() if isinstance(reason, InvalidJob) else reason[:DISCREET_MAX]
        log.warning("rejected message %r to task %r: %s", rejected.message_id[:60], rejected.task[:60], logged)
        message.reject_log_error(log, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=None)


def fault_of_arguments(task: str, payload: Any) -> InvalidJob | None:
    """Return what Celery cannot call the task with: names of the sender's, such as `self`, or what are no ids."""
    args, named = payload[:2]
    if task == ENQUEUE:
        try:
            only_argument(args, named)
        except InvalidJob as error:
            return error
        return None
    are_ids = len(args) == 1 and isinstance(args[0], list) and all(isinstance(each, str) for each in args[0])
    return None if are_ids and not named else InvalidJob([Problem("", "the only argument must be a list of ids")])


def _rejected(message: Any, reason: str) -> RejectedMessage:
    """What is kept of it: of the job, what can be read."""
    try:
        payload: Any = message.payload
    except Exception:  # it is why the message is rejected
        payload = None
    name, message_id = name_and_id(message.headers, payload)
    return RejectedMessage(event_loop_time(), message_id, name, reason, message.body if payload is None else payload)
