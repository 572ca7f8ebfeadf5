"""Random sequences of losses, recoveries, pauses, lower limits, cancellations and retries never exceed a limit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest
from redis import Redis

from tests.store.life import NOW, accepted, charge, everything_agrees, failed, make, named, one, put
from tests.support.jobs import sung, voice
from voicequeue import Code, Job, Stage, State
from voicequeue.client import cancelling
from voicequeue.client.orders import Named, name_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import Charged, ChargedOrder
from voicequeue.domain.gate import Limits
from voicequeue.domain.job import IN_FLIGHT
from voicequeue.domain.stage import PRICES
from voicequeue.storage.job_store import Store

BATCHES = ("spring", "summer")
FLOOR = 10


class Life:
    """Two batches of one account, and every event of their jobs."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.chance = store, random.Random(seed)
        self.count = 0
        #: Credits that each batch has spent, or may have; the account's are under the empty name.
        self.at_stake: Counter[str] = Counter()
        #: How many orders there were for each job when its cancelling was asked for.
        self.withdrawn: dict[str, int] = {}
        self.charges = 0

    def some(self, *states: State) -> Job | None:
        """Return a random job in one of these states."""
        job_ids = [job_id for state in states for job_id in self.store.ids(state=state)]
        return one(self.store, self.chance.choice(sorted(job_ids))) if job_ids else None

    # ── events ────────────────────────────────────────────────────────────────────────────────────

    def enqueue(self) -> None:
        self.count += 1
        fields = {"batch": self.chance.choice(BATCHES), "key": f"{self.count}"}
        make_spec = voice if self.chance.random() < 0.2 else sung
        put(self.store, make_spec(**fields, **({"voice": "ana"} if self.chance.random() < 0.2 else {})))

    def admit(self) -> None:
        self.store.admit(NOW, at_most=self.chance.choice([1, 3, 50]))

    def charge(self) -> None:
        job = self.some(State.ADMITTED)
        claim = job and charge(self.store, job.id, job.stage, f"{self.chance.random()}", NOW, lease=90)
        if isinstance(claim, Charged):
            assert job is not None
            self.charges += 1
            self.limits_hold(job.spec.batch or "")

    def answer(self) -> None:
        if (job := self.some(State.CHARGING)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1:
                accepted(self.store, job.id)
            case 2 | 3:
                make(self.store, job, State.UNSURE, reason="no answer")
            case 4:
                make(self.store, job, State.QUEUED, reason="slow down")
            case 5:
                failed(self.store, job, Code.REFUSED)

    def settle(self) -> None:
        """A webhook, a person, the policy or a late response resolves a lost order."""
        if (job := self.some(State.UNSURE)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1 | 2:
                self.store.apply([named(job, "t")], NOW)
            case 3:
                self.store.apply([transitions.abandon(job, NOW)], NOW)
            case 4:
                # Decided before its cancelling was asked for, perhaps.
                again = transitions.order_again(replace(job, cancelling=False), NOW)
                assert self.store.apply([again], NOW) == [not job.cancelling]
            case 5:
                make(self.store, job, State.ADMITTED, reason="the answer came late")

    def find_late(self) -> None:
        """A webhook reports the task of an order that was given up or resubmitted."""
        candidates = [job for job in self.store.get(sorted(self.store.ids())) if job and job.lost]
        if candidates:
            job = self.chance.choice(candidates)
            attempt = self.chance.choice(sorted(job.lost))
            order = ChargedOrder(job.id, job.lost[attempt], attempt, f"t-{attempt}")
            assert name_order(self.store, order, NOW, reason="webhook") in (Named.TAKEN_UP, Named.COUNTED)

    def result(self) -> None:
        if (job := self.some(State.PENDING)) is None:
            return
        if self.chance.random() < 0.2:
            failed(self.store, job, self.chance.choice([Code.UPSTREAM_FAILED, Code.DEADLINE]))
        elif job.stage is Stage.VOICE:
            to, stage = (State.ADMITTED, Stage.MUSIC) if job.spec.song else (State.SUCCEEDED, None)
            make(self.store, job, to, to_stage=stage, fields={"persona_id": f"p-{job.id}"})
        else:
            make(self.store, job, State.SUCCEEDED)

    def retry(self) -> None:
        if job := self.some(State.FAILED):
            self.withdrawn.pop(job.id, None)
            self.store.apply([transitions.retry(job, NOW, resubmit=self.chance.random() < 0.5)], NOW)

    def cancel(self) -> None:
        states = [State.QUEUED, State.ADMITTED, State.CHARGING, State.PENDING, State.UNSURE, State.WAITING]
        if job := self.some(self.chance.choice(states)):
            [cancelled] = cancelling.cancel(self.store, [job], NOW)
            self.withdrawn.setdefault(job.id, cancelled.attempt)

    def limit(self) -> None:
        limits = {
            "paused": self.chance.choice([None, False, False, True]),
            "max_credits": self.chance.choice([None, inf, inf, 60, 150, 300]),
            "max_in_flight": self.chance.choice([None, inf, inf, 1, 4]),
        }
        self.store.limit_batch(self.chance.choice(BATCHES), **limits)

    def balance(self) -> None:
        """Others use the account, or add credits."""
        left = self.chance.choice([FLOOR + 60, FLOOR + 300, FLOOR + 900])
        self.store.controls.note_balance(left, spent_before=self.store.credits(), asked=NOW, now=NOW)

    # ── invariants ────────────────────────────────────────────────────────────────────────────────

    def limits_hold(self, name: str) -> None:
        """Check after a submission that the batch and the account can pay for it, whatever lost orders turn out to
        cost."""
        batch, account = self.store.batch(name), self.store.controls.account()
        assert batch is not None
        assert not batch.paused
        assert batch.max_credits is None or batch.credits + batch.committed <= batch.max_credits
        assert batch.max_in_flight is None or sum(batch.states[s] for s in IN_FLIGHT) <= batch.max_in_flight
        assert account.left is None or account.left - account.committed >= FLOOR

    def check(self) -> None:
        """Check that spent and possibly spent credits of a batch grow only within its limit, and nothing is submitted
        for a cancelled job."""
        before, self.at_stake = self.at_stake, Counter()
        for job in self.store.get(list(self.store.ids())):
            assert job is not None
            under_way = job.state in (State.CHARGING, State.UNSURE)
            assert under_way or not job.cancelling
            may_be_charged = under_way * PRICES[job.stage] + sum(PRICES[stage] for stage in job.lost.values())
            self.at_stake[job.spec.batch or ""] += job.credits + may_be_charged
            assert job.attempt <= self.withdrawn.get(job.id, job.attempt)
        for name in BATCHES:
            batch = self.store.batch(name)
            limit = inf if batch is None or batch.max_credits is None else batch.max_credits
            assert self.at_stake[name] <= max(before[name], limit)

    def step(self) -> None:
        """Take a random step."""
        ways: list[tuple[Callable[[], None], int]] = [
            (self.enqueue, 4),
            (self.admit, 5),
            (self.charge, 9),
            (self.answer, 7),
            (self.settle, 4),
            (self.find_late, 2),
            (self.result, 6),
            (self.retry, 2),
            (self.cancel, 1),
            (self.limit, 2),
            (self.balance, 1),
        ]
        [way] = self.chance.choices([way for way, _ in ways], [weight for _, weight in ways])
        way()
        self.check()


@pytest.mark.parametrize("seed", range(5))
def test_spending_never_exceeds_its_limits(redis: Redis, prefix: str, seed: int) -> None:
    """Random walks include lost and recovered orders, pauses, limits, spending by others, cancellations and retries."""
    limits = Limits(in_flight=30, first_in_flight=30, credit_floor=FLOOR)
    life = Life(Store(redis, prefix, limits=limits), seed)

    for _ in range(400):
        life.step()

    assert life.charges > 10
    everything_agrees(redis, prefix)
