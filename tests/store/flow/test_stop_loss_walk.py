"""Random lives of jobs in batches with stop-loss: each outcome counts once, and no claim follows a stop."""

from __future__ import annotations

from random import Random

import pytest
from redis import Redis

from tests.store.jobs.outcomes import Outcomes
from tests.store.life import (
    NOW,
    accept_order,
    all_records,
    apply_transition,
    assert_consistent,
    claim_submit,
    dump_keys,
    enqueue_jobs,
    fail_job,
    get_job,
    transition_of,
)
from tests.support.jobs import SONG
from voicequeue import FailureCode, Job, Stage, State, VoiceJob
from voicequeue.client import cancelling
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.namespaces import index_of, namespace_of, split
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import SETTLED
from voicequeue.storage.job_store import JobStore

BATCHES = ("spring", "shop/spring")
STEPS = 120

#: Failures of orders that are not charged.
FREE = (FailureCode.REFUSED, FailureCode.MODERATED, FailureCode.RECORDING_UNFIT)


class StopLossWalk:
    """A store whose jobs live at random, and the model that follows their outcomes."""

    def __init__(self, redis: Redis, prefix: str, store: JobStore, seed: int) -> None:
        self.redis, self.prefix, self.store, self.chance = redis, prefix, store, Random(seed)
        self.outcomes = Outcomes()
        self.now, self.stops, self.created = NOW, 0, 0
        for batch in BATCHES:
            store.set_batch_limits(batch, stop_after=0.5, stop_min=2)

    def run(self) -> None:
        """Make random steps and check after each."""
        steps = (self.enqueue, self.submit, self.submit, self.settle, self.settle, self.settle_chunk, self.leave_failed)
        rare = (self.refuse, self.cancel, self.limit, self.resume, self.purge)
        for _ in range(STEPS):
            self.now += 1
            self.chance.choice((*steps, *steps, *rare))()
            self.check()

    def check(self) -> None:
        """Compare samples, stops and counters with the records and timelines."""
        keys, root = dump_keys(self.redis, self.prefix), f"{{{self.prefix}}}:"
        records = all_records(keys, self.prefix)
        self.outcomes.follow(records, {job_id: keys.get(f"{root}timeline:{job_id}", []) for job_id in records})
        before = set(self.outcomes.stopped)
        for batch in BATCHES:
            if batch not in keys.get(root + index_of("batches", namespace_of(batch)), {}):
                self.outcomes.restart(batch)
            self.outcomes.check(batch, keys.get(f"{root}batch:{batch}", {}))
        assert set(keys.get(f"{root}batches:stopped", {})) == self.outcomes.stopped
        self.stops += len(self.outcomes.stopped - before)
        assert_consistent(self.redis, self.prefix)

    def some(self, *states: State) -> Job | None:
        """Return a random job in one of these states."""
        job_ids = sorted(job_id for state in states for job_id in self.store.list_ids(state=state))
        return get_job(self.store, self.chance.choice(job_ids)) if job_ids else None

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────

    def enqueue(self) -> None:
        """Add jobs, some of which share a voice."""
        for _ in range(self.chance.randint(1, 4)):
            self.created += 1
            namespace, batch = split(self.chance.choice([*BATCHES, "", "shop/"]))
            spec = VoiceJob(
                audio_url=f"https://a.example/{self.chance.randint(1, 3)}.wav",
                song=self.chance.choice([None, SONG]),
                key=f"{self.created}",
                batch=batch or None,
                reuse=self.chance.random() < 0.2,
            )
            enqueue_jobs(self.store.in_namespace(namespace), spec, now=self.now)

    def submit(self) -> None:
        """Admit and claim jobs; upstream accepts their orders."""
        self.store.admit(self.now)
        for job_id in list(self.store.list_ids(state=State.ADMITTED)):
            job = get_job(self.store, job_id)
            claim = claim_submit(self.store, job_id, job.stage, "x", self.now, lease=90)
            if isinstance(claim, SubmitClaim):
                assert job.qualified_batch not in self.outcomes.stopped
                accept_order(self.store, job_id, self.now)

    def refuse(self) -> None:
        """Admit and claim a job, whose order fails at once and is not charged."""
        self.store.admit(self.now, at_most=1)
        if (job := self.some(State.ADMITTED)) is None:
            return
        claim = claim_submit(self.store, job.id, job.stage, "x", self.now, lease=90)
        if isinstance(claim, SubmitClaim):
            assert job.qualified_batch not in self.outcomes.stopped
            fail_job(self.store, get_job(self.store, job.id), self.chance.choice(FREE), self.now)

    def settle(self) -> None:
        """Finish a stage of a job, or fail it."""
        if (job := self.some(State.PENDING)) is None:
            return
        if self.chance.random() < 0.6:
            fail_job(self.store, job, self.chance.choice(list(FailureCode)), self.now)
        elif job.stage is Stage.VOICE and job.spec.song:
            fields: dict[str, str | None] = {"persona_id": f"p-{job.id}"}
            apply_transition(self.store, job, State.ADMITTED, self.now, to_stage=Stage.MUSIC, fields=fields)
        else:
            persona = {"persona_id": f"p-{job.id}"} if job.stage is Stage.VOICE else {}
            apply_transition(self.store, job, State.SUCCEEDED, self.now, fields={**persona, "settled": str(self.now)})

    def settle_chunk(self) -> None:
        """Finish many songs in one script, twice: the second time changes nothing."""
        jobs = [get_job(self.store, job_id) for job_id in self.store.list_ids(state=State.PENDING)]
        chunk = [
            transition_of(job, State.SUCCEEDED, due=None, fields={"settled": str(self.now)})
            for job in jobs
            if job.stage is Stage.MUSIC and self.chance.random() < 0.5
        ]
        self.store.apply_transitions(chunk, self.now)
        assert not any(self.store.apply_transitions(chunk, self.now))

    def leave_failed(self) -> None:
        """Retry a failed job with a new order or the same one, or learn another outcome of it."""
        if (job := self.some(State.FAILED)) is None:
            return
        no_failure: dict[str, str | None] = {"failure": None, "settled": None}
        match self.chance.randrange(4):
            case 0:
                apply_transition(self.store, job, State.QUEUED, self.now, fields=no_failure)
            case 1:
                apply_transition(self.store, job, State.PENDING, self.now, fields=no_failure, credits=PRICES[job.stage])
            case 2:
                apply_transition(self.store, job, State.SUCCEEDED, self.now, fields={"failure": None})
            case _:
                fail_job(self.store, job, self.chance.choice(list(FailureCode)), self.now)

    def cancel(self) -> None:
        """Cancel a job."""
        if job := self.some(*(set(State) - SETTLED)):
            cancelling.cancel(self.store, [job], self.now)

    def limit(self) -> None:
        """Change the limit; one that is reached already stops the batch."""
        batch = self.chance.choice(BATCHES)
        self.store.set_batch_limits(batch, stop_after=self.chance.choice([0.3, 0.6, 1.0]), stop_min=2)

    def resume(self) -> None:
        """Resume a batch, which counts from the beginning if it was stopped."""
        batch = self.chance.choice(BATCHES)
        was_stopped = batch in self.outcomes.stopped
        assert self.store.set_batch_limits(batch, paused=False) == was_stopped
        if was_stopped:
            self.outcomes.restart(batch)

    def purge(self) -> None:
        """Purge old jobs."""
        list(self.store.purge(self.now, retention_s=self.chance.choice([20.0, 60.0])))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.endurance) for seed in (1, 2))])
def test_each_outcome_counts_once_and_no_claim_follows_a_stop(
    redis: Redis, prefix: str, store: JobStore, seed: int
) -> None:
    """Through retries, late results, shared voices, cancellations, chunks, purges and resumptions."""
    walk = StopLossWalk(redis, prefix, store, seed)

    walk.run()

    assert walk.stops
