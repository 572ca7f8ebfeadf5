"""Many enqueuers, several workers and lost answers: upstream never charges more than the budget of a day."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from redis import Redis

from simulator.process import Simulator
from tasks.webhooks import process_webhook
from tests.integration.conftest import POLL_S, SONG, Bench
from tests.store.life import assert_consistent
from tests.support.jobs import URL
from voicequeue import Stage, State, VoiceJob
from voicequeue.domain import transitions
from voicequeue.domain.source import Source
from voicequeue.storage.audit.audit import audit
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

ENQUEUERS, WORKERS, BUDGET, LOST = 200, 4, 500, 0.05
#: An hour of work fits before midnight.
MORNING_S = 8 * 3600


@dataclass
class Run:
    """Workers of one queue, and the ledger of the simulator."""

    bench: Bench
    simulator: Simulator
    #: Lost orders, by job, stage and attempt, with the task that upstream has for them.
    lost: dict[tuple[str, Stage, int], str] = field(default_factory=dict)

    def work_until_idle(self) -> None:
        """Let all workers submit and poll until no order was sent for a while; check the ledger after each round."""
        idle, before = 0, self.spent()
        while idle < 4:
            self.round()
            spent = self.spent()
            assert spent <= BUDGET
            idle, before = (idle + 1 if spent == before else 0), spent

    def round(self) -> None:
        """Admit jobs; each worker then submits and polls all that it finds."""
        self.bench.admit()
        with ThreadPoolExecutor(WORKERS) as workers:
            for stage in Stage:
                list(workers.map(self.bench.submit, [stage] * WORKERS, [self.ids(State.ADMITTED)] * WORKERS))
            self.bench.clock.now += POLL_S
            for _ in Stage:
                list(workers.map(self.bench.poll, [self.ids(State.PENDING)] * WORKERS))

    def ids(self, state: State) -> list[str]:
        """Return the jobs in this state."""
        return sorted(self.bench.store.list_ids(state=state))

    def spent(self) -> int:
        """Return what upstream has charged."""
        return int(self.simulator.ledger(charges=False)["credits_spent"])

    def settle_lost(self) -> None:
        """Give up every other unsure order and resubmit the others; remember what upstream has for them."""
        tasks = {charge["subject"]: charge["task_id"] for charge in self.simulator.ledger()["charges"]}
        for number, job_id in enumerate(self.ids(State.UNSURE)):
            job, now = self.bench.job(job_id), self.bench.clock.now
            subject = job.spec.audio_url if job.stage is Stage.VOICE else job.persona_id
            self.lost[job.id, job.stage, job.attempt] = tasks[subject or ""]
            settle = [transitions.abandon, transitions.resubmit][number % 2]
            assert self.bench.store.apply_transitions([settle(job, now)], now) == [True]

    def report_lost(self) -> None:
        """Deliver the webhooks of the lost orders."""
        for (job_id, stage, attempt), task_id in self.lost.items():
            process_webhook(self.bench.store, job_id, stage, attempt, task_id)


def enqueue_at_once(valkey_url: str, prefix: str, now: float) -> None:
    """Enqueue jobs of one namespace and API key, each from its own client."""
    started = threading.Barrier(ENQUEUERS)

    def enqueue(number: int) -> None:
        with connect(valkey_url) as client:
            app = JobStore(client, prefix).in_namespace("shop")
            spec = VoiceJob(audio_url=f"{URL}?{number}", song=SONG, key=f"{number}", batch=f"b-{number % 7}")
            started.wait(60)
            app.enqueue([(spec.job_id(namespace="shop"), spec)], now, source=Source.HTTP.with_caller("app"))

    with ThreadPoolExecutor(ENQUEUERS) as enqueuers:
        list(enqueuers.map(enqueue, range(ENQUEUERS)))


@pytest.mark.endurance
@pytest.mark.parametrize("owner", ["namespace/shop", "key/app"])
def test_upstream_never_charges_more_than_the_budget_of_a_day(
    bench: Bench, simulator: Simulator, redis: Redis, valkey_url: str, prefix: str, owner: str
) -> None:
    """Also when lost orders are given up, resubmitted and reported later: 5 % of the answers are lost."""
    bench.clock.now += MORNING_S - bench.clock.now % 86_400
    JobStore(redis, prefix).flow_control.set_budget(owner, day=BUDGET, month=None)
    simulator.set_dials(seed=1, post_faults={"reset_after": LOST})
    run = Run(bench, simulator)
    with ThreadPoolExecutor(1) as enqueuer:
        enqueued = enqueuer.submit(enqueue_at_once, valkey_url, prefix, bench.clock.now)
        run.work_until_idle()
        enqueued.result()
    run.work_until_idle()
    simulator.set_dials(post_faults={})  # otherwise an order that is resubmitted may be lost, too, and remain so
    run.settle_lost()
    run.work_until_idle()
    run.report_lost()
    run.work_until_idle()

    assert run.lost
    assert BUDGET - 19 < run.spent() <= BUDGET
    assert bench.store.credits_spent() == run.spent()
    assert_consistent(redis, prefix)
    assert audit(redis, prefix) == []
