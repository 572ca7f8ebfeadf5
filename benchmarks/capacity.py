"""The cost of a job for Redis and the workers through its whole life, for docs/explanation/scaling.md.

Jobs that are enqueued together and jobs that arrive one at a time take turns. The figures are counts, bytes and
processor times, on which other programs of the machine have less effect than on durations. The cost of an idle queue is
measured first, and subtracted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from redis import Redis
from rich.table import Table

from benchmarks.load import jobs
from benchmarks.running_stack import RunningStack, running_stack
from voicequeue import VoiceQueue
from voicequeue.storage.connection.client import connect

#: Rounds of each kind, jobs of a round that are enqueued together, and those that arrive one at a time, per second.
ROUNDS, TOGETHER, ONE_BY_ONE, PER_S = 3, 2_000, 200, 10

#: Jobs before the first round, and seconds of an idle queue.
WARM, IDLE_S = 400, 20.0

#: Production on a time scale ten times as fast: seconds until an order is ready, and between its polls.
READY_S, POLLS = (2.0, 4.0), ("1.5", "2.5")
_ENV = {"VOICEQUEUE_POLL_MIN_INTERVAL_S": POLLS[0], "VOICEQUEUE_POLL_MAX_INTERVAL_S": POLLS[1]}

#: The workers, and their children.
WORKERS, CHILDREN = 1, 2

#: A run fails if jobs are unfinished after this time, in seconds.
TIMEOUT_S = 300.0

#: A figure that is not a rate, and those of enqueueing that belong to other jobs.
_MEMORY = "bytes of memory"
_OF_LATER = ("CPU of the workers, ms", "CPU of upstream, ms", "polls")

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The time (monotonic seconds), and all counters so far."""

    at: float
    counters: Figures

    def since(self, before: Snapshot, count: float, idle: Figures) -> Figures:
        """Return the increase per job, without that of an idle queue."""
        seconds = self.at - before.at
        return {
            name: (value - before.counters[name] - idle.get(name, 0.0) * seconds) / count
            for name, value in self.counters.items()
        }


def tables() -> Iterator[Table]:
    """Yield the costs per job, of an idle queue, and of the append-only file."""
    with (
        running_stack(READY_S, workers=WORKERS, children=CHILDREN, env=_ENV) as stack,
        VoiceQueue(stack.redis, namespace="*") as queue,
        connect(stack.redis) as redis,
    ):
        redis.config_set("auto-aof-rewrite-percentage", 0)  # its size shall only grow
        Bench(stack, queue, redis, {}).together("warm", WARM)
        idle = Bench(stack, queue, redis, {}).idle()
        bench = Bench(stack, queue, redis, idle)
        enqueued, together, one_by_one = [], [], []
        for number in range(ROUNDS):
            first, whole = bench.together(f"together-{number}", TOGETHER)
            enqueued.append(first)
            together.append(whole)
            one_by_one.append(bench.one_by_one(f"single-{number}", ONE_BY_ONE))
        yield _table("per job", {"enqueueing": enqueued, "together": together, "one by one": one_by_one})
        yield _table("per second", {"an idle queue": [idle]})
        yield _table("the file", {"": [bench.rewrite()]})


def _table(title: str, columns: Mapping[str, Sequence[Figures]]) -> Table:
    table = Table(title, *columns)
    names = dict.fromkeys(name for rounds in columns.values() for figures in rounds for name in figures)
    for name in names:
        table.add_row(name, *(_cell(rounds, name) for rounds in columns.values()))
    return table


def _cell(rounds: Sequence[Figures], name: str) -> str:
    """Return the median of the rounds; the lowest processor time, which other programs only increase."""
    values = [figures[name] for figures in rounds if name in figures]
    combine = min if name.startswith("CPU") else statistics.median
    return f"{combine(values):,.2f}" if values else ""


@dataclass(frozen=True, slots=True)
class Bench:
    """A running queue whose costs are measured."""

    stack: RunningStack
    queue: VoiceQueue
    redis: Redis
    idle_costs: Figures

    def together(self, batch: str, count: int) -> tuple[Figures, Figures]:
        """Enqueue jobs while the queue is paused, then let all finish; return the costs of both parts."""
        self.queue.pause()
        producer, before = psutil.Process().cpu_times(), self._snapshot()
        self.queue.enqueue_many(jobs(count, batch))
        own, queued = psutil.Process().cpu_times(), self._snapshot()
        spent = own.user + own.system - producer.user - producer.system
        self.queue.resume()
        self._wait_for(batch)
        enqueueing = {"CPU of the producer, ms": spent * 1000 / count, **queued.since(before, count, self.idle_costs)}
        whole = self._snapshot().since(before, count, self.idle_costs)
        return {name: value for name, value in enqueueing.items() if name not in _OF_LATER}, whole

    def one_by_one(self, batch: str, count: int) -> Figures:
        """Enqueue jobs at a steady rate, and return their costs."""
        before, started = self._snapshot(), time.monotonic()
        for number, job in enumerate(jobs(count, batch)):
            time.sleep(max(0.0, started + number / PER_S - time.monotonic()))
            self.queue.enqueue(job)
        self._wait_for(batch)
        return self._snapshot().since(before, count, self.idle_costs)

    def idle(self) -> Figures:
        """Return the costs of a queue without jobs, per second."""
        before = self._snapshot()
        time.sleep(IDLE_S)
        costs = self._snapshot().since(before, IDLE_S, {})
        return {name: cost for name, cost in costs.items() if name != _MEMORY}

    def rewrite(self) -> Figures:
        """Rewrite the append-only file, as Redis does when it has doubled."""
        size = self._info("persistence")["aof_current_size"]
        count = sum(self.queue.status().states.values())
        self.redis.bgrewriteaof()
        _until(lambda: not self._info("persistence")["aof_rewrite_in_progress"])
        info = self._info("persistence")
        return {
            "jobs": count,
            "bytes per job, before": size / count,
            "bytes per job, rewritten": info["aof_base_size"] / count,
            "seconds to rewrite": info["aof_last_rewrite_time_sec"],
            "MB copied meanwhile": info["aof_last_cow_size"] / 1e6,
        }

    def _snapshot(self) -> Snapshot:
        info = self._info("everything")
        commands = {name: stats["calls"] for name, stats in info.items() if name.startswith("cmdstat_")}
        scripts = sum(calls for name, calls in commands.items() if name.startswith(("cmdstat_eval", "cmdstat_fcall")))
        counters = {
            **{f"CPU of {part}, ms": spent * 1000 for part, spent in self.stack.cpu().items()},
            "scripts": scripts,
            "commands, also of scripts": sum(commands.values()),
            "event loop cycles": info["eventloop_cycles"],
            "bytes received": info["total_net_input_bytes"],
            "bytes sent": info["total_net_output_bytes"],
            "bytes appended to the file": info["aof_current_size"],
            _MEMORY: info["used_memory"],
            "polls": self.stack.report()["polls"],
        }
        return Snapshot(time.monotonic(), counters)

    def _info(self, section: str) -> dict[str, Any]:
        return self.redis.info(section)

    def _wait_for(self, batch: str) -> None:
        _until(lambda: self.queue.batch(batch).is_settled)


def _until(is_reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not is_reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished within {TIMEOUT_S:.0f} s")
        time.sleep(0.2)
