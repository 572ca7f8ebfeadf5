"""The memory of jobs in flight: their voices are ordered, none is ready, each is polled every 20 s.

Measured when upstream has received the last order: the memory of all worker processes, and the growth of Valkey since
a hundred jobs were in flight (by then every process has imported its modules). Queues that run a whole job in one
coroutine need as many coroutines as jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from redis import Redis

from benchmarks.peers.contestants import CONTESTANTS, Contestant, NotInstalled, install
from benchmarks.peers.crew import Crew
from benchmarks.peers.ground import Ground, Heat, on_ground, producing, working
from benchmarks.peers.race import START_S

#: Jobs in flight, and the timeout until ten thousand are, in seconds; it scales with the number of jobs.
JOBS, TIMEOUT_S = 10_000, 90.0

#: Jobs that are in flight from the start and are not counted.
WARM = 100

#: Seconds between an order and its polls, as in production, and until an order is ready.
POLLS_S, READY_S = 20.0, 36_000.0


@dataclass(frozen=True, slots=True)
class Flight:
    """The result of a contestant: jobs in flight, seconds until they were, and memory (bytes)."""

    contestant: Contestant
    jobs: int = 0
    seconds: float = 0.0
    idle: int = 0  # memory of the workers before
    memory: int = 0  # and with all jobs in flight
    redis: int = 0  # growth of Valkey
    error: str = ""

    @property
    def together(self) -> int:
        """Memory of the workers plus the growth of Valkey, in bytes."""
        return self.memory + self.redis


def run(jobs: int, only: Sequence[str], say: Callable[[str], None]) -> list[Flight]:
    """Measure all contestants, or the named ones, one after the other."""
    return [_run_one(contestant, jobs, say) for contestant in CONTESTANTS if not only or contestant.name in only]


def timeout_s(jobs: int) -> float:
    """Return the timeout for this number of jobs, in seconds."""
    return TIMEOUT_S * max(jobs / JOBS, 0.1)


def _run_one(contestant: Contestant, jobs: int, say: Callable[[str], None]) -> Flight:
    try:
        install(contestant)
        flight = _measure(contestant, jobs)
    except NotInstalled as error:
        flight = Flight(contestant, error=f"not installed: {error}")
    except (RuntimeError, OSError) as error:
        flight = Flight(contestant, error=f"failed: {error}")
    say(f"{contestant.name}: {flight.jobs:,} in flight after {flight.seconds:.0f} s {flight.error}")
    return flight


def _measure(contestant: Contestant, jobs: int) -> Flight:
    coroutines = min(jobs + WARM, contestant.max_coroutines)
    heat = Heat(
        ready=(READY_S, READY_S), first_s=POLLS_S, again_s=POLLS_S, ours_s=(POLLS_S, POLLS_S), coroutines=coroutines
    )
    with (
        ThreadPoolExecutor(1) as executor,
        on_ground(contestant, heat) as ground,
        Redis.from_url(ground.redis) as client,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        time.sleep(START_S)
        producer.enqueue("many", WARM, "warm")
        if error := _wait(ground, crew, WARM, time.perf_counter() + timeout_s(WARM)):
            raise RuntimeError(f"while warming up: {error}")
        time.sleep(START_S)
        idle, used = crew.memory(), _used(client)
        started = time.perf_counter()
        executor.submit(producer.enqueue, "many", jobs, "flight")  # which may exceed the timeout
        error = _wait(ground, crew, WARM + jobs, started + timeout_s(jobs))
        seconds, memory, growth = time.perf_counter() - started, crew.memory(), _used(client) - used
        report = ground.report()
        if report["doubles"] or report["strays"]:
            error += f"; doubles {report['doubles']}, strays {report['strays']}"
        return Flight(contestant, report["voices"] - WARM, seconds, idle, memory, growth, error.strip("; "))


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _wait(ground: Ground, crew: Crew, orders: int, deadline: float) -> str:
    """Wait until upstream has received this many orders; return the error, or ''."""
    while (order_count := ground.report()["voices"]) < orders:
        if not crew.is_alive():
            return f"a worker has exited: {ground.last_log_line()}"
        if time.perf_counter() > deadline:
            return f"{orders - order_count:,} were not in flight before the timeout"
        time.sleep(0.2)
    return ""
