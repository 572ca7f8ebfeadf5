"""The environment of a heat: its own Valkey and upstream, a contestant's workers, and its producer."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks.load import SONG
from benchmarks.peers.contestants import COROUTINES, Contestant
from benchmarks.peers.crew import Crew, Producer, environment
from config.settings import Settings
from tasks.musicapi.requests import persona_music
from workers.local.ports import free_port
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Valkey's file is kept in memory if possible, so that the disk does not affect the comparison.
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Heat:
    """The durations of orders and the intervals of polls, in seconds."""

    ready: tuple[float, ...]  # how long orders take: the arguments of `upstream.durations`
    first_s: float  # from an order to its first poll
    again_s: float  # from a poll to the next
    ours_s: tuple[float, float]  # the minimum and maximum interval of voicequeue's polls, which must be positive
    coroutines: int = COROUTINES  # per process, for queues that run a whole job in one


@dataclass(frozen=True, slots=True)
class Ground:
    """A fresh Valkey and upstream, and the environment variables of a contestant."""

    redis: str
    upstream: str
    log: Path
    env: dict[str, str]

    def report(self) -> dict[str, Any]:
        """Return upstream's counts since the last reset."""
        counts: dict[str, Any] = requests.get(f"{self.upstream}/report", timeout=20).json()
        return counts

    def reset(self, ready: tuple[float, ...]) -> None:
        """Reset upstream's counts, and set how long orders take."""
        requests.get(f"{self.upstream}/reset/{'/'.join(map(str, ready))}", timeout=5)

    def last_log_line(self) -> str:
        """Return the last line of the contestant's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "(no output)"


@contextmanager
def on_ground(contestant: Contestant, heat: Heat) -> Iterator[Ground]:
    """Start Valkey and upstream for a heat of this contestant."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, Supervisor(print_line=print) as supervisor:
        home = Path(folder)
        stack = Stack(supervisor, Settings(), home=home)
        redis = stack.start_valkey()
        port = free_port()
        start_upstream(stack, heat.ready, port)
        upstream = f"http://127.0.0.1:{port}"
        env = _env(contestant, heat, redis, upstream)
        yield Ground(redis, upstream, home / "contestant.log", environment(env, contestant.bin))


@contextmanager
def working(contestant: Contestant, ground: Ground) -> Iterator[Crew]:
    """Start the contestant's workers."""
    crew = Crew(contestant.workers, env=ground.env, cwd=contestant.cwd, log=ground.log)
    try:
        yield crew
    finally:
        crew.end()


@contextmanager
def producing(contestant: Contestant, ground: Ground) -> Iterator[Producer]:
    """Start the process that enqueues for the contestant."""
    producer = Producer(contestant.producer, env=ground.env, cwd=contestant.cwd, log=ground.log)
    try:
        yield producer
    finally:
        producer.end()


def start_upstream(stack: Stack, ready: tuple[float, ...], port: int) -> None:
    """Start the upstream whose orders take so long (`upstream.durations`), and wait until it answers."""
    durations = " ".join(map(str, ready))
    stack.start("upstream", f"exec python -m benchmarks.peers.upstream --port {port} --ready {durations}")
    deadline = time.monotonic() + 20
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/reset", timeout=1)
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise TimeoutError("the upstream does not start") from None
            time.sleep(0.02)
        else:
            return


def _env(contestant: Contestant, heat: Heat, redis: str, upstream: str) -> dict[str, str]:
    song = {name: value for name, value in persona_music("", SONG).items() if name != "persona_id"}
    env = {
        "RACE_REDIS": redis,
        "RACE_UPSTREAM": upstream,
        "RACE_FIRST_S": str(heat.first_s),
        "RACE_AGAIN_S": str(heat.again_s),
        "RACE_COROUTINES": str(heat.coroutines if contestant.is_whole else COROUTINES),
        "RACE_SONG": json.dumps(song),
        **contestant.env,
    }
    if contestant.is_ours:
        env |= {
            "REDIS_URL": redis,
            "MUSICAPI_BASE_URL": upstream,
            "VOICEQUEUE_POLL_MIN_INTERVAL_S": str(heat.ours_s[0]),
            "VOICEQUEUE_POLL_MAX_INTERVAL_S": str(heat.ours_s[1]),
        }
    return env
