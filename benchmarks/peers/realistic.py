"""Jobs that arrive at a steady rate, with the durations of MusicAPI: what a job costs, and how late its results are.

Everything is ten times as fast: a voice takes six seconds and a song twelve (medians of a log-normal distribution).
Other queues poll every two seconds, as their users would write it; voicequeue plans its polls from recent durations,
which all contestants have had in a warm-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median, quantiles

from redis import Redis

from benchmarks.peers.contestants import CONTESTANTS, COROUTINES, PROCESSES, Contestant, NotInstalled, install
from benchmarks.peers.crew import Crew, Producer
from benchmarks.peers.ground import Ground, Heat, on_ground, producing, working
from benchmarks.peers.race import START_S, WARM_TRICKLE, calls, checked, wait_until_done, warm_up

#: How much faster than MusicAPI upstream is, jobs a second that arrive, and for how many seconds.
SCALE, RATES, LASTING_S = 10.0, (2, 10, 50), 60.0

#: Jobs of the warm-up: more durations than a schedule needs.
WARM = 60

#: Seconds from the arrival of a job to its end, with a margin: as many jobs of each second run at once.
IN_FLIGHT_S = 28

#: Seconds between two looks at the results: each costs Redis a command.
LOOK_S = 0.5

HEAT = Heat(
    ready=(60 / SCALE, 120 / SCALE, 0.2),
    first_s=20 / SCALE,
    again_s=20 / SCALE,
    ours_s=(15 / SCALE, 25 / SCALE),
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
    """The results of a contestant by rate, and the reason if a rate has none."""

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
    try:
        install(contestant)
    except NotInstalled as error:
        return Realistic(contestant, error=f"not installed: {error}")
    arrivals: dict[int, Arrivals] = {}
    errors: list[str] = []
    for rate in rates:
        try:
            arrivals[rate] = _at_rate(contestant, rate)
        except (RuntimeError, TimeoutError) as error:
            errors.append(f"{rate} jobs a second failed: {error}")
    return Realistic(contestant, arrivals, "; ".join(errors))


def _at_rate(contestant: Contestant, rate: int) -> Arrivals:
    heat = replace(HEAT, coroutines=max(COROUTINES, rate * IN_FLIGHT_S // PROCESSES))
    with (
        on_ground(contestant, heat) as ground,
        working(contestant, ground) as crew,
        producing(contestant, ground) as producer,
    ):
        if contestant.is_ours:
            time.sleep(START_S)  # it would plan its polls for jobs that are ready at once
        else:  # a worker of saq that starts treats a longer first job as lost
            warm_up(contestant, ground, crew, producer, WARM_TRICKLE, heat)
        producer.enqueue("many", WARM, "durations")
        wait_until_done(contestant, ground, crew, "durations", WARM, interval_s=LOOK_S)
        return _arrivals(contestant, ground, crew, producer, rate)


def _arrivals(contestant: Contestant, ground: Ground, crew: Crew, producer: Producer, rate: int) -> Arrivals:
    """Enqueue jobs at this rate, and wait for the last one."""
    ground.reset(HEAT.ready)
    count = int(rate * LASTING_S)
    with Redis.from_url(ground.redis) as client:
        cpu, redis_cpu = crew.cpu(), _cpu_of(client)
        producer.enqueue("one", count, "arriving", 1 / rate)
        memory = wait_until_done(contestant, ground, crew, "arriving", count, interval_s=LOOK_S)
        cpu, redis_cpu = crew.cpu() - cpu, _cpu_of(client) - redis_cpu
    report = checked(ground, count)
    lateness = [late_s * SCALE for late_s in report["lateness"]]
    return Arrivals(cpu * 1000 / count, redis_cpu * 1000 / count, calls(report) / count, memory, lateness)


def _cpu_of(client: Redis) -> float:
    """Return the seconds of user and system time of Redis."""
    usage = client.info("cpu")
    return float(usage["used_cpu_user"]) + float(usage["used_cpu_sys"])
