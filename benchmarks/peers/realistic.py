"""Jobs that arrive at a steady rate, with the durations of MusicAPI: what a job costs, and how late its results are.

Everything is ten times as fast: a voice takes six seconds and a song twelve (medians of a log-normal distribution).
Other queues poll every two seconds, as their users would write it; voicequeue plans its polls from recent durations,
which all contestants have had in a warm-up. One set of processes serves all rates, one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from redis import Redis

from benchmarks.peers.contestants import CONTESTANTS, Contestant, NotInstalled, install
from benchmarks.peers.crew import Crew, Producer
from benchmarks.peers.ground import Ground, Heat, on_ground, producing, working
from benchmarks.peers.race import calls, checked, wait_until_done

#: How much faster than MusicAPI upstream is, jobs a second that arrive, and for how many seconds.
SCALE, RATES, LASTING_S = 10.0, (2, 10, 50), 60.0

#: Jobs of the warm-up: more durations than a schedule needs. Seconds for workers to start before: a worker of saq that
#: starts treats a job that another one is about to start as lost.
WARM, START_S = 60, 5.0

#: Jobs that run at once at most, a rate of one: none takes longer than this many seconds.
IN_FLIGHT_S = 40

#: Seconds between two looks at the results: each costs Redis a command.
LOOK_S = 0.5

HEAT = Heat(
    ready=(60 / SCALE, 120 / SCALE, 0.2),
    first_s=20 / SCALE,
    again_s=20 / SCALE,
    ours_s=(15 / SCALE, 25 / SCALE),
    coroutines=max(RATES) * IN_FLIGHT_S,
)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The result for a rate: CPU in ms per job, calls per job, memory in bytes, lateness in seconds of MusicAPI."""

    cpu_ms: float
    redis_cpu_ms: float
    calls: float
    memory: int
    lateness: Sequence[float]

    @property
    def late_p50(self) -> float:
        """The median lateness."""
        return median(self.lateness)

    @property
    def late_p95(self) -> float:
        """The lateness that 95 % of the results do not exceed."""
        return quantiles(self.lateness, n=20)[-1]


@dataclass(frozen=True, slots=True)
class Realistic:
    """The results of a contestant by rate, and why a rate or all of them have none."""

    contestant: Contestant
    arrivals: Mapping[int, Arrivals] = field(default_factory=dict)
    error: str = ""


def run(rates: Sequence[int], only: Sequence[str], say: Callable[[str], None]) -> Iterator[Realistic]:
    """Measure all contestants, or the named ones, one after the other."""
    for contestant in CONTESTANTS:
        if not only or contestant.name in only:
            say(f"{contestant.name}: {', '.join(map(str, rates))} jobs a second")
            yield _run_one(contestant, rates)


def _run_one(contestant: Contestant, rates: Sequence[int]) -> Realistic:
    arrivals: dict[int, Arrivals] = {}
    try:
        install(contestant)
        with (
            on_ground(contestant, HEAT) as ground,
            working(contestant, ground) as crew,
            producing(contestant, ground) as producer,
        ):
            time.sleep(START_S)
            producer.enqueue("many", WARM, "warm")
            wait_until_done(contestant, ground, crew, "warm", WARM, interval_s=LOOK_S)
            for rate in rates:
                arrivals[rate] = _arrivals(contestant, ground, crew, producer, rate)
    except NotInstalled as error:
        return Realistic(contestant, error=f"not installed: {error}")
    except (RuntimeError, TimeoutError) as error:
        return Realistic(contestant, arrivals, f"failed: {error}")
    return Realistic(contestant, arrivals)


def _arrivals(contestant: Contestant, ground: Ground, crew: Crew, producer: Producer, rate: int) -> Arrivals:
    """Enqueue jobs at this rate, and wait for the last one."""
    ground.reset(HEAT.ready)
    batch, count = f"rate-{rate}", int(rate * LASTING_S)
    with Redis.from_url(ground.redis) as client:
        cpu, redis_cpu = crew.cpu(), _cpu_of(client)
        producer.enqueue("one", count, batch, 1 / rate)
        memory = wait_until_done(contestant, ground, crew, batch, count, interval_s=LOOK_S)
        cpu, redis_cpu = crew.cpu() - cpu, _cpu_of(client) - redis_cpu
    report = checked(ground, count)
    lateness = [late_s * SCALE for late_s in report["lateness"]]
    return Arrivals(cpu * 1000 / count, redis_cpu * 1000 / count, calls(report) / count, memory, lateness)


def _cpu_of(client: Redis) -> float:
    """Return the seconds of user and system time of Redis."""
    usage = client.info("cpu")
    return float(usage["used_cpu_user"]) + float(usage["used_cpu_sys"])
