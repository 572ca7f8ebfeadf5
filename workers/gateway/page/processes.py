"""The page of processes: their heartbeats, versions, load and queues. For keys of all namespaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from voicequeue.diagnostics.checkup import CLOCK_SKEW_MAX_S
from voicequeue.storage.celery_queues import TASK_QUEUES
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.heartbeats import DAY_S, HEARTBEAT_TIMEOUT_S, ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import consumed_queues, stalled_consumers
from workers.gateway.page.base import PageRenderer
from workers.gateway.page.services import PageServices
from workers.gateway.security.access import require_operator
from workers.process_info import ACTIVE_TASKS, CONCURRENCY, CPUS, IN_PROGRESS, LOAD

#: The order of the kinds of process on the page.
_ORDER = ("worker", "callbacks", "archive", "gateway", "idle")


@dataclass(frozen=True, slots=True)
class ConsumedQueue:
    """A queue that a process was started for. `idle_s` are the seconds since it last consumed it."""

    name: str
    idle_s: float
    is_stalled: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A process as the page shows it. A stale one has sent no heartbeat for 15 seconds: it was killed, hangs, or cannot
    reach Redis."""

    heartbeat: ProcessHeartbeat
    age_s: float
    queues: Sequence[ConsumedQueue]

    @property
    def is_stale(self) -> bool:
        """True if it counts as dead."""
        return self.age_s > HEARTBEAT_TIMEOUT_S

    @property
    def facts(self) -> Mapping[str, Any]:
        """Its facts by name; a process of an earlier release may lack some."""
        return self.heartbeat.facts

    @property
    def pid(self) -> int | None:
        """Its id on its host; None if it does not report it."""
        return self.facts.get("pid")

    @property
    def version(self) -> str:
        """Its release; empty if it does not report it."""
        return str(self.facts.get("version", ""))

    @property
    def started_at(self) -> float | None:
        """The time of its start (Unix seconds); None if it does not report it."""
        return self.facts.get("started")

    @property
    def tasks(self) -> str:
        """Its Celery tasks in progress and how many it runs at once; empty if it does not report them."""
        active, most = self.facts.get(ACTIVE_TASKS), self.facts.get(CONCURRENCY)
        return " / ".join(f"{number}" for number in (active, most) if number is not None)

    @property
    def jobs(self) -> int | None:
        """The number of jobs or callbacks in these tasks; None if it does not report it."""
        return self.facts.get(IN_PROGRESS)

    @property
    def load(self) -> str:
        """The load of its host, and the number of its processors; empty if it does not report it."""
        load, cpus = self.facts.get(LOAD), self.facts.get(CPUS)
        return "" if load is None else f"{load:.1f} / {cpus}"

    @property
    def warning(self) -> str:
        """Its faults besides those of its queues; empty if there are none."""
        ahead = self.heartbeat.clock_ahead_s
        direction = "ahead of" if ahead > 0 else "behind"
        clock = f"clock {abs(ahead):,.0f} s {direction} Redis's" if abs(ahead) > CLOCK_SKEW_MAX_S else ""
        return "; ".join(filter(None, [clock, self.heartbeat.storage_error]))


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """A queue of Celery: its messages, and how many running processes consume it. `idle_s` are the seconds since one of
    them last did; None if none does."""

    name: str
    messages: int | None
    consumers: int
    idle_s: float | None


def read_processes(store: JobStore, now: float) -> list[Process]:
    """Return the processes of the last day, running ones first. Raises RedisError."""
    heartbeats = [beat for kind in _ORDER for beat in store.heartbeats[kind].since(now - DAY_S)]
    processes = [Process(beat, max(0.0, now - beat.last_heartbeat), tuple(_queues(beat))) for beat in heartbeats]
    return sorted(processes, key=lambda it: (it.is_stale, _ORDER.index(it.heartbeat.kind), it.heartbeat.name))


def _queues(beat: ProcessHeartbeat) -> Iterator[ConsumedQueue]:
    stalled = {consumer.queue for consumer in stalled_consumers([beat])}
    for name, idle_s in consumed_queues(beat).items():
        yield ConsumedQueue(name, idle_s, name in stalled)


def summarize_queues(processes: Sequence[Process], messages: Mapping[str, int]) -> list[QueueSummary]:
    """Return a summary of each queue."""
    summaries = []
    for queue in TASK_QUEUES:
        running = [
            consumed.idle_s + process.age_s
            for process in processes
            for consumed in process.queues
            if consumed.name == queue.name and not process.is_stale and not consumed.is_stalled
        ]
        idle_s = min(running, default=None)
        summaries.append(QueueSummary(queue.name, messages.get(queue.name), len(running), idle_s))
    return summaries


def _show(store: JobStore, renderer: PageRenderer, request: Request) -> Response:
    with translated_errors():
        now = store.clock()
        processes = read_processes(store, now)
        names = [queue.name for queue in TASK_QUEUES]
        wrong_types = {wrong.queue for wrong in store.wrong_types(names)}
        messages = store.count_messages([name for name in names if name not in wrong_types])
    running = [process for process in processes if not process.is_stale]
    context = {
        "processes": processes,
        "running": len(running),
        "queues": summarize_queues(processes, messages),
        "versions": sorted({process.version for process in running if process.version}),
    }
    return renderer.render(request, "workers.html", context)


def router(services: PageServices) -> APIRouter:
    """Return the route, which needs the scope `read` and a key of all namespaces: processes serve all of them."""
    renderer = services.renderer
    routes = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @routes.get("/workers")
    def show(request: Request) -> Response:
        require_operator(request, "the list of processes")
        return _show(services.store, renderer, request)

    return routes
