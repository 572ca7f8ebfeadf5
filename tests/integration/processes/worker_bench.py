"""A worker's dispatcher and maintenance as plain objects, with the messages that they send."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from simulator.process import Simulator
from tasks.context import TaskContext
from tasks.musicapi import MusicApi
from voicequeue import Song, Stage, VoiceJob, VoiceQueue
from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.job_store import JobStore
from workers.dispatcher import Dispatcher
from workers.maintenance import Maintenance

SONG = Song(prompt="la la")


@dataclass
class Clock:
    """A clock that the test sets."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now


@dataclass
class WorkerBench:
    """The worker `w1` with chunks of four jobs, and the messages of all workers: tasks and job ids."""

    services: TaskContext
    clock: Clock
    messages: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dispatcher = self.another("w1")
        self.maintenance = self.maintain()

    @property
    def store(self) -> JobStore:
        """The store that all workers share."""
        return self.services.store

    def another(self, worker: str, **options: Any) -> Dispatcher:
        """Return the dispatcher of another worker."""
        return Dispatcher(
            self.services, lambda task, ids: self.messages.append((task, ids)), worker=worker, chunk=4, **options
        )

    def maintain(self, **options: Any) -> Maintenance:
        """Return another worker's maintenance."""
        return Maintenance(self.services, self.dispatcher.hand_out, **options)


@contextmanager
def worker_bench(store: JobStore, simulator: Simulator) -> Iterator[WorkerBench]:
    """Build a bench with ten slots."""
    clock = Clock()
    with closing(MusicApi(simulator.api_url, "key")) as upstream:
        store.flow_control.set_limits(in_flight=10)
        deadlines = dict.fromkeys(Stage, 60.0)
        services = TaskContext(
            store, upstream, PollSchedulePolicy(1, 1), Timeouts(redispatch_after_s=10), 4, deadlines, clock=clock
        )
        yield WorkerBench(services, clock)


def enqueue(queue: VoiceQueue, count: int) -> list[str]:
    """Enqueue voices with songs; return their ids."""
    return [
        queue.enqueue(VoiceJob(audio_url=f"https://a.example/{number}.wav", song=SONG)).id for number in range(count)
    ]
