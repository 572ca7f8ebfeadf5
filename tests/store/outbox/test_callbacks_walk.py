"""Whatever becomes of jobs and callbacks in whatever order: none is lost, and each job's are told in order."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tests.store.life import NOW, make, one, put
from tests.support.jobs import voice
from voicequeue import State
from voicequeue.domain.job import IN_FLIGHT, MOVES
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.callbacks import Call
from voicequeue.storage.job_store import Store

walks = itertools.count()
some = st.integers(0, 10**6)

LEASE = 10.0
TOLD = {State.SUCCEEDED, State.FAILED, State.UNSURE}


def walk_on(redis: Redis) -> type[RuleBasedStateMachine]:
    """A walk in a prefix of its own."""

    class Walk(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.prefix = f"calls{next(walks)}"
            self.store = Store(redis, self.prefix)
            self.callbacks = self.store.callbacks
            self.now = NOW
            specs = [voice(key=str(n), batch="b", callback_url="https://hooks.example/") for n in range(3)]
            self.jobs = put(self.store, *specs)
            self.callbacks.set_batch_url("b", "https://hooks.example/batch")
            #: Every callback that was written for a job, in order; those that were ever wanted again.
            self.written: dict[str, list[str]] = {job_id: [] for job_id in self.jobs}
            self.wanted_again: set[str] = set()
            self.delivered: list[str] = []
            self.claims: list[Call] = []

        def teardown(self) -> None:
            redis.flushdb()

        @rule(number=some, way=some)
        def move(self, number: int, way: int) -> None:
            job = one(self.store, self.jobs[number % len(self.jobs)])
            ways = sorted(MOVES[job.state] - {State.CANCELLED, State.WAITING})
            if not ways:
                return
            to = ways[way % len(ways)]
            made = make(self.store, job, to, self.now, due=self.now if to in IN_FLIGHT else None)
            if to in TOLD and to is not job.state:
                assert made.callback_id
                self.written[job.id].append(made.callback_id)

        @rule(seconds=st.sampled_from([1.0, 5.0, LEASE]))
        def wait(self, seconds: float) -> None:
            self.now += seconds

        @rule(at_most=st.integers(1, 3), lost=st.booleans())
        def hand_out(self, at_most: int, lost: bool) -> None:
            ids = self.callbacks.hand_out(self.now, patience=LEASE, at_most=at_most)
            if not lost:
                self.claims += self.callbacks.claim(ids, self.now, lease=LEASE)

        @precondition(lambda self: self.claims)
        @rule(number=some, became=st.sampled_from(["delivered", "delivered", "later", "given up", "dead"]))
        def come_to_an_end(self, number: int, became: str) -> None:
            call = self.claims.pop(number % len(self.claims))
            if became == "delivered" and self.callbacks.delivered(call.id, self.now):
                self.delivered.append(call.id)
            elif became == "later":
                self.callbacks.later(call.id, self.now, self.now + 7, "no", tried=True)
            elif became == "given up":
                self.callbacks.give_up(call.id, self.now, "no", tried=True)

        @rule(number=some)
        def redeliver(self, number: int) -> None:
            known = [each.id for each in (*self.callbacks.undelivered(), *self.callbacks.pending())]
            if known:
                wanted = known[number % len(known)]
                assert self.callbacks.redeliver([wanted], self.now) == [True]
                self.wanted_again.add(wanted)

        @invariant()
        def none_is_lost_and_none_is_in_two_places(self) -> None:
            pending = [each.id for each in self.callbacks.pending()]
            undelivered = [each.id for each in self.callbacks.undelivered()]
            everywhere = [each for each in (*pending, *undelivered, *self.delivered) if not each.startswith("batch-")]
            assert sorted(everywhere) == sorted(itertools.chain(*self.written.values()))
            assert self.callbacks.counted(0).delivered == len(self.delivered)

        @invariant()
        def the_audit_finds_nothing(self) -> None:
            assert [str(each) for each in audit(redis, self.prefix) if each.kind == "callbacks"] == []

        @invariant()
        def only_one_of_a_job_is_due_at_a_time(self) -> None:
            due = [each.job_id for each in self.callbacks.pending() if each.due is not None]
            assert len(due) == len(set(due))

        @invariant()
        def each_jobs_are_delivered_in_order(self) -> None:
            for job_id, written in self.written.items():
                told = [each for each in self.delivered if each in written and each not in self.wanted_again]
                assert told == [each for each in written if each in told], job_id

    return Walk


def test_no_callback_is_lost_and_each_jobs_come_in_order(redis: Redis) -> None:
    """Moves, lost messages, dead processes, claims that ran out, redeliveries."""
    run_state_machine_as_test(walk_on(redis), settings=settings(max_examples=15, stateful_step_count=40, deadline=None))
