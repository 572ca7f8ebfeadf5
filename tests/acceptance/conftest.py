"""Whole systems: Valkey, the simulator and workers as processes, started by the commands of the Procfile."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis

from config.settings import Settings
from tests.support.cli import run_in_process
from voicequeue import Song, State, VoiceJob, VoiceQueue
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Intervals of fractions of a second, and a large balance.
FAST: Mapping[str, str] = {
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.3",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "0.5",
    "VOICEQUEUE_DISPATCH_INTERVAL_S": "0.1",
    "VOICEQUEUE_MAINTENANCE_INTERVAL_S": "0.3",
    "VOICEQUEUE_OVERDUE_AFTER_S": "1",
    "VOICEQUEUE_SUBMIT_LEASE_S": "4",
    "VOICEQUEUE_COOLDOWN_S": "0.3",
    "VOICEQUEUE_TASK_CHUNK_SIZE": "10",
    "VOICEQUEUE_INITIAL_IN_FLIGHT": "100",
}
DIALS: Mapping[str, object] = {"voice_s": 0.5, "music_s": 0.5, "jitter": 0.3, "credits": 1_000_000}

SECRET = "key-that-must-stay-secret"
LYRICS = "[Verse]\nlyrics that must stay secret"


@dataclass(frozen=True)
class System:
    """The processes of one queue, with access to its Redis, its simulator and its logs."""

    stack: Stack
    supervisor: Supervisor
    redis_url: str
    control: str
    workers: list[str]
    home: Path
    web: str | None = None
    prefix: str = DEFAULT_PREFIX

    @property
    def key(self) -> Mapping[str, str]:
        """Headers with the gateway's local token."""
        return {"Authorization": f"Bearer {self.stack.gateway_token()}"}

    def page_url(self, path: str = "/") -> str:
        """Return the URL of a page with the local token, as `make up` prints it."""
        return f"{self.web}{path}{'&' if '?' in path else '?'}token={self.stack.gateway_token()}"

    def queue(self) -> VoiceQueue:
        """Connect as a producer."""
        return VoiceQueue(self.redis_url, prefix=self.prefix, namespace="*")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `voicequeue` with these arguments in this process."""
        return run_in_process(self.redis_url, *arguments)

    def dial(self, **dials: object) -> None:
        """Set the simulator's dials."""
        requests.patch(f"{self.control}/dials", json=dials, timeout=5).raise_for_status()

    def reset(self) -> System:
        """Reset the simulator's dials and ledger. All jobs must be settled."""
        self.dial(**DIALS, post_faults={}, get_faults={})
        requests.post(f"{self.control}/reset", timeout=5).raise_for_status()
        return self

    def ledger(self) -> dict[str, Any]:
        """Return the simulator's ledger: requests and charges."""
        ledger: dict[str, Any] = requests.get(f"{self.control}/ledger", timeout=5).json()
        return ledger

    def logs(self) -> str:
        """Return the logs of all workers."""
        return "".join((self.home / "log" / f"{name}.log").read_text() for name in self.workers)


Build = Callable[..., System]


def _builder(resources: ExitStack, home: Path) -> Build:
    numbers = count()

    def _build(
        *,
        workers: int = 2,
        web: bool = False,
        password: str | None = None,
        dials: Mapping[str, object] | None = None,
        beside: System | None = None,
        prefix: str = DEFAULT_PREFIX,
        **env: str,
    ) -> System:
        supervisor = resources.enter_context(Supervisor())
        folder = home / f"system{next(numbers)}"
        stack = Stack(
            supervisor,
            Settings(_env_file=None, prefix=prefix),
            home=folder,
            env={**FAST, "MUSICAPI_KEY": SECRET, "VOICEQUEUE_PREFIX": prefix, **env},
        )
        redis_url = beside.redis_url if beside else stack.start_valkey()
        stack.use_redis(redis_url)
        if password:
            redis_url = _protected(redis_url, password)
            stack.use_redis(redis_url)
        _, control = stack.start_simulator({**DIALS, **(dials or {})})
        address = stack.start_gateway(webhooks=True) if web else None
        return System(stack, supervisor, redis_url, control, stack.start_workers(workers), folder, address, prefix)

    return _build


def _protected(redis_url: str, password: str) -> str:
    """Set a password on the Redis; return its URL with the password."""
    with Redis.from_url(redis_url) as redis:
        redis.config_set("requirepass", password)
    return re.sub("//.*@", f"//:{password}@", redis_url)


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Yield a function that starts a system with `workers` workers, until the test ends.

    With `beside` it shares the Redis of another system.
    """
    with ExitStack() as resources:
        yield _builder(resources, tmp_path)


@pytest.fixture(scope="module")
def build_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Yield the same function for all tests of a module: they kill nothing, and each has its own batch. See
    `System.reset`."""
    with ExitStack() as resources:
        yield _builder(resources, tmp_path_factory.mktemp("system"))


def jobs(count: int, batch: str = "voices") -> list[VoiceJob]:
    """Return jobs for a voice and a song each."""
    return [
        VoiceJob(
            audio_url=f"https://recordings.example/{batch}/{number}.wav",
            song=Song(title=f"Song {number}", prompt=LYRICS),
            batch=batch,
            key=f"{batch}-{number}",
        )
        for number in range(count)
    ]


def settled(queue: VoiceQueue, batch: str = "voices") -> bool:
    """Return whether every job of the batch is final or unsure."""
    return queue.batch(batch).is_settled


def verified_states(system: System, count: int, batch: str = "voices", *, spent_elsewhere: int = 0) -> dict[State, int]:
    """Check the invariants that hold after any failure; return the batch's states.

    `spent_elsewhere` is the cost of other batches, in credits.
    """
    ledger = system.ledger()
    assert ledger["double_charges"] == []
    with system.queue() as queue:
        batch_jobs = list(queue.jobs(batch=batch))
        states = queue.batch(batch).states
    assert len(batch_jobs) == count
    assert {job.state for job in batch_jobs} <= {State.SUCCEEDED, State.UNSURE}
    assert all(job.clips and job.persona_id for job in batch_jobs if job.state is State.SUCCEEDED)
    assert states == {state: sum(job.state is state for job in batch_jobs) for state in State}
    booked = sum(job.credits for job in batch_jobs) + spent_elsewhere
    assert booked <= ledger["credits_spent"] <= booked + 15 * states[State.UNSURE]
    return states
