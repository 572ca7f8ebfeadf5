"""The steps with all that they work with: a real store, the real client, and time that the test moves on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil

import pytest

from simulator.process import Simulator
from tasks.context import Services
from tasks.musicapi import MusicApi
from tasks.poll import PollResult, poll_orders
from tasks.submit import SubmitResult, submit_orders
from tests.support.scripted import Request, answer
from voicequeue import Job, Song, Stage, State, VoiceJob
from voicequeue.domain.poll_schedule import PollPlan
from voicequeue.domain.timeouts import Patience
from voicequeue.storage.job_store import Store

SONG = Song(prompt="[Verse]\nla la", title="La")

#: Seconds from an order to its first poll, and between two polls.
POLL_S = 10.0
PATIENCE = Patience(charge_s=90, poll_s=90, cooldown_s=5, account_s=60)
DEADLINE_S = 900.0
#: How many jobs of a chunk are with upstream at once.
THREADS = 4
#: The most jobs that one message carries.
CHUNK = 10


@dataclass
class Clock:
    """Time that passes when the test says so, and begins at a whole second."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Bench:
    """One worker's steps, its store and its clock."""

    services: Services
    clock: Clock

    @property
    def store(self) -> Store:
        """Where the jobs are."""
        return self.services.store

    def patient(self, **times: float) -> Bench:
        """The same worker with other patience."""
        return replace(self, services=replace(self.services, patience=replace(PATIENCE, **times)))

    def admit(self) -> dict[Stage, list[str]]:
        """Admit all that is queued."""
        return self.store.admit(self.clock.now).by_stage

    def submit(self, stage: Stage, job_ids: Sequence[str]) -> SubmitResult:
        """What the task `<stage>.submit` does."""
        return submit_orders(self.services, stage, job_ids)

    def poll(self, stage: Stage, job_ids: Sequence[str]) -> PollResult:
        """What the task `<stage>.poll` does."""
        return poll_orders(self.services, stage, job_ids)

    def poll_when_due(self, stage: Stage, job_ids: Sequence[str]) -> PollResult:
        """The same, once the time of the next poll has come."""
        self.clock.now += POLL_S
        return self.poll(stage, job_ids)

    def poll_for(self, stage: Stage, job_ids: Sequence[str], seconds: float) -> PollResult:
        """Poll regularly until so much time has passed, and give what the last poll came to."""
        polled, times = PollResult(), ceil(seconds / (10 * POLL_S))
        for _ in range(times):
            self.clock.now += seconds / times
            polled = self.poll(stage, job_ids)
        return polled

    def ordered(self, *specs: VoiceJob) -> list[str]:
        """Jobs whose first stage upstream has accepted."""
        job_ids = self.admitted(*specs)
        stage = specs[0].stages[0]
        assert self.submit(stage, job_ids).pending == job_ids
        return job_ids

    def admitted(self, *specs: VoiceJob) -> list[str]:
        """Jobs that have a slot and for which nothing was sent."""
        named = [(spec.id(), spec) for spec in specs]
        self.store.enqueue(named, self.clock.now)
        self.admit()
        return [job_id for job_id, _ in named]

    def job(self, job_id: str) -> Job:
        """One job as it stands."""
        [job] = self.store.get([job_id])
        assert job is not None
        return job

    def states(self, job_ids: Sequence[str]) -> list[State]:
        """The states of jobs, in their order."""
        return [self.job(job_id).state for job_id in job_ids]

    def story(self, job_id: str) -> list[State]:
        """All states that a job went through."""
        return [step.state for step in self.store.timeline(job_id)]


Build = Callable[[str], Bench]


@pytest.fixture
def build(store: Store) -> Iterator[Build]:
    """Builds benches that work with the upstream of a base URL."""
    with ExitStack() as standing:

        def _build(base_url: str) -> Bench:
            clock = Clock()
            upstream = MusicApi(base_url, "key-of-the-account", connect_s=5, answer_s=10, connections=THREADS)
            standing.callback(upstream.close)
            plan = PollPlan(POLL_S, POLL_S)
            deadlines = dict.fromkeys(Stage, DEADLINE_S)
            return Bench(Services(store, upstream, plan, PATIENCE, CHUNK, deadlines, clock=clock), clock)

        yield _build


@pytest.fixture
def bench(build: Build, simulator: Simulator) -> Bench:
    """A bench that works with the simulator, whose tasks are ready at once."""
    simulator.turn(voice_s=0, music_s=0)
    return build(simulator.api_url)


def voice(name: str = "anna", song: Song | None = SONG) -> VoiceJob:
    """A job for a voice, and a song to sing with it."""
    return VoiceJob(audio_url=f"https://recordings.example/{name}.mp3", song=song, key=name)


def voices(count: int) -> list[VoiceJob]:
    """Several of them."""
    return [voice(f"voice-{number}") for number in range(count)]


def books_agree(bench: Bench, simulator: Simulator) -> bool:
    """Whether we have counted all that upstream charged, and nothing was charged twice."""
    ledger = simulator.ledger()
    return bool(ledger["credits_spent"] == bench.store.credits()) and ledger["double_charges"] == []


#: What upstream says of an order that it may make after all.
FAILED = {"status": "error", "message": "The voice could not be extracted."}
NOT_READY = {"type": "not_ready", "error": "still in progress"}
VOICE = {"code": 200, "data": {"persona_id": "p1", "name": "Anna"}, "message": "success"}
SONGS = {"code": 200, "data": [{"clip_id": "c1", "state": "succeeded", "audio_url": "https://cdn.example/1.mp3"}]}


class Saying:
    """A script that takes each order under a task id of its own, and answers polls with these bodies in turn, with the
    last one for ever."""

    def __init__(self, *polls: object) -> None:
        self.polls = list(polls)
        self.orders = 0

    def __call__(self, request: Request) -> Iterator[bytes]:
        if request.method == "POST":
            self.orders += 1
            yield answer({"task_id": f"task {self.orders}"})
        else:
            yield answer(self.polls.pop(0) if len(self.polls) > 1 else self.polls[0])


def audio_of(request: Request) -> str:
    """The name of the recording that a POST asks for."""
    name: str = request.json()["audio_url"]
    return name.rpartition("/")[2].removesuffix(".mp3")
