"""The real thing: Valkey, the simulator and workers as processes, started by the Procfile's commands."""

from __future__ import annotations

import re
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
from voicequeue import Song, State, VoiceJob, VoiceQueue
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX
from workers.local.stack import Stack
from workers.local.supervisor import Supervisor

#: Everything takes fractions of a second, and the account is rich.
FAST: Mapping[str, str] = {
    "VOICEQUEUE_POLL_MIN_S": "0.3",
    "VOICEQUEUE_POLL_MAX_S": "0.5",
    "VOICEQUEUE_PULSE_S": "0.1",
    "VOICEQUEUE_RECONCILE_S": "0.3",
    "VOICEQUEUE_STALE_S": "1",
    "VOICEQUEUE_CHARGE_LEASE_S": "4",
    "VOICEQUEUE_COOLDOWN_S": "0.3",
    "VOICEQUEUE_CHUNK": "10",
    "VOICEQUEUE_FIRST_IN_FLIGHT": "100",
}
DIALS: Mapping[str, object] = {"voice_s": 0.5, "music_s": 0.5, "jitter": 0.3, "credits": 1_000_000}

SECRET = "key-that-nobody-may-see"
LYRICS = "[Verse]\nlyrics that nobody may see"


@dataclass(frozen=True)
class House:
    """A running stack, and what tests ask of it."""

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
        """The headers with the gateway's local token."""
        return {"Authorization": f"Bearer {self.stack.web_key()}"}

    def link(self, path: str = "/") -> str:
        """The address of a page with the local token, as `make up` prints it."""
        return f"{self.web}{path}{'&' if '?' in path else '?'}token={self.stack.web_key()}"

    def queue(self) -> VoiceQueue:
        """A producer's connection."""
        return VoiceQueue(self.redis_url, prefix=self.prefix)

    def dial(self, **dials: object) -> None:
        """Turn the simulator's dials."""
        requests.patch(f"{self.control}/dials", json=dials, timeout=5).raise_for_status()

    def renew(self) -> House:
        """The simulator as it was at first, with nothing in its ledger; what jobs there are must have settled."""
        self.dial(**DIALS, post_faults={}, get_faults={})
        requests.post(f"{self.control}/reset", timeout=5).raise_for_status()
        return self

    def ledger(self) -> dict[str, Any]:
        """What the simulator was called for and charged."""
        answer: dict[str, Any] = requests.get(f"{self.control}/ledger", timeout=5).json()
        return answer

    def logs(self) -> str:
        """All that the workers have said."""
        return "".join((self.home / "log" / f"{name}.log").read_text() for name in self.workers)


Build = Callable[..., House]


def _builder(standing: ExitStack, home: Path) -> Build:
    numbers = count()

    def _build(
        *,
        workers: int = 2,
        web: bool = False,
        password: str | None = None,
        dials: Mapping[str, object] | None = None,
        beside: House | None = None,
        prefix: str = DEFAULT_PREFIX,
        **env: str,
    ) -> House:
        supervisor = standing.enter_context(Supervisor())
        place = home / f"house{next(numbers)}"
        stack = Stack(
            supervisor,
            Settings(_env_file=None, prefix=prefix),
            home=place,
            env={**FAST, "MUSICAPI_KEY": SECRET, "VOICEQUEUE_PREFIX": prefix, **env},
        )
        redis_url = beside.redis_url if beside else stack.start_valkey()
        stack.use_redis(redis_url)
        if password:
            redis_url = _protected(redis_url, password)
            stack.use_redis(redis_url)
        _, control = stack.start_simulator({**DIALS, **(dials or {})})
        address = stack.start_web(webhooks=True) if web else None
        return House(stack, supervisor, redis_url, control, stack.start_workers(workers), place, address, prefix)

    return _build


def _protected(redis_url: str, password: str) -> str:
    """The URL of that Redis, which asks for the password from now on."""
    with Redis.from_url(redis_url) as redis:
        redis.config_set("requirepass", password)
    return re.sub("//.*@", f"//:{password}@", redis_url)


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Build a house with that many workers, in the database of the house `beside` if one is given; it runs until the
    test ends."""
    with ExitStack() as standing:
        yield _builder(standing, tmp_path)


@pytest.fixture(scope="module")
def build_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """The same for a module whose tests kill nobody and each have a batch of their own; see `House.renew`."""
    with ExitStack() as standing:
        yield _builder(standing, tmp_path_factory.mktemp("house"))


def jobs(count: int, batch: str = "voices") -> list[VoiceJob]:
    """Voices with a song each."""
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
    """Whether every job of the batch is final or unsure."""
    return queue.batch(batch).is_settled


def nothing_lost_nothing_paid_twice(
    house: House, count: int, batch: str = "voices", *, spent_elsewhere: int = 0
) -> dict[State, int]:
    """The invariants that hold whatever was killed; gives the states.

    `spent_elsewhere` is what other batches cost, in credits.
    """
    ledger = house.ledger()
    assert ledger["double_charges"] == []
    with house.queue() as queue:
        found = list(queue.jobs(batch=batch))
        states = queue.batch(batch).states
    assert len(found) == count
    assert {job.state for job in found} <= {State.SUCCEEDED, State.UNSURE}
    assert all(job.clips and job.persona_id for job in found if job.state is State.SUCCEEDED)
    assert states == {state: sum(job.state is state for job in found) for state in State}
    sure = sum(job.credits for job in found) + spent_elsewhere
    assert sure <= ledger["credits_spent"] <= sure + 15 * states[State.UNSURE]
    return states
