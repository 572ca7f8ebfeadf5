"""Jobs with songs through two workers: CPU and requests per finished job."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import psutil
import requests

from benchmarks.load import jobs
from voicequeue import State, VoiceQueue
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

JOBS = 500
WORKERS = 2
ROUNDS = 3

#: Orders are ready after a second and polled every 0.5 to 1 s.
DIALS: Mapping[str, object] = {"voice_s": 1, "music_s": 1, "jitter": 0, "credits": 100_000_000}
PACE: Mapping[str, str] = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.5",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "1",
    "VOICEQUEUE_MAX_IN_FLIGHT": str(JOBS),
    "VOICEQUEUE_INITIAL_IN_FLIGHT": str(JOBS),
}


def measure(url: str, stack: Stack, supervisor: Supervisor, count: int = JOBS) -> dict[str, float]:
    """Return the CPU of all worker processes (user + system, ms) and the requests to upstream, per finished job.

    The figures are medians over rounds after a warm-up round.
    """
    _, control = stack.start_simulator(DIALS)
    names = stack.start_workers(WORKERS)
    pids = [pid for name in names if (pid := supervisor.pid(name)) is not None]
    with VoiceQueue(url, namespace="*") as queue:
        _run(queue, "warm", count)
        rounds = [_round(queue, f"round-{number}", count, control, pids) for number in range(ROUNDS)]
    ledger = requests.get(f"{control}/ledger", timeout=30).json()
    jobs_done = count * (ROUNDS + 1)
    if ledger["double_charges"] or ledger["credits_spent"] != 19 * jobs_done:
        raise RuntimeError(f"{jobs_done} jobs cost {ledger['credits_spent']}, twice: {ledger['double_charges']}")
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}
    return {**medians, "memory of all workers, MB": _memory(pids) / 1e6}


def _round(queue: VoiceQueue, batch: str, count: int, control: str, pids: Sequence[int]) -> dict[str, float]:
    calls, cpu, started = _calls(control), _cpu(pids), time.perf_counter()
    _run(queue, batch, count)
    seconds, cpu = time.perf_counter() - started, _cpu(pids) - cpu
    return {
        "CPU of all workers, ms per finished job": cpu * 1000 / count,
        "requests to upstream, per finished job": (_calls(control) - calls) / count,
        "jobs finished per second": count / seconds,
    }


def _run(queue: VoiceQueue, batch: str, count: int) -> None:
    queue.enqueue_many(jobs(count, batch))
    deadline = time.monotonic() + 120
    while (batch_counts := queue.batch(batch)).states[State.SUCCEEDED] < count:
        if time.monotonic() > deadline or batch_counts.states[State.FAILED] or batch_counts.states[State.UNSURE]:
            raise RuntimeError(f"not every job succeeded: {batch_counts}")
        time.sleep(0.05)


def _calls(control: str) -> int:
    return int(sum(requests.get(f"{control}/ledger?charges=0", timeout=5).json()["calls"].values()))


def _family(pids: Sequence[int]) -> list[psutil.Process]:
    mains = [psutil.Process(pid) for pid in pids]
    return mains + [child for main in mains for child in main.children(recursive=True)]


def _cpu(pids: Sequence[int]) -> float:
    """Return CPU seconds, ended children included."""
    return sum(sum(process.cpu_times()[:4]) for process in _family(pids))


def _memory(pids: Sequence[int]) -> int:
    return int(sum(process.memory_full_info().uss for process in _family(pids)))
