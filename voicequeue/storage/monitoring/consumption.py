"""Consumption: whether the running processes consume Celery's queues, as they report with their heartbeats.

A heartbeat says that a process runs. Whether it also consumes is another question: its connection may be lost without
a sign, its event loop may hang, or its consumer may have been cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voicequeue.storage.celery_queues import TASK_QUEUES, consumed_by
from voicequeue.storage.heartbeats import ProcessHeartbeat

#: A running process consumes each of its queues about every second. After this many seconds it is stalled.
STALLED_AFTER_S = 60.0

#: The fact of a process: when it last consumed each queue that it was started for (Unix seconds by the queue's clock):
#: Redis answered its read, with a message or without, or it had as many messages as it may hold.
CONSUMED = "consumed"

#: The fact of a process: those of these queues whose consumer was cancelled.
CANCELLED = "cancelled"

#: The fact of a process: since when it sends heartbeats without a gap. What it could not consume before does not count.
STEADY_SINCE = "steady_since"


@dataclass(frozen=True, slots=True)
class StalledConsumer:
    """A running process that does not consume a queue although it was started for it.

    Attributes:
        process: The process.
        queue: Name of the queue.
        is_cancelled: True if the consumer was cancelled.
        idle_s: Seconds since the process last consumed the queue.
    """

    process: ProcessHeartbeat
    queue: str
    is_cancelled: bool
    idle_s: float

    def __str__(self) -> str:
        if self.is_cancelled:
            return f"{self.process.name} no longer consumes the queue {self.queue}: its consumer was cancelled"
        return f"{self.process.name} has not consumed the queue {self.queue} for {self.idle_s:,.0f} s"


def consumed_queues(process: ProcessHeartbeat) -> Mapping[str, float]:
    """Return the queues that a process was started for, and the seconds from their last consumption to its heartbeat.

    A process of a release that does not report them counts as one that consumes the queues of its kind.
    """
    times: Mapping[str, Any] = process.facts.get(CONSUMED) or dict.fromkeys(
        consumed_by(process.kind), process.last_heartbeat
    )
    return {queue: max(0.0, process.last_heartbeat - at) for queue, at in times.items()}


def stalled_consumers(processes: Iterable[ProcessHeartbeat]) -> list[StalledConsumer]:
    """Return the consumers that are cancelled or stalled, of running processes."""
    return [stalled for process in processes for stalled in _stalled(process)]


def _stalled(process: ProcessHeartbeat) -> Iterator[StalledConsumer]:
    steady_s = process.last_heartbeat - process.facts.get(STEADY_SINCE, 0.0)
    for queue, idle_s in sorted(consumed_queues(process).items()):
        is_cancelled = queue in process.facts.get(CANCELLED, ())
        if is_cancelled or min(idle_s, steady_s) > STALLED_AFTER_S:
            yield StalledConsumer(process, queue, is_cancelled, idle_s)


def unconsumed_queues(
    processes: Sequence[ProcessHeartbeat], messages: Mapping[str, int], kinds: Iterable[str] = ("worker",)
) -> list[str]:
    """Return the queues of these kinds of process that no running process consumes, although one was started for it or
    messages wait in it. `messages` is the number of messages by queue."""
    stalled = {(consumer.process.name, consumer.queue) for consumer in stalled_consumers(processes)}
    started = {(process.name, queue) for process in processes for queue in consumed_queues(process)}
    consumed = {queue for _, queue in started - stalled}
    expected = {queue for _, queue in started} | {queue for queue, count in messages.items() if count}
    return [queue.name for queue in TASK_QUEUES if queue.process in kinds and queue.name in expected - consumed]
