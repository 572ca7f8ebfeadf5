"""Celery's consumer, adapted to queues that other programs write to and to workers with many tasks.

Celery drops messages for unknown tasks and logs their whole content. This consumer stores them with the reason as
rejected messages, and logs only the task name and id. Other programs can call one task only.

Celery sends task events to Flower at each turn of its loop, a few at once; this consumer sends all of them once a
second.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals
from celery.concurrency import solo
from celery.worker.consumer import Consumer as CeleryConsumer
from redis.exceptions import RedisError, ResponseError

from config.celeryconfig import BROKER_TRANSPORT_OPTIONS
from tasks.enqueue import ENQUEUE_TASK, job_argument
from voicequeue.errors import REDACTED_MAX, InvalidJobError, Problem
from voicequeue.storage.celery_queues import INTAKE, POLL, QUEUE_NAMES
from voicequeue.storage.connection.retry import retry_until
from voicequeue.storage.rejected_messages import RejectedMessage
from workers.background import Interval
from workers.clock import EVENT_LOOP_WAIT_S, event_loop_time, to_monotonic
from workers.dependencies import services
from workers.lifeline import lifeline
from workers.messaging import redis_transport
from workers.messaging.consumption import consumption
from workers.messaging.held_messages import DelayedMessages
from workers.messaging.message_validation import JSON, parse_instant, task_name_and_id, validation_error
from workers.messaging.submit_slots import SubmitSlots, submit_processes

log = logging.getLogger("voicequeue.consumer")

#: The longest time ahead of an `eta`, in seconds: a message held for longer would be delivered again.
ETA_MAX_S = float(BROKER_TRANSPORT_OPTIONS["visibility_timeout"])

#: Seconds until another attempt to store a rejected message.
RETRY_DELAY_S = 2.0

#: Seconds for which task events are collected before they are sent together.
EVENTS_DELAY_S = 1.0

#: Seconds between two records of turns of the loop, of which there are several for each message.
TURN_RECORD_S = 0.1


class Consumer(CeleryConsumer):
    """Validates each message before Celery does, and sends task events in groups."""

    hub: Any
    timer: Any
    strategies: Any
    connection_errors: Any
    task_consumer: Any
    on_task_request: Any
    pool: Any
    qos: Any
    _is_flush_scheduled = False
    #: None without an event loop.
    _slots: SubmitSlots | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Gossip would run tasks that a broadcast names, and Mingle would revoke messages that other workers list.
        super().__init__(*args, **{**kwargs, "without_gossip": True, "without_mingle": True})
        self._delayed = DelayedMessages()
        self._turn_record = Interval(TURN_RECORD_S)
        if isinstance(self.pool, solo.TaskPool):
            self.on_task_request = partial(_run_here, self.on_task_request)
        if self.hub:
            self._share_processes()

    def _share_processes(self) -> None:
        """Keep one process of this worker free for polls, if it polls."""
        slots = SubmitSlots(
            self.on_task_request,
            limit=self._submit_processes,
            change_limit=self._change_message_limit,
        )
        self._slots, self.on_task_request = slots, slots.add
        self.hub.on_tick.add(self._hand_on_submits)
        redis_transport.Channel.paused_queues = slots.paused_queues

    def _change_message_limit(self, by: int) -> None:
        """Change the number of messages that this worker may hold."""
        (self.qos.increment_eventually if by > 0 else self.qos.decrement_eventually)(abs(by))

    def _submit_processes(self) -> int:
        processes: int = self.pool.num_processes
        return submit_processes(processes) if POLL in self.app.amqp.queues.consume_from else processes

    def _hand_on_submits(self) -> None:
        """Hand on submit tasks that wait, at each turn of the loop; a pool of processes sends them with this turn."""
        if self._slots and self._slots.hand_on() and hasattr(self.pool._pool, "on_poll_start"):
            self.pool._pool.on_poll_start()

    def start(self) -> None:
        """Consume until the worker stops. If a key of a wrong type causes an error, log that key and the remedy."""
        try:
            super().start()
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                for wrong_type in services().store.wrong_types(QUEUE_NAMES):
                    log.critical("%s; %s", wrong_type, wrong_type.cure)
            raise

    def register_with_event_loop(self, hub: Any) -> None:
        """Connect to the event loop, and record its turns."""
        super().register_with_event_loop(hub)
        hub.on_tick.add(self._record_turn)

    def _record_turn(self) -> None:
        # A worker that stops cancels its consumers itself.
        if not self._turn_record.is_due() or self.task_consumer is None or lifeline.is_cut():
            return
        channel = self.task_consumer.channel
        consumption.turn(channel.active_queues, is_full=not channel.qos.can_consume())
        if self._slots:
            consumption.record(self._slots.paused_queues())  # it is busy with messages of these queues

    def on_close(self) -> None:
        """Forget messages that wait for their `eta`: Redis delivers them again."""
        super().on_close()
        self._delayed = DelayedMessages()
        if self._slots:
            self._slots.forget_waiting()

    def update_strategies(self) -> None:
        """Prepare the handlers of our tasks; Celery's own tasks have none. An `eta` is a time of the queue's clock."""
        super().update_strategies()
        ours = {name: handler for name, handler in self.strategies.items() if not name.startswith("celery.")}
        self.strategies = {name: partial(handler, to_timestamp=to_monotonic) for name, handler in ours.items()}

    def on_send_event_buffered(self) -> None:  # type: ignore[override]  # Celery has no types
        """Schedule the sending of buffered events."""
        if self.hub and not self._is_flush_scheduled:
            self._is_flush_scheduled = True
            self.hub.call_later(EVENTS_DELAY_S, self._flush_events)

    def _flush_events(self) -> None:
        self._is_flush_scheduled = False
        super()._flush_events()  # type: ignore[misc]

    def shutdown(self) -> None:
        """Send the buffered events and stop."""
        self._flush_events()
        super().shutdown()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return the function that is called with each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if reason := self._validation_error(message):
                self.reject_message(message, reason)
            else:
                handle(message)

        return on_task_received

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:  # noqa: ARG002  Celery's signature
        """Reject a message from which Celery cannot build a request."""
        self.reject_message(message, "its headers or options are not usable")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject a message that kombu cannot decode, for example because of an unknown compression."""
        self.reject_message(message, f"the body cannot be decoded: {type(exc).__name__}")

    def _validation_error(self, message: Any) -> str | InvalidJobError:
        payload = message.payload if message.content_type == JSON else None
        task, now = message.headers.get("task"), event_loop_time()
        reason = validation_error(
            message.headers,
            message.content_type,
            payload,
            task_names=(ENQUEUE_TASK,) if message.delivery_info["routing_key"] == INTAKE else self.strategies,
            now=now,
            eta_max_s=ETA_MAX_S if task == ENQUEUE_TASK else math.inf,
        )
        error = reason or argument_error(task, payload)
        return error or (self._delay_error(message, now) if task == ENQUEUE_TASK else "")

    def _delay_error(self, message: Any, now: float) -> str:
        """Count a message that waits for its `eta`; return an error if this worker holds too many already."""
        at = parse_instant(message.headers.get("eta"))
        if at is None or self._delayed.add(at.timestamp(), len(message.body), now=now):
            return ""
        return "eta: too many delayed messages are waiting; send the message later, or without eta and countdown"

    def reject_message(self, message: Any, reason: str | InvalidJobError) -> None:
        """Store the message with the full reason as rejected; remove it from its queue only after that."""
        try:
            with retry_until(time.monotonic() + EVENT_LOOP_WAIT_S):
                rejected = _rejected(message, str(reason))
                services().store.rejected_messages.add(rejected)
        except RedisError as error:
            log.warning("a rejected message cannot be stored yet: %s", type(error).__name__)
            self.timer.call_after(RETRY_DELAY_S, self.reject_message, (message, reason))
            return
        logged = reason.redacted() if isinstance(reason, InvalidJobError) else reason[:REDACTED_MAX]
        log.warning("rejected message %r to task %r: %s", rejected.message_id[:60], rejected.task[:60], logged)
        message.reject_log_error(log, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=None)


def _run_here(process: Callable[[Any], None], request: Any) -> None:
    """Run a task in this process, however long it takes (`--pool solo`)."""
    with consumption.busy():
        process(request)


def argument_error(task: str, payload: Any) -> InvalidJobError | None:
    """Return the error in the arguments of a task, such as a keyword `self` or ids that are not text; else None."""
    args, kwargs = payload[:2]
    if task == ENQUEUE_TASK:
        try:
            job_argument(args, kwargs)
        except InvalidJobError as error:
            return error
        return None
    are_ids = len(args) == 1 and isinstance(args[0], list) and all(isinstance(item, str) for item in args[0])
    return None if are_ids and not kwargs else InvalidJobError([Problem("", "the only argument must be a list of ids")])


def _rejected(message: Any, reason: str) -> RejectedMessage:
    """Return the record of a rejected message, with as much of the job as can be read."""
    try:
        payload: Any = message.payload
    except Exception:  # the reason for the rejection
        payload = None
    name, message_id = task_name_and_id(message.headers, payload)
    return RejectedMessage(event_loop_time(), message_id, name, reason, message.body if payload is None else payload)
