"""Many enqueuers and several workers at once never spend more than a day's budget."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from redis import Redis

from tests.store.life import NOW, accept_order, apply_transition, assert_consistent, enqueue_jobs, get_job, report_order
from tests.support.jobs import voice_with_song
from voicequeue import Stage, State
from voicequeue.client.orders import record_charged_order
from voicequeue.domain import transitions
from voicequeue.domain.claims import ChargedOrder, SubmitClaim
from voicequeue.domain.stage import PRICES
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

ENQUEUERS, WORKERS, BUDGET, LOST = 200, 4, 500, 0.05


class Upstream:
    """Charges every order that it receives; some of its responses are lost."""

    def __init__(self, seed: int) -> None:
        self._lock, self._chance = threading.Lock(), random.Random(seed)
        self.charged, self.loss = 0, LOST
        self.lost: list[ChargedOrder] = []

    def submit(self, order: ChargedOrder) -> bool:
        """Charge the order. Return whether its response arrives; at least the first is lost."""
        with self._lock:
            self.charged += PRICES[order.stage]
            is_lost = not self.lost or self._chance.random() < self.loss
            if is_lost:
                self.lost.append(order)
            return not is_lost


def work(store: JobStore, upstream: Upstream, holder: str) -> int:
    """Admit, submit and finish jobs as far as limits allow, like a worker; return the number of orders."""
    store.admit(NOW)
    orders = 0
    for stage in Stage:
        job_ids = list(store.list_ids(state=State.ADMITTED))
        for claim in store.claim_submit(job_ids, stage, holder, NOW, lease_s=90):
            if isinstance(claim, SubmitClaim):
                orders += 1
                order = ChargedOrder(claim.job_id, stage, claim.attempt, f"t-{claim.job_id}-{claim.attempt}")
                if upstream.submit(order):
                    finish(store, accept_order(store, claim.job_id).id)
                else:
                    apply_transition(store, get_job(store, claim.job_id), State.UNSURE, reason="no answer")
    return orders


def finish(store: JobStore, job_id: str) -> None:
    """Finish the pending stage; a song follows its voice."""
    job = get_job(store, job_id)
    if job.stage is Stage.VOICE:
        apply_transition(store, job, State.ADMITTED, to_stage=Stage.MUSIC, fields={"persona_id": f"p-{job_id}"})
    else:
        apply_transition(store, job, State.SUCCEEDED)


def work_until_idle(store: JobStore, upstream: Upstream, name: str) -> None:
    """Let several workers run at once until none of them submits an order."""

    def run(worker: int) -> int:
        return sum(work(store, upstream, f"{name}-{worker}-{turn}") for turn in range(5))

    with ThreadPoolExecutor(WORKERS) as workers:
        while sum(workers.map(run, range(WORKERS))):
            pass


def test_many_enqueuers_and_workers_never_pass_the_budget_of_a_day(
    store: JobStore, redis: Redis, valkey_url: str, prefix: str
) -> None:
    """Upstream charges at most 500 credits, also when lost orders are given up, resubmitted and reported later."""
    store.flow_control.set_budget("namespace/shop", day=BUDGET, month=None)
    upstream = Upstream(seed=1)
    started = threading.Barrier(ENQUEUERS)

    def enqueue(number: int) -> None:
        started.wait(30)
        with connect(valkey_url) as client:
            app = JobStore(client, prefix).in_namespace("shop")
            enqueue_jobs(app, voice_with_song(key=f"{number}", batch=f"b-{number % 7}"))

    with ThreadPoolExecutor(ENQUEUERS) as enqueuers, ThreadPoolExecutor(1) as workers:
        done = [enqueuers.submit(enqueue, number) for number in range(ENQUEUERS)]
        early = workers.submit(work_until_idle, store, upstream, "early")
        for future in (*done, early):
            future.result()
    work_until_idle(store, upstream, "late")
    assert upstream.charged <= BUDGET

    for number, job_id in enumerate(sorted(store.list_ids(state=State.UNSURE))):
        job = get_job(store, job_id)
        settle = [transitions.abandon, transitions.resubmit][number % 2]
        assert store.apply_transitions([settle(job, NOW)], NOW) == [True]
    work_until_idle(store, upstream, "settled")
    for order in upstream.lost:
        job = get_job(store, order.job_id)
        if job.state is State.UNSURE and job.attempt == order.attempt:
            assert store.apply_transitions([report_order(job, order.task_id)], NOW) == [True]
        else:
            record_charged_order(store, order, NOW, reason="webhook")
    for job_id in list(store.list_ids(state=State.PENDING)):
        finish(store, job_id)
    upstream.loss = 0.0
    work_until_idle(store, upstream, "revived")

    counters = cast(dict[str, str], redis.hgetall(f"{{{prefix}}}:namespace:shop"))
    counted = sum(int(credits) for field, credits in counters.items() if field.startswith("day."))
    assert BUDGET - 19 < upstream.charged <= BUDGET
    assert counted == upstream.charged
    assert_consistent(redis, prefix)
