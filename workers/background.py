"""Background threads of a worker's main process, and the dispatcher of a leased outbox that runs in one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from celery import Celery, bootsteps
from celery.platforms import EX_FAILURE
from celery.worker import state

from voicequeue.errors import StoreFormatError
from voicequeue.storage.heartbeats import Heartbeats
from voicequeue.storage.outbox import Outbox
from workers.messaging.consumption import consumption
from workers.messaging.task_progress import task_facts
from workers.process_info import host_facts

log = logging.getLogger("voicequeue.dispatcher")

#: Sends a message with these ids to the Celery task of that name.
Publish = Callable[[str, list[str]], None]

#: Returns the facts of a heartbeat at this time of the queue's clock.
FactsAt = Callable[[float], Mapping[str, Any]]


def no_facts(now: float) -> Mapping[str, Any]:  # noqa: ARG001  the signature of FactsAt
    """Return no facts."""
    return {}


def facts_of(app: Celery, queues: Set[str], constant: Mapping[str, Any]) -> FactsAt:
    """Return the facts of a process of this app: `constant` ones, its tasks, the load of its host, and when it last
    consumed those of the `queues` that it was started for."""
    started = [queue for queue in app.amqp.queues.consume_from if queue in queues]
    consumption.start(started)
    return lambda now: {**constant, **consumption.facts(started, now), **task_facts(), **host_facts()}


def publish(app: Celery, task: str, ids: list[str]) -> None:
    """Send a message that carries ids and nothing else."""
    app.send_task(task, args=(ids,))


def chunks(ids: list[str], size: int) -> Iterator[list[str]]:
    """Split the ids into lists of at most `size`."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def run_safely(step: Callable[[], None]) -> bool:
    """Run a step and log its error; return whether it succeeded. The next round tries again.

    Raises StoreFormatError.
    """
    try:
        step()
    except StoreFormatError:  # the queue was upgraded: this release must not use it
        raise
    except Exception as error:  # entries and jobs that it claimed are due again when the claim expires
        log.warning("a background step failed: %s: %s", type(error).__name__, error)
        return False
    return True


class Interval:
    """A timer that is due once every `seconds`, at once for the first time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self) -> bool:
        """Return whether the interval is over; if it is, start the next one."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class BackgroundStep(bootsteps.StartStopStep):
    """Runs a loop in a thread of the worker's main process, from start to stop, independently of the broker.

    The worker exits if the loop cannot start or fails: otherwise it would consume messages without sending heartbeats.
    """

    requires = ("celery.worker.components:Pool",)

    #: Only workers that consume one of these queues run the loop.
    queues: ClassVar[Set[str]] = frozenset()

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self.stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, worker: Any) -> bool:
        """Return whether this worker consumes one of `queues`."""
        return bool(self.queues & set(worker.app.amqp.queues.consume_from))

    def prepare(self, app: Celery, worker: str, processes: int) -> Callable[[], None] | None:
        """Return the loop, which runs until `stopping` is set; None if this worker needs none.

        `worker` is the worker's name, `processes` the number of processes that run its tasks.
        """
        raise NotImplementedError

    def start(self, worker: Any) -> None:
        """Start the loop before the worker consumes its first message."""
        try:
            loop = self.prepare(worker.app, worker.hostname, worker.concurrency)
        except (Exception, SystemExit) as error:
            log.critical("the background thread cannot start, so the worker exits: %s: %s", type(error).__name__, error)
            raise SystemExit(EX_FAILURE) from None
        if loop is not None:
            self._thread = threading.Thread(target=self._run, args=(loop,), name="background", daemon=True)
            self._thread.start()

    def _run(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except StoreFormatError as error:
            log.critical("the worker exits: %s", error)
            state.should_stop = EX_FAILURE  # type: ignore[assignment]  # a flag or an exit code
        except BaseException as error:
            log.critical("the background thread failed, so the worker exits: %s", type(error).__name__, exc_info=True)
            state.should_stop = EX_FAILURE  # type: ignore[assignment]  # a flag or an exit code

    def close(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """Stop handing out work when the worker begins to stop."""
        self.stopping.set()

    def stop(self, worker: Any) -> None:
        """End the loop while the worker's tasks finish."""
        self.terminate(worker)

    def terminate(self, worker: Any) -> None:  # noqa: ARG002  Celery's signature
        """End the loop before a cold shutdown."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)


@dataclass(frozen=True)
class IdleProcess:
    """Sends the heartbeats of a process that has nothing to do by its settings."""

    heartbeats: Heartbeats
    clock: Callable[[], float]
    worker: str
    facts: FactsAt

    def send_heartbeat(self) -> None:
        """Record that the process runs."""
        now = self.clock()
        self.heartbeats.record(self.worker, now, self.facts(now))

    def run_until(self, stopping: threading.Event, interval_s: float) -> None:
        """Send a heartbeat every `interval_s` seconds until `stopping` is set, then remove it."""
        while not stopping.is_set():
            run_safely(self.send_heartbeat)
            stopping.wait(interval_s)
        run_safely(partial(self.heartbeats.remove, self.worker))


@dataclass(frozen=True)
class LeaseDispatcher:
    """Hands out the due entries of a leased outbox and sends the process's heartbeats.

    Messages go to the Celery task `task` with at most `chunk` ids each. An entry that no worker claims within `lease_s`
    seconds is handed out again. `worker` and `facts` (of the queue's time) describe the process in its heartbeats.
    """

    outbox: Outbox[Any]
    publish: Publish
    task: str
    chunk: int
    lease_s: float
    heartbeats: Heartbeats
    clock: Callable[[], float]
    worker: str
    facts: FactsAt = no_facts
    #: Runs with each heartbeat.
    upkeep: Callable[[], None] | None = None

    def run_once(self) -> None:
        """Send a heartbeat and hand out what is due."""
        now = self.clock()
        self.heartbeats.record(self.worker, now, self.facts(now))
        for chunk in chunks(self.outbox.lease(now, lease_s=self.lease_s), self.chunk):
            self.publish(self.task, chunk)

    def run_until(self, stopping: threading.Event, interval_s: float) -> None:
        """Run every `interval_s` seconds until `stopping` is set, then remove the heartbeat."""
        while not stopping.is_set():
            run_safely(self.run_once)
            if self.upkeep is not None:
                run_safely(self.upkeep)
            stopping.wait(interval_s)
        run_safely(partial(self.heartbeats.remove, self.worker))
