"""Where a heat is run: a Valkey and an upstream of its own, a contestant's workers, and who enqueues."""

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

#: Valkey's file lies in memory where that can be: what is compared is queues, not what else the disk has to do.
MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Heat:
    """How long orders take, and how often they are asked about (seconds)."""

    ready: tuple[float, float]  # the shortest and the longest
    first_s: float  # from an order to its first poll
    again_s: float  # from a poll to the next
    ours_s: float  # both for voicequeue, which has no "at once"
    coroutines: int = COROUTINES  # in each process, for those of whom one does a whole job


@dataclass(frozen=True, slots=True)
class Ground:
    """A fresh Valkey and a fresh upstream, and the environment in which a contestant finds them."""

    redis: str
    upstream: str
    log: Path
    env: dict[str, str]

    def report(self) -> dict[str, Any]:
        """What upstream saw since the last reset."""
        found: dict[str, Any] = requests.get(f"{self.upstream}/report", timeout=20).json()
        return found

    def reset(self, ready: tuple[float, float]) -> None:
        """Have upstream forget what it saw; orders take so long from now on (seconds)."""
        low, high = ready
        requests.get(f"{self.upstream}/reset/{low}/{high}", timeout=5)

    def last_words(self) -> str:
        """The last line that the contestant wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"


@contextmanager
def on_ground(contestant: Contestant, heat: Heat) -> Iterator[Ground]:
    """A ground for a heat of this contestant."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, Supervisor(say=print) as supervisor:
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
    """The contestant's workers."""
    crew = Crew(contestant.workers, env=ground.env, cwd=contestant.cwd, log=ground.log)
    try:
        yield crew
    finally:
        crew.end()


@contextmanager
def producing(contestant: Contestant, ground: Ground) -> Iterator[Producer]:
    """The process that enqueues for it."""
    producer = Producer(contestant.producer, env=ground.env, cwd=contestant.cwd, log=ground.log)
    try:
        yield producer
    finally:
        producer.end()


def start_upstream(stack: Stack, ready: tuple[float, float], port: int) -> None:
    """Start the upstream whose orders take so long (shortest and longest, in seconds) and wait until it answers."""
    low, high = ready
    stack.start("upstream", f"exec python -m benchmarks.peers.upstream --port {port} --ready {low} {high}")
    give_up = time.monotonic() + 20
    while True:
        try:
            requests.get(f"http://127.0.0.1:{port}/reset", timeout=1)
        except requests.RequestException:
            if time.monotonic() > give_up:
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
            "VOICEQUEUE_POLL_MIN_S": str(heat.ours_s),
            "VOICEQUEUE_POLL_MAX_S": str(heat.ours_s),
        }
    return env
