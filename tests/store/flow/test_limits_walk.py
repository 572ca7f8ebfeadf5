"""Random sequences of losses, recoveries, pauses, lower limits, cancellations and retries never exceed a limit."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest
from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
    assert_consistent,
    claim_submit,
    enqueue_jobs,
    fail_job,
    get_job,
    report_order,
)
from tests.support.jobs import voice, voice_with_song
from voicequeue import FailureCode, Job, Stage, State
from voicequeue.client import cancelling
from voicequeue.client.orders import OrderEffect, record_charged_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder, SubmitClaim
from voicequeue.domain.gate import Limits
from voicequeue.domain.namespaces import split
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.storage.job_store import JobStore

BATCHES = ("spring", "shop/spring")
OWNERS = ("account", "namespace/shop")
FLOOR = 10


class Life:
    """Two batches of one account, and every event of their jobs."""

    def __init__(self, store: JobStore, seed: int) -> None:
        self.store, self.chance = store, random.Random(seed)
        self.count = 0
        #: Credits that each batch has spent, or may have; the account's are under the empty name.
        self.at_stake: Counter[str] = Counter()
        #: How many orders there were for each job when its cancelling was asked for.
        self.withdrawn: dict[str, int] = {}
        self.charges = 0
        #: Budgets of owners; all steps are in one day.
        self.budgets: dict[str, float] = dict.fromkeys(OWNERS, inf)

    def some(self, *states: State) -> Job | None:
        """Return a random job in one of these states."""
        job_ids = [job_id for state in states for job_id in self.store.list_ids(state=state)]
        return get_job(self.store, self.chance.choice(sorted(job_ids))) if job_ids else None

    # ── events ────────────────────────────────────────────────────────────────────────────────────

    def enqueue(self) -> None:
        self.count += 1
        namespace, batch = split(self.chance.choice(BATCHES))
        fields = {"batch": batch, "key": f"{self.count}"}
        make_spec = voice if self.chance.random() < 0.2 else voice_with_song
        enqueue_jobs(
            self.store.in_namespace(namespace),
            make_spec(**fields, **({"voice": "ana"} if self.chance.random() < 0.2 else {})),
        )

    def admit(self) -> None:
        self.store.admit(NOW, at_most=self.chance.choice([1, 3, 50]))

    def charge(self) -> None:
        job = self.some(State.ADMITTED)
        claim = job and claim_submit(self.store, job.id, job.stage, f"{self.chance.random()}", NOW, lease=90)
        if isinstance(claim, SubmitClaim):
            assert job is not None
            self.charges += 1
            self.limits_hold(job.qualified_batch)

    def answer(self) -> None:
        if (job := self.some(State.CHARGING)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1:
                accept_order(self.store, job.id)
            case 2 | 3:
                apply_transition(self.store, job, State.UNSURE, reason="no answer")
            case 4:
                apply_transition(self.store, job, State.QUEUED, reason="slow down")
            case 5:
                fail_job(self.store, job, FailureCode.REFUSED)

    def settle(self) -> None:
        """Resolve a lost order by a webhook, an operator, the policy or a late response."""
        if (job := self.some(State.UNSURE)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1 | 2:
                self.store.apply_transitions([report_order(job, "t")], NOW)
            case 3:
                self.store.apply_transitions([transitions.abandon(job, NOW)], NOW)
            case 4:
                # Decided before its cancelling was asked for, perhaps.
                again = transitions.resubmit(replace(job, is_cancelling=False), NOW)
                assert self.store.apply_transitions([again], NOW) == [not job.is_cancelling]
            case 5:
                apply_transition(self.store, job, State.ADMITTED, reason="late answer")

    def find_late(self) -> None:
        """Process a webhook that reports the task of an order that was given up or resubmitted."""
        candidates = [job for job in self.store.get(sorted(self.store.list_ids())) if job and job.lost_stages]
        if candidates:
            job = self.chance.choice(candidates)
            attempt = self.chance.choice(sorted(job.lost_stages))
            order = ChargedOrder(job.id, job.lost_stages[attempt], attempt, f"t-{attempt}")
            assert record_charged_order(self.store, order, NOW, reason="webhook") in (
                OrderEffect.CONTINUED,
                OrderEffect.COUNTED,
            )

    def result(self) -> None:
        if (job := self.some(State.PENDING)) is None:
            return
        if self.chance.random() < 0.2:
            fail_job(self.store, job, self.chance.choice([FailureCode.UPSTREAM_FAILED, FailureCode.DEADLINE]))
        elif job.stage is Stage.VOICE:
            to, stage = (State.ADMITTED, Stage.MUSIC) if job.spec.song else (State.SUCCEEDED, None)
            apply_transition(self.store, job, to, to_stage=stage, fields={"persona_id": f"p-{job.id}"})
        else:
            apply_transition(self.store, job, State.SUCCEEDED)

    def retry(self) -> None:
        if job := self.some(State.FAILED):
            self.withdrawn.pop(job.id, None)
            self.store.apply_transitions([transitions.retry(job, NOW, resubmit=self.chance.random() < 0.5)], NOW)

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
        self.store.set_batch_limits(self.chance.choice(BATCHES), **limits)

    def budget(self) -> None:
        """Set, change or remove a budget of the account or of a namespace."""
        owner, credits = self.chance.choice(OWNERS), self.chance.choice([None, None, 100, 200, 400])
        day, month = self.chance.choice([(credits, None), (None, credits), (credits, credits)])
        self.store.flow_control.set_budget(owner, day=day, month=month)
        self.budgets[owner] = inf if credits is None else credits

    def balance(self) -> None:
        """Report a balance, as if others had used the account or added credits."""
        credits = self.chance.choice([FLOOR + 60, FLOOR + 300, FLOOR + 900])
        self.store.flow_control.record_balance(
            credits, spent_before=self.store.credits_spent(), requested_at=NOW, now=NOW
        )

    # ── invariants ────────────────────────────────────────────────────────────────────────────────

    def limits_hold(self, name: str) -> None:
        """Check after a submission that the batch and the account can pay for it, even if all lost orders were
        charged."""
        batch, account = self.store.batch(name), self.store.flow_control.account()
        assert batch is not None
        assert not batch.is_paused
        assert batch.max_credits is None or batch.credits + batch.reserved_credits <= batch.max_credits
        assert batch.max_in_flight is None or sum(batch.states[s] for s in IN_FLIGHT) <= batch.max_in_flight
        assert account.balance is None or account.balance - account.reserved >= FLOOR

    def check(self) -> None:
        """Check that spent and possibly spent credits of a batch grow only within its limit, and nothing is submitted
        for a cancelled job."""
        before, self.at_stake = self.at_stake, Counter()
        for job in self.store.get(list(self.store.list_ids())):
            assert job is not None
            under_way = job.state in (State.CHARGING, State.UNSURE)
            assert under_way or not job.is_cancelling
            may_be_charged = under_way * PRICES[job.stage] + sum(PRICES[stage] for stage in job.lost_stages.values())
            self.at_stake[job.qualified_batch] += job.credits + may_be_charged
            assert job.attempt <= self.withdrawn.get(job.id, job.attempt)
        for name in BATCHES:
            batch = self.store.batch(name)
            limit = inf if batch is None or batch.max_credits is None else batch.max_credits
            assert self.at_stake[name] <= max(before[name], limit)
        assert self.at_stake.total() <= max(before.total(), self.budgets["account"])
        assert self.at_stake["shop/spring"] <= max(before["shop/spring"], self.budgets["namespace/shop"])

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
            (self.budget, 1),
        ]
        [way] = self.chance.choices([way for way, _ in ways], [weight for _, weight in ways])
        way()
        self.check()


@pytest.mark.parametrize("seed", range(5))
def test_spending_never_exceeds_its_limits(redis: Redis, prefix: str, seed: int) -> None:
    """Random walks include lost and recovered orders, pauses, limits, spending by others, cancellations and retries."""
    limits = Limits(in_flight=30, initial_in_flight=30, min_balance=FLOOR)
    life = Life(JobStore(redis, prefix, limits=limits), seed)

    for _ in range(400):
        life.step()

    assert life.charges > 10
    assert_consistent(redis, prefix)
