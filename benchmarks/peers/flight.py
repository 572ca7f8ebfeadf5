"""What jobs cost that are in flight: their voices are ordered, none is ready, each is asked about every 20 s.

Measured at the moment when upstream has seen the last order: the memory of all worker processes, and what Valkey
holds more than when a hundred were in flight, which is the beginning, for by then everybody has imported what he
needs. Where a coroutine does a whole job there have to be as many coroutines as jobs.
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

#: Jobs in flight, and seconds that ten thousand may take until all are; fewer and more in proportion.
JOBS, PATIENCE_S = 10_000, 90.0

#: Jobs that are in flight before; they stay there, and are not counted.
WARM = 100

#: Seconds from an order to its first poll and from a poll to the next, as in production; and until it is ready.
POLLS_S, READY_S = 20.0, 36_000.0


@dataclass(frozen=True, slots=True)
class Flight:
    """What was found: how many were in flight after how long, and what they took (bytes)."""

    contestant: Contestant
    jobs: int = 0
    seconds: float = 0.0
    idle: int = 0  # the workers' memory before
    memory: int = 0  # and with all in flight
    redis: int = 0  # by which Valkey has grown
    trouble: str = ""

    @property
    def together(self) -> int:
        """Bytes of the workers and of what Valkey has grown by."""
        return self.memory + self.redis


def run(jobs: int, only: Sequence[str], say: Callable[[str], None]) -> list[Flight]:
    """Let all contestants, or those named, get so many jobs into flight, one after the other."""
    return [_flown(each, jobs, say) for each in CONTESTANTS if not only or each.name in only]


def patience_s(jobs: int) -> float:
    """Seconds that so many jobs may take."""
    return PATIENCE_S * max(jobs / JOBS, 0.1)


def _flown(contestant: Contestant, jobs: int, say: Callable[[str], None]) -> Flight:
    try:
        install(contestant)
        found = _fly(contestant, jobs)
    except NotInstalled as error:
        found = Flight(contestant, trouble=f"not installed: {error}")
    except (RuntimeError, OSError) as error:
        found = Flight(contestant, trouble=f"failed: {error}")
    say(f"{contestant.name}: {found.jobs:,} in flight after {found.seconds:.0f} s {found.trouble}")
    return found


def _fly(contestant: Contestant, jobs: int) -> Flight:
    coroutines = min(jobs + WARM, contestant.most)
    heat = Heat(ready=(READY_S, READY_S), first_s=POLLS_S, again_s=POLLS_S, ours_s=POLLS_S, coroutines=coroutines)
    with (
        ThreadPoolExecutor(1) as aside,
        on_ground(contestant, heat) as ground,
        Redis.from_url(ground.redis) as client,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        time.sleep(START_S)
        producer.tell("many", WARM, "warm")
        if trouble := _wait(ground, crew, WARM, time.perf_counter() + patience_s(WARM)):
            raise RuntimeError(f"while warming up: {trouble}")
        time.sleep(START_S)
        idle, used = crew.memory(), _used(client)
        began = time.perf_counter()
        aside.submit(producer.tell, "many", jobs, "flight")  # which may take longer than there is time
        trouble = _wait(ground, crew, WARM + jobs, began + patience_s(jobs))
        seconds, memory, grown = time.perf_counter() - began, crew.memory(), _used(client) - used
        report = ground.report()
        if report["doubles"] or report["strays"]:
            trouble += f"; doubles {report['doubles']}, strays {report['strays']}"
        return Flight(contestant, report["voices"] - WARM, seconds, idle, memory, grown, trouble.strip("; "))


def _used(client: Redis) -> int:
    return int(client.info("memory")["used_memory"])


def _wait(ground: Ground, crew: Crew, orders: int, give_up: float) -> str:
    """Wait until upstream has seen so many orders; why it has not, else nothing."""
    while (seen := ground.report()["voices"]) < orders:
        if not crew.is_alive():
            return f"a worker has died: {ground.last_words()}"
        if time.perf_counter() > give_up:
            return f"{orders - seen:,} were not in flight when its time was over"
        time.sleep(0.2)
    return ""
