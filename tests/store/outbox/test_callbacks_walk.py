"""Random sequences of transitions, deliveries and failures lose no callback and keep each job's callbacks in order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tests.store.life import NOW, apply_transition, enqueue_jobs, get_job
from tests.support.jobs import voice
from voicequeue import State
from voicequeue.domain.states import IN_FLIGHT, TRANSITIONS
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.callbacks import CallbackClaim
from voicequeue.storage.job_store import JobStore

walks = itertools.count()
numbers = st.integers(0, 10**6)

LEASE = 10.0
REPORTED = {State.SUCCEEDED, State.FAILED, State.UNSURE}


def walk_on(redis: Redis) -> type[RuleBasedStateMachine]:
    """Return a state machine that uses a new prefix for each walk."""

    class Walk(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.prefix = f"calls{next(walks)}"
            self.store = JobStore(redis, self.prefix)
            self.callbacks = self.store.callbacks
            self.now = NOW
            specs = [voice(key=str(n), batch="b", callback_url="https://hooks.example/") for n in range(3)]
            self.jobs = enqueue_jobs(self.store, *specs)
            self.callbacks.set_batch_url("b", "https://hooks.example/batch")
            #: The callbacks that were written for each job, in order.
            self.written: dict[str, list[str]] = {job_id: [] for job_id in self.jobs}
            self.redelivered: set[str] = set()
            self.delivered: list[str] = []
            self.claims: list[CallbackClaim] = []

        def teardown(self) -> None:
            redis.flushdb()

        @rule(number=numbers, choice=numbers)
        def transition(self, number: int, choice: int) -> None:
            job = get_job(self.store, self.jobs[number % len(self.jobs)])
            targets = sorted(TRANSITIONS[job.state] - {State.CANCELLED, State.WAITING})
            if not targets:
                return
            to = targets[choice % len(targets)]
            changed = apply_transition(self.store, job, to, self.now, due=self.now if to in IN_FLIGHT else None)
            if to in REPORTED and to is not job.state:
                assert changed.callback_id
                self.written[job.id].append(changed.callback_id)

        @rule(seconds=st.sampled_from([1.0, 5.0, LEASE]))
        def wait(self, seconds: float) -> None:
            self.now += seconds

        @rule(at_most=st.integers(1, 3), is_lost=st.booleans())
        def hand_out(self, at_most: int, is_lost: bool) -> None:
            ids = self.callbacks.lease(self.now, lease_s=LEASE, limit=at_most)
            if not is_lost:
                self.claims += self.callbacks.claim(ids, self.now, lease_s=LEASE)

        @precondition(lambda self: self.claims)
        @rule(number=numbers, outcome=st.sampled_from(["delivered", "delivered", "retry", "undelivered", "killed"]))
        def finish(self, number: int, outcome: str) -> None:
            claim = self.claims.pop(number % len(self.claims))
            if outcome == "delivered" and self.callbacks.mark_delivered(claim.id, self.now):
                self.delivered.append(claim.id)
            elif outcome == "retry":
                self.callbacks.schedule_retry(claim.id, self.now, self.now + 7, "no", is_attempted=True)
            elif outcome == "undelivered":
                self.callbacks.mark_undelivered(claim.id, self.now, "no", is_attempted=True)

        @rule(number=numbers)
        def redeliver(self, number: int) -> None:
            ids = [callback.id for callback in (*self.callbacks.undelivered(), *self.callbacks.pending())]
            if ids:
                callback_id = ids[number % len(ids)]
                assert self.callbacks.redeliver([callback_id], self.now) == [True]
                self.redelivered.add(callback_id)

        @invariant()
        def every_callback_is_in_one_place(self) -> None:
            pending = [callback.id for callback in self.callbacks.pending()]
            undelivered = [callback.id for callback in self.callbacks.undelivered()]
            ids = [*pending, *undelivered, *self.delivered]
            of_jobs = [callback_id for callback_id in ids if not callback_id.startswith("batch-")]
            assert sorted(of_jobs) == sorted(itertools.chain(*self.written.values()))
            assert self.callbacks.counts(0).delivered == len(self.delivered)

        @invariant()
        def the_audit_finds_nothing(self) -> None:
            assert [str(finding) for finding in audit(redis, self.prefix) if finding.kind == "callbacks"] == []

        @invariant()
        def one_callback_of_a_job_is_due_at_a_time(self) -> None:
            due = [callback.job_id for callback in self.callbacks.pending() if callback.due_at is not None]
            assert len(due) == len(set(due))

        @invariant()
        def callbacks_of_a_job_are_delivered_in_order(self) -> None:
            for job_id, written in self.written.items():
                first_time = [callback_id for callback_id in self.delivered if callback_id not in self.redelivered]
                delivered = [callback_id for callback_id in first_time if callback_id in written]
                assert delivered == [callback_id for callback_id in written if callback_id in delivered], job_id

    return Walk


@pytest.mark.hypothesis
def test_no_callback_is_lost_and_those_of_a_job_stay_in_order(redis: Redis) -> None:
    """Through transitions, lost messages, killed workers, expired claims and redeliveries."""
    few = settings(max_examples=settings().max_examples // 4, stateful_step_count=40)

    run_state_machine_as_test(walk_on(redis), settings=few)
