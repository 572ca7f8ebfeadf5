"""Whatever is done in whatever order, the indexes and counters say what the records say."""

from __future__ import annotations

import itertools

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tests.jobs import SONG, URL
from tests.store.life import NOW, dump, everything_agrees, one
from voicequeue import Job, Priority, Stage, State, VoiceJob, records
from voicequeue.claims import Claimed, Outcome
from voicequeue.gate import Limits
from voicequeue.job import IN_FLIGHT, MOVES, Move
from voicequeue.stage import PRICES
from voicequeue.store import Store

walks = itertools.count()

specs = st.builds(
    lambda source, song, key, batch, priority: VoiceJob(
        **source, song=SONG if song or "persona_id" in source else None, key=key, batch=batch, priority=priority
    ),
    source=st.sampled_from([{"audio_url": URL}, {"persona_id": "p"}]),
    song=st.booleans(),
    key=st.sampled_from([None, None, "a", "b"]),
    batch=st.sampled_from([None, "spring", "summer"]),
    priority=st.sampled_from(Priority),
)
some = st.integers(0, 10**6)


def walk_on(redis: Redis) -> type[RuleBasedStateMachine]:
    """A walk in a prefix of its own: anything that callers do, in any order."""

    class Walk(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.prefix = f"walk{next(walks)}"
            self.store = Store(redis, self.prefix)
            self.now = NOW
            self.specs: dict[str, VoiceJob] = {}
            self.claims: list[Claimed] = []

        def teardown(self) -> None:
            redis.flushdb()

        def job(self, number: int) -> Job:
            return one(self.store, list(self.specs)[number % len(self.specs)])

        def due(self, to: State) -> float | None:
            return self.now + 5 if to in IN_FLIGHT else None

        @rule(jobs=st.lists(specs, max_size=4))
        def enqueue(self, jobs: list[VoiceJob]) -> None:
            pairs = [(spec.id(), spec) for spec in jobs]
            for (job_id, spec), outcome in zip(pairs, self.store.enqueue(pairs, self.now), strict=True):
                standing = self.specs.setdefault(job_id, spec)
                if outcome is not Outcome.NEW:
                    assert (outcome is Outcome.KNOWN) == (standing == spec)

        @rule(seconds=st.sampled_from([0.0, 1.0, 30.0]))
        def wait(self, seconds: float) -> None:
            self.now += seconds

        @rule(limit=st.integers(0, 6), at_most=st.integers(0, 4))
        def admit(self, limit: int, at_most: int) -> None:
            before = self.store.in_flight()
            own = Store(redis, self.prefix, limits=Limits(in_flight=limit, first_in_flight=limit))
            own.admit(self.now, at_most=at_most)
            assert self.store.in_flight() <= max(limit, before)

        @rule(seconds=st.sampled_from([0.5, 40.0]))
        def close_gate(self, seconds: float) -> None:
            self.store.controls.close("cooldown", "", self.now, self.now + seconds)

        @precondition(lambda self: self.specs)
        @rule(number=some, stage=st.sampled_from(Stage), holder=st.sampled_from("xy"))
        def charge(self, number: int, stage: Stage, holder: str) -> None:
            job = self.job(number)
            claim = self.store.charge(job.id, stage, holder, self.now, lease=20)
            assert claim is None or (job.stage is stage and job.state in {State.ADMITTED, State.CHARGING})

        @precondition(lambda self: self.specs)
        @rule(number=some, way=some, late=st.booleans())
        def move(self, number: int, way: int, late: bool) -> None:
            job = self.job(number)
            if ways := sorted(MOVES[job.state]):
                self.make(job, ways[way % len(ways)], late=late)

        def make(self, job: Job, to: State, *, late: bool) -> None:
            paid = job.state is State.CHARGING and to is State.PENDING
            fields = {records.task_field(job.stage): "t", "since": str(self.now)} if to is State.PENDING else {}
            made = Move(
                job.id,
                job.version - late,
                job.state,
                job.stage,
                to,
                to_stage=Stage.MUSIC if job.state is State.PENDING and to is State.ADMITTED else None,
                due=self.due(to),
                fields=fields,
                credits=PRICES[job.stage] if paid else 0,
            )
            before = dump(redis, self.prefix)
            assert self.store.apply([made], self.now) == [not late]
            assert (dump(redis, self.prefix) == before) is late

        @rule(stage=st.sampled_from(Stage))
        def claim(self, stage: Stage) -> None:
            self.claims += self.store.claim(list(self.specs), stage, self.now, lease=20)

        @rule()
        def plan(self) -> None:
            self.store.plan([(claim.job_id, claim.version) for claim in self.claims], self.now + 10)
            self.claims = []

        @rule()
        def overdue(self) -> None:
            for found in self.store.overdue(self.now, patience=10):
                job = one(self.store, found.job_id)
                assert (job.version, job.state, job.stage) == (found.version, found.state, found.stage)

        @invariant()
        def the_indexes_say_what_the_records_say(self) -> None:
            everything_agrees(redis, self.prefix)

        @invariant()
        def no_job_is_lost(self) -> None:
            assert sorted(self.store.ids()) == sorted(self.specs)
            assert sum(self.store.counts().values()) == len(self.specs)

        @invariant()
        def a_timeline_tells_every_version(self) -> None:
            for job_id in self.specs:
                steps = self.store.timeline(job_id)
                job = one(self.store, job_id)
                assert len(steps) == job.version
                assert steps[-1].state is job.state

    return Walk


def test_the_indexes_always_agree_with_the_records(redis: Redis) -> None:
    """After every step of random walks through everything that callers do."""
    # To see the shortest walk that goes wrong, add Phase.shrink: that takes minutes.
    few = settings(max_examples=25, stateful_step_count=40, phases=[Phase.generate])

    run_state_machine_as_test(walk_on(redis), settings=few)
