"""Random walks of jobs of several owners, and a ledger of the orders that upstream may have charged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from redis import Redis

from tests.store.life import (
    NOW,
    accept_order,
    apply_transition,
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
from voicequeue.domain.budgets import ACCOUNT, DAY_S, counters_of, spent_fields
from voicequeue.domain.claims import ChargedOrder, SubmitClaim
from voicequeue.domain.namespaces import namespace_of, split
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT
from voicequeue.storage.job_store import JobStore

BATCHES = ("spring", "shop/spring")
SOURCES = (Source.LIBRARY, Source.HTTP.with_caller("app"), Source.HTTP.with_caller("web"))
OWNERS = (ACCOUNT, "namespace/", "namespace/shop", "key/app", *(f"batch/{batch}" for batch in BATCHES))
FLOOR = 10


def owners_of(job: Job) -> list[str]:
    """Return the owners of a job."""
    key = Source.http_caller(job.source or "")
    return [
        ACCOUNT,
        f"namespace/{namespace_of(job.qualified_batch)}",
        f"batch/{job.qualified_batch}",
        *([f"key/{key}"] if key else []),
    ]


@dataclass(frozen=True)
class Order:
    """An order that was sent: its owners, its cost, and its periods."""

    owners: tuple[str, ...]
    credits: int
    periods: tuple[str, ...]


class Ledger:
    """The orders that upstream has charged, or may have; kept apart from the store."""

    def __init__(self) -> None:
        self.orders: dict[tuple[str, int], Order] = {}
        #: Those that upstream has reported.
        self.charged: set[tuple[str, int]] = set()

    def submit(self, job: Job, attempt: int, now: float) -> Order:
        """Add the order of a job."""
        order = Order(tuple(owners_of(job)), PRICES[job.stage], (*spent_fields(now).values(), "in all"))
        self.orders[job.id, attempt] = order
        return order

    def refuse(self, job: Job) -> None:
        """Remove the last order of a job, which upstream did not charge."""
        del self.orders[job.id, job.attempt]

    def at_risk(self, owner: str, period: str) -> int:
        """Return what upstream may have charged for orders of this period."""
        orders = self.orders.values()
        return sum(order.credits for order in orders if owner in order.owners and period in order.periods)

    def spent(self) -> Counter[tuple[str, str]]:
        """Return what upstream has charged, by owner and period."""
        spent: Counter[tuple[str, str]] = Counter()
        for reported in self.charged:
            order = self.orders[reported]
            for owner in order.owners:
                spent.update({(owner, period): order.credits for period in order.periods})
        return spent


class Life:
    """Jobs of two namespaces and two API keys on one account, and every event in their lives."""

    def __init__(self, store: JobStore, seed: int, limited: tuple[str, ...] = ()) -> None:
        self.store, self.chance = store, random.Random(seed)
        self.count, self.now = 0, NOW
        self.ledger = Ledger()
        #: How many orders there were for each job when its cancelling was asked for.
        self.withdrawn: dict[str, int] = {}
        self.charges = 0
        #: The owners that get limits: few, because the smallest one hides the others.
        self.limited = limited or tuple(self.chance.sample(OWNERS, 2))
        #: The limits of owners that are no batches: `day`, `month` and `max_in_flight`.
        self.budgets: dict[str, dict[str, float]] = {}

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
            now=self.now,
            source=self.chance.choice(SOURCES),
        )

    def wait(self) -> None:
        """Let time pass: hours, a day, or days until another month."""
        self.now += self.chance.choice([0.3, 1.0, 9.0]) * DAY_S

    def admit(self) -> None:
        self.store.admit(self.now, at_most=self.chance.choice([1, 3, 50]))

    def charge(self) -> None:
        job = self.some(State.ADMITTED)
        claim = job and claim_submit(self.store, job.id, job.stage, f"{self.chance.random()}", self.now, lease=90)
        if isinstance(claim, SubmitClaim):
            assert job is not None
            assert claim.attempt <= self.withdrawn.get(job.id, claim.attempt)
            self.charges += 1
            self.limits_hold(job, self.ledger.submit(job, claim.attempt, self.now))

    def answer(self) -> None:
        if (job := self.some(State.CHARGING)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1:
                accept_order(self.store, job.id, self.now)
                self.ledger.charged.add((job.id, job.attempt))
            case 2 | 3:
                apply_transition(self.store, job, State.UNSURE, self.now, reason="no answer")
            case 4:
                apply_transition(self.store, job, State.QUEUED, self.now, reason="slow down")
                self.ledger.refuse(job)
            case 5:
                fail_job(self.store, job, FailureCode.REFUSED, self.now)
                self.ledger.refuse(job)

    def settle(self) -> None:
        """Resolve a lost order by a webhook, an operator, the policy or a late response."""
        if (job := self.some(State.UNSURE)) is None:
            return
        match self.chance.randrange(6):
            case 0 | 1:
                assert self.store.apply_transitions([report_order(job, "t")], self.now) == [True]
                self.ledger.charged.add((job.id, job.attempt))
            case 2 | 3:
                self.store.apply_transitions([transitions.abandon(job, self.now)], self.now)
            case 4:
                # Decided before its cancelling was asked for, perhaps.
                again = transitions.resubmit(replace(job, is_cancelling=False), self.now)
                assert self.store.apply_transitions([again], self.now) == [not job.is_cancelling]
            case 5:
                apply_transition(self.store, job, State.ADMITTED, self.now, reason="late answer")
                self.ledger.refuse(job)

    def find_late(self) -> None:
        """Process a webhook that reports the task of an order that was given up or resubmitted."""
        candidates = [job for job in self.store.get(sorted(self.store.list_ids())) if job and job.lost_stages]
        if candidates:
            job = self.chance.choice(candidates)
            attempt = self.chance.choice(sorted(job.lost_stages))
            order = ChargedOrder(job.id, job.lost_stages[attempt], attempt, f"t-{attempt}")
            assert record_charged_order(self.store, order, self.now, reason="webhook") in (
                OrderEffect.CONTINUED,
                OrderEffect.COUNTED,
            )
            self.ledger.charged.add((job.id, attempt))

    def result(self) -> None:
        if (job := self.some(State.PENDING)) is None:
            return
        if self.chance.random() < 0.2:
            fail_job(self.store, job, self.chance.choice([FailureCode.UPSTREAM_FAILED, FailureCode.DEADLINE]), self.now)
        elif job.stage is Stage.VOICE:
            to, stage = (State.ADMITTED, Stage.MUSIC) if job.spec.song else (State.SUCCEEDED, None)
            apply_transition(self.store, job, to, self.now, to_stage=stage, fields={"persona_id": f"p-{job.id}"})
        else:
            apply_transition(self.store, job, State.SUCCEEDED, self.now)

    def retry(self) -> None:
        if job := self.some(State.FAILED):
            self.withdrawn.pop(job.id, None)
            again = transitions.retry(job, self.now, resubmit=self.chance.random() < 0.5)
            self.store.apply_transitions([again], self.now)

    def cancel(self) -> None:
        states = [State.QUEUED, State.ADMITTED, State.CHARGING, State.PENDING, State.UNSURE, State.WAITING]
        if job := self.some(self.chance.choice(states)):
            [cancelled] = cancelling.cancel(self.store, [job], self.now)
            self.withdrawn.setdefault(job.id, cancelled.attempt)

    def limit(self) -> None:
        """Set, change or remove the limits of an owner, close to what it has used."""
        owner = self.chance.choice(self.limited)
        if owner.startswith("batch/"):
            self.limit_batch(owner.removeprefix("batch/"))
            return
        limits: dict[str, float | None] = {
            period.partition(".")[0]: self.close_to(self.ledger.at_risk(owner, period))
            for period in spent_fields(self.now).values()
        }
        if owner != ACCOUNT:
            limits["max_in_flight"] = self.chance.choice([None, None, 1, 3])
        self.store.flow_control.set_budget(owner, **limits)  # type: ignore[arg-type]
        self.budgets[owner] = {name: value for name, value in limits.items() if value is not None}

    def limit_batch(self, batch: str) -> None:
        credits = self.close_to(self.ledger.at_risk(f"batch/{batch}", "in all"))
        self.store.set_batch_limits(
            batch,
            paused=self.chance.random() < 0.1,
            max_credits=inf if credits is None else credits,
            max_in_flight=self.chance.choice([inf, inf, 1, 3]),
        )

    def close_to(self, credits: int) -> int | None:
        """Return a limit that allows a few orders more, none, or fewer than there are; or no limit."""
        return max(0, credits + self.chance.choice([-20, 5, 20, 40, 60])) if self.chance.random() < 0.7 else None

    def balance(self) -> None:
        """Report a balance, as if others had used the account or added credits."""
        self.store.flow_control.record_balance(
            FLOOR + self.chance.choice([60, 300, 900, 900]),
            spent_before=self.store.credits_spent(),
            requested_at=self.now,
            now=self.now,
        )

    # ── what holds ────────────────────────────────────────────────────────────────────────────────

    def limits_hold(self, job: Job, order: Order) -> None:
        """Check after a submission that each owner can pay for it, even if all lost orders were charged."""
        batch, account = self.store.batch(job.qualified_batch), self.store.flow_control.account()
        assert batch is not None
        assert not batch.is_paused
        assert account.balance is None or account.balance - account.reserved >= FLOOR
        limits = {**self.budgets, f"batch/{job.qualified_batch}": {}}
        if batch.max_credits is not None:
            limits[f"batch/{job.qualified_batch}"]["in all"] = batch.max_credits
        if batch.max_in_flight is not None:
            limits[f"batch/{job.qualified_batch}"]["max_in_flight"] = batch.max_in_flight
        in_flight = self.in_flight()
        for owner in order.owners:
            of_owner = limits.get(owner, {})
            assert in_flight[owner] <= of_owner.get("max_in_flight", inf), f"{owner} has too many jobs in flight"
            for period in order.periods:
                limit = of_owner.get(period.partition(".")[0], inf)
                assert self.ledger.at_risk(owner, period) <= limit, f"{owner} passes its limit of {period}"

    def in_flight(self) -> Counter[str]:
        """Return the number of jobs in flight by owner."""
        job_ids = [job_id for state in IN_FLIGHT for job_id in self.store.list_ids(state=state)]
        return Counter(owner for job in self.store.get(job_ids) if job for owner in owners_of(job))

    def counters_agree(self, redis: Redis, prefix: str) -> None:
        """Check that each period counts what upstream charged for the orders that were submitted in it."""
        for (owner, period), credits in self.ledger.spent().items():
            if period != "in all" and not owner.startswith("batch/"):
                counted = int(redis.hget(f"{{{prefix}}}:{counters_of(owner)}", period) or 0)
                assert counted == credits, f"{owner} counts {counted} in {period} instead of {credits}"

    def step(self) -> None:
        """Take a random step."""
        ways: list[tuple[Callable[[], None], int]] = [
            (self.enqueue, 5),
            (self.wait, 1),
            (self.admit, 5),
            (self.charge, 9),
            (self.answer, 7),
            (self.settle, 2),
            (self.find_late, 1),
            (self.result, 6),
            (self.retry, 1),
            (self.cancel, 1),
            (self.limit, 2),
            (self.balance, 1),
        ]
        [way] = self.chance.choices([way for way, _ in ways], [weight for _, weight in ways])
        way()
