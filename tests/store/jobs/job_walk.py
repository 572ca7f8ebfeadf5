"""The rules of random walks that concern jobs: enqueueing, transitions, polls and maintenance."""

from __future__ import annotations

import itertools
from collections import Counter
from math import inf
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from redis import Redis

from tests.store.life import (
    NOW,
    all_records,
    claim_submit,
    dump_keys,
    get_job,
)
from tests.store.spending import spenders
from tests.support.jobs import SONG, URL
from voicequeue import Failure, FailureCode, Job, Priority, Stage, State, VoiceJob
from voicequeue.client import cancelling
from voicequeue.domain import serialization
from voicequeue.domain.budgets import counters_of, spent_fields
from voicequeue.domain.claims import EnqueueOutcome, PollClaim, PollReschedule, SubmitClaim, SubmitDeferred
from voicequeue.domain.gate import HoldReason, Limits
from voicequeue.domain.job import Transition
from voicequeue.domain.namespaces import split
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import IN_FLIGHT, SETTLED, TRANSITIONS
from voicequeue.storage.job_store import JobStore

walks = itertools.count()

specs = st.builds(
    lambda source, song, key, batch, priority, within, shared: VoiceJob(
        **source,
        **({} if "persona_id" in source else shared),
        song=SONG if song or "persona_id" in source else None,
        key=key,
        batch=batch,
        priority=priority,
        start_within_s=within,
    ),
    source=st.sampled_from([{"audio_url": URL}, {"audio_url": f"{URL}?2"}, {"persona_id": "p"}]),
    song=st.booleans(),
    key=st.sampled_from([None, None, "a", "b"]),
    batch=st.sampled_from([None, "spring", "summer"]),
    priority=st.sampled_from(Priority),
    within=st.sampled_from([None, None, 20.0, 100.0]),
    shared=st.sampled_from([{}, {}, {"reuse": True}, {"voice": "ana"}]),
)
sources = st.sampled_from([Source.LIBRARY, Source.HTTP.with_caller("app"), Source.HTTP.with_caller("web")])
some = st.integers(0, 10**6)


def is_batch(qualified: str | None) -> bool:
    """Return whether the `batch` of a record is a batch, not only a namespace."""
    return bool(split(qualified or "")[1])


class JobWalk(RuleBasedStateMachine):
    """The rules of a walk that enqueue jobs, move them and maintain them, with a prefix of its own."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis
        self.prefix = f"walk{next(walks)}"
        self.store = JobStore(self.redis, self.prefix, limits=Limits(in_flight=12, initial_in_flight=5))
        self.now = NOW
        self.specs: dict[str, VoiceJob] = {}
        self.claims: list[PollClaim] = []
        #: The budgets of owners that are no batches.
        self.budgets: dict[str, dict[str, int]] = {}
        #: What each batch had spent, or may have, after the last step.
        self.at_stake: Counter[str] = Counter()
        #: Jobs whose cancellation was requested during an order, and how many orders they had then.
        self.withdrawn: dict[str, int] = {}

    def teardown(self) -> None:
        self.redis.flushdb()

    def job(self, number: int) -> Job:
        return get_job(self.store, list(self.specs)[number % len(self.specs)])

    def due(self, to: State) -> float | None:
        return self.now + 5 if to in IN_FLIGHT else None

    def record(self, name: str) -> dict[str, str]:
        result: Any = self.redis.hgetall(f"{{{self.prefix}}}:{name}")
        return dict(result)

    # ── jobs ──────────────────────────────────────────────────────────────────────────────

    @rule(jobs=st.lists(specs, max_size=4), namespace=st.sampled_from(["", "", "shop", "named-x"]), source=sources)
    def enqueue(self, jobs: list[VoiceJob], namespace: str, source: str) -> None:
        store = self.store.in_namespace(namespace)
        pairs = [(store.job_ids.of(spec), spec) for spec in jobs]
        for (job_id, spec), outcome in zip(pairs, store.enqueue(pairs, self.now, source=source), strict=True):
            if outcome is EnqueueOutcome.OTHER_VOICE:
                assert spec.voice
                continue
            standing = self.specs.setdefault(job_id, spec)
            if not outcome.is_new:
                assert (outcome is EnqueueOutcome.EXISTING) == (standing == spec)

    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.specs)
    @rule(number=some, stage=st.sampled_from(Stage), holder=st.sampled_from("xy"))
    def charge(self, number: int, stage: Stage, holder: str) -> None:
        job, gate = self.job(number), self.store.flow_control.gate(self.now)
        sending = self.store.counts_by_state()[State.CHARGING]
        rate = self.store.flow_control.limits().submit_rate
        again = job.state is State.CHARGING
        claim = claim_submit(self.store, job.id, stage, holder, self.now, lease=20)
        assert claim is None or (job.stage is stage and job.state in {State.ADMITTED, State.CHARGING})
        if isinstance(claim, SubmitDeferred):
            assert rate
            assert 0 < claim.retry_in_s <= 60 / rate
        if isinstance(claim, SubmitClaim) and not again:
            assert all(hold.is_on_trial or self.is_open_for(hold.reason, stage) for hold in gate.holds)
            assert sending == 0 or not any(hold.is_on_trial for hold in gate.holds)
            self.every_limit_holds(job.qualified_batch)
            for counters in ("counters", *spenders({"batch": job.qualified_batch, "source": job.source or ""})):
                assert self.has_budget("account" if counters == "counters" else counters.replace(":", "/", 1))

    def every_limit_holds(self, name: str) -> None:
        """Check, before a POST, that the account and the batch can pay for it and for all that may be charged."""
        account, limits = self.store.flow_control.account(), self.store.flow_control.limits()
        assert account.balance is None or account.balance - account.reserved >= limits.min_balance
        batch = self.store.batch(name) if name else None
        if batch is not None:
            assert not batch.is_paused
            assert batch.max_in_flight is None or sum(batch.states[s] for s in IN_FLIGHT) <= batch.max_in_flight
            assert batch.max_credits is None or batch.credits + batch.reserved_credits <= batch.max_credits

    def has_budget(self, owner: str, *, slots: int = 0, cost: int = 0) -> bool:
        """Return whether an owner can pay this for all that may be charged, and has so many more slots."""
        limits = self.budgets.get(owner, {})
        counts = Counter({name: int(n) for name, n in self.record(counters_of(owner)).items() if n.isdigit()})
        claimed = cost + counts["reserved"] + counts["unsettled"] - counts["purged.unsettled"]
        periods = spent_fields(self.now).items()
        return counts["in_flight"] + slots <= limits.get("max_in_flight", inf) and all(
            counts[field] + claimed <= limits.get(period, inf) for period, field in periods
        )

    def is_open_for(self, reason: str, stage: Stage) -> bool:
        """Return whether a hold lets a job of this stage with a slot be submitted."""
        if reason == HoldReason.OUT_OF_CREDITS:
            return HoldReason.OUT_OF_CREDITS not in self.record("gate")
        return reason.startswith("paused.") and reason != f"paused.{stage}"

    @precondition(lambda self: self.specs)
    @rule(number=some, way=some, late=st.booleans())
    def move(self, number: int, way: int, late: bool) -> None:
        job = self.job(number)
        if ways := sorted(TRANSITIONS[job.state]):
            self.make(job, ways[way % len(ways)], late=late)

    @precondition(lambda self: self.specs)
    @rule(number=some)
    def succeed(self, number: int) -> None:
        """Move a job forward on the regular path, so that walks reach every state."""
        job = self.job(number)
        ways = {
            State.CHARGING: State.PENDING,
            State.PENDING: State.ADMITTED if job.stage is not job.spec.stages[-1] else State.SUCCEEDED,
        }
        if job.state is State.ADMITTED:
            claim_submit(self.store, job.id, job.stage, "x", self.now, lease=20)
        elif job.state in ways:
            self.make(job, ways[job.state], late=False)

    @precondition(lambda self: self.specs)
    @rule(numbers=st.lists(some, min_size=1, max_size=4))
    def cancel(self, numbers: list[int]) -> None:
        """Cancel jobs; afterwards only submitted ones are active."""
        for job in cancelling.cancel(self.store, [self.job(number) for number in numbers], self.now):
            assert job.state in SETTLED or (job.is_cancelling and job.state in (State.CHARGING, State.UNSURE))
            if job.is_cancelling:
                self.withdrawn.setdefault(job.id, job.attempt)

    def make(self, job: Job, to: State, *, late: bool) -> None:
        if job.state is State.FAILED and not late:
            self.withdrawn.pop(job.id, None)  # retried
        paid = job.state in (State.CHARGING, State.UNSURE) and to is State.PENDING
        lost = job.state is State.UNSURE and (to is State.FAILED or (to is State.ADMITTED and self.is_resubmitted(job)))
        transition = Transition(
            job.id,
            job.version - late,
            job.state,
            job.stage,
            to,
            to_stage=Stage.MUSIC if job.state is State.PENDING and to is State.ADMITTED else None,
            due=self.due(to),
            fields={**self.fields(job, to), **self.lost_too(job, lost)},
            credits=PRICES[job.stage] if paid else 0,
            released_credits=PRICES[job.stage] if lost else 0,
        )
        before = dump_keys(self.redis, self.prefix)
        assert self.store.apply_transitions([transition], self.now) == [not late]
        assert (dump_keys(self.redis, self.prefix) == before) is late

    def is_resubmitted(self, job: Job) -> bool:
        """Return whether the lost order is resubmitted; otherwise a late response said that it was not charged."""
        return not job.is_cancelling and job.version % 2 == 0

    def lost_too(self, job: Job, lost: bool) -> dict[str, str]:
        return {"lost_orders": serialization.lost_text({**job.lost_stages, job.attempt: job.stage})} if lost else {}

    def fields(self, job: Job, to: State) -> dict[str, str | None]:
        """Return the fields that callers write with such a transition."""
        fields: dict[str, str | None] = {}
        if to is State.FAILED:
            code = list(FailureCode)[job.version % len(FailureCode)]
            fields["failure"] = serialization.failure_text(Failure(code, job.stage, "no"))
        elif job.state is State.FAILED:
            fields["failure"] = None
        if job.state is State.PENDING and job.stage is Stage.VOICE and to in (State.ADMITTED, State.SUCCEEDED):
            fields |= {"persona_id": f"p-{job.id}", "voice_name": "ana"}
        if to is State.PENDING:
            fields |= {serialization.task_field(job.stage): "t", "submitted_at": str(self.now)}
        return fields

    # ── polls and maintenance ─────────────────────────────────────────────────────────────

    @rule(named=st.integers(0, 9), near=st.sampled_from([0.0, 5.0]))
    def claim(self, named: int, near: float) -> None:
        self.claims += self.store.claim_poll(
            list(self.specs)[:named], self.now, lease_s=20, coalesce_window_s=near, at_most=9
        )

    @rule()
    def plan(self) -> None:
        self.store.reschedule_polls(PollReschedule(claim.job_id, claim.version, self.now + 10) for claim in self.claims)
        self.claims = []

    @rule()
    def overdue(self) -> None:
        for result in self.store.lease_overdue(self.now, overdue_s=10):
            job = get_job(self.store, result.job_id)
            assert (job.version, job.state, job.stage) == (result.version, result.state, result.stage)

    @rule()
    def expire(self) -> None:
        for result in self.store.lease_expired(self.now):
            job = get_job(self.store, result.job_id)
            assert (job.version, job.state, job.stage) == (result.version, result.state, result.stage)
            assert job.state in (State.QUEUED, State.WAITING)
            assert job.credits == 0
            assert job.created_at + (job.spec.start_within_s or 1e9) <= self.now + 1e-5
            self.make(job, State.FAILED, late=False)

    @rule(age=st.sampled_from([-1.0, 0.0, 30.0]))
    def purge(self, age: float) -> None:
        """Purge exactly the jobs settled before the retention period without a pending late result."""
        late: Any = self.redis.zrange(f"{{{self.prefix}}}:late_results", 0, -1)
        over = {
            job_id
            for job_id, record in self.all_records().items()
            if record["state"] in SETTLED and float(record["updated"]) < self.now - age
        }
        assert sum(self.store.purge(self.now - age + 60, retention_s=60, at_most=2)) == len(over - set(late))
        self.specs = {job_id: spec for job_id, spec in self.specs.items() if job_id not in over - set(late)}
        self.claims = [claim for claim in self.claims if claim.job_id in self.specs]
        self.withdrawn = {job_id: n for job_id, n in self.withdrawn.items() if job_id in self.specs}

    def all_records(self) -> dict[str, dict[str, str]]:
        """Return all records."""
        return all_records(dump_keys(self.redis, self.prefix), self.prefix)
