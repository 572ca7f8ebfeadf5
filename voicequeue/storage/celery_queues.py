"""Celery's queues in Redis: the tasks that each one carries, and the process that consumes it.

The only list of them: routing, the workers, message validation and the doctor read it, and tests compare the
Procfile, the compose file and the registered tasks with it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskQueue:
    """A queue, the task (or the pattern of tasks) routed to it, and the process that consumes it.

    `process` is the name in the Procfile, and the kind of the process's heartbeat.
    """

    name: str
    task: str
    process: str


#: The queue that other programs write to.
INTAKE = "intake"

#: The queues of orders, whose answers may take half a minute, and of polls, which are due at a certain time.
SUBMIT, POLL = "submit", "poll"

#: One queue per kind of work. Callbacks and the archive wait for other people's servers: they have processes of their
#: own, so that polls never wait behind them.
TASK_QUEUES = (
    TaskQueue(SUBMIT, "*.submit", "worker"),
    TaskQueue(POLL, "*.poll", "worker"),
    TaskQueue(INTAKE, "voicequeue.enqueue", "worker"),
    TaskQueue("callbacks", "callback.deliver", "callbacks"),
    TaskQueue("archive", "song.archive", "archive"),
)

QUEUE_NAMES = tuple(queue.name for queue in TASK_QUEUES)


def consumed_by(process: str) -> tuple[str, ...]:
    """Return the names of the queues that a process consumes; empty for a process without queues."""
    return tuple(queue.name for queue in TASK_QUEUES if queue.process == process)
