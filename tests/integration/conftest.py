"""Submission and polls with a real store, the real client, and a clock that the test advances."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import ceil

import pytest

from simulator.process import Simulator
from tasks.context import TaskContext
from tasks.musicapi import MusicApi
from tasks.poll import PollResult, poll_orders
from tasks.submit import SubmitResult, submit_orders
from tests.support.rights import url_with_rights
from tests.support.scripted import Request, answer
from voicequeue import Job, Limits, Song, Stage, State, VoiceJob
from voicequeue.domain.poll_schedule import PollSchedulePolicy
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

SONG = Song(prompt="[Verse]\nla la", title="La")

#: Seconds from an order to its first poll, and between two polls.
POLL_S = 10.0
TIMEOUTS = Timeouts(submit_lease_s=90, poll_lease_s=90, cooldown_s=5, account_hold_s=60)
DEADLINE_S = 900.0
#: Number of concurrent requests.
THREADS = 4
#: Maximum number of jobs in one message.
CHUNK = 10


@dataclass
class Clock:
    """Clock that the test advances; it starts at a whole second."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Bench:
    """The services of one worker, with its store and clock."""

    services: TaskContext
    clock: Clock

    @property
    def store(self) -> JobStore:
        """The store of the jobs."""
        return self.services.store

    def with_timeouts(self, **times: float) -> Bench:
        """Return the same worker with other timeouts."""
        return replace(self, services=replace(self.services, timeouts=replace(TIMEOUTS, **times)))

    def admit(self) -> dict[Stage, list[str]]:
        """Admit all queued jobs."""
        return self.store.admit(self.clock.now).by_stage

    def submit(self, stage: Stage, job_ids: Sequence[str]) -> SubmitResult:
        """Run the task `<stage>.submit`."""
        return submit_orders(self.services, stage, job_ids)

    def poll(self, job_ids: Sequence[str]) -> PollResult:
        """Poll once, as the tasks `voice.poll` and `music.poll` do."""
        return poll_orders(self.services, job_ids)

    def poll_when_due(self, job_ids: Sequence[str]) -> PollResult:
        """Advance the clock to the next poll and run it."""
        self.clock.now += POLL_S
        return self.poll(job_ids)

    def poll_for(self, job_ids: Sequence[str], seconds: float) -> PollResult:
        """Poll regularly for that many seconds and return the result of the last poll."""
        polled, times = PollResult(), ceil(seconds / (10 * POLL_S))
        for _ in range(times):
            self.clock.now += seconds / times
            polled = self.poll(job_ids)
        return polled

    def submitted(self, *specs: VoiceJob) -> list[str]:
        """Return the ids of jobs whose first stage upstream has accepted."""
        job_ids = self.admitted(*specs)
        stage = specs[0].stages[0]
        assert self.submit(stage, job_ids).pending == job_ids
        return job_ids

    def admitted(self, *specs: VoiceJob) -> list[str]:
        """Return the ids of admitted jobs for which nothing was sent."""
        jobs = [(spec.job_id(), spec) for spec in specs]
        self.store.enqueue(jobs, self.clock.now)
        self.admit()
        return [job_id for job_id, _ in jobs]

    def job(self, job_id: str) -> Job:
        """Return one job."""
        [job] = self.store.get([job_id])
        assert job is not None
        return job

    def states(self, job_ids: Sequence[str]) -> list[State]:
        """Return the states of jobs, in their order."""
        return [self.job(job_id).state for job_id in job_ids]

    def state_history(self, job_id: str) -> list[State]:
        """Return all states that a job went through."""
        return [step.state for step in self.store.timeline(job_id)]


Build = Callable[[str], Bench]


@pytest.fixture
def worker_store(valkey_url: str, prefix: str) -> Iterator[JobStore]:
    """Yield a store with the rights of a worker in Redis."""
    with connect(url_with_rights(valkey_url, "worker", prefix)) as client:
        yield JobStore(client, prefix, limits=Limits(in_flight=100_000, initial_in_flight=100_000))


@pytest.fixture
def build(worker_store: JobStore) -> Iterator[Build]:
    """Create benches for the upstream at a base URL."""
    with ExitStack() as clients:

        def _build(base_url: str) -> Bench:
            clock = Clock()
            upstream = MusicApi(base_url, "key-of-the-account", connect_s=5, answer_s=10, connections=THREADS)
            clients.callback(upstream.close)
            plan = PollSchedulePolicy(POLL_S, POLL_S)
            deadlines = dict.fromkeys(Stage, DEADLINE_S)
            return Bench(TaskContext(worker_store, upstream, plan, TIMEOUTS, CHUNK, deadlines, clock=clock), clock)

        yield _build


@pytest.fixture
def bench(build: Build, simulator: Simulator) -> Bench:
    """Return a bench for the simulator, whose tasks are ready at once."""
    simulator.set_dials(voice_s=0, music_s=0)
    return build(simulator.api_url)


def voice(name: str = "anna", song: Song | None = SONG) -> VoiceJob:
    """Return a job for a voice and a song."""
    return VoiceJob(audio_url=f"https://recordings.example/{name}.mp3", song=song, key=name)


def voices(count: int) -> list[VoiceJob]:
    """Return that many jobs."""
    return [voice(f"voice-{number}") for number in range(count)]


def charges_match(bench: Bench, simulator: Simulator) -> bool:
    """Return whether all of upstream's charges are counted, and none was charged twice."""
    ledger = simulator.ledger()
    return bool(ledger["credits_spent"] == bench.store.credits_spent()) and ledger["double_charges"] == []


#: Poll responses; upstream may revoke FAILED.
FAILED = {"status": "error", "message": "The voice could not be extracted."}
NOT_READY = {"type": "not_ready", "error": "still in progress"}
VOICE = {"code": 200, "data": {"persona_id": "p1", "name": "Anna"}, "message": "success"}
SONGS = {"code": 200, "data": [{"clip_id": "c1", "state": "succeeded", "audio_url": "https://cdn.example/1.mp3"}]}


class PollScript:
    """Script that accepts each order with its own task id, and answers polls with these bodies in turn, repeating the
    last."""

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
    """Return the name of the recording in a POST."""
    name: str = request.json()["audio_url"]
    return name.rpartition("/")[2].removesuffix(".mp3")
