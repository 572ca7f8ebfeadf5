"""Workers whose connections to Redis the network forgets, without a word to either side, or closes again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import Build, jobs, settled, verified_states
from tests.conftest import eventually
from tests.support.forgetting import ForgettingProxy, forgetting_proxy
from voicequeue import State
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import consumed_queues

#: The longest time without consumption (seconds).
RESUMES_WITHIN_S = 30.0

#: Connections that a balancer closes while it has no server.
CLOSED_MIN = 100


@pytest.fixture
def open_proxy() -> Iterator[Callable[[str], ForgettingProxy]]:
    """Yield a function that opens a proxy. It outlives the processes that use it if it comes before `build`."""
    with ExitStack() as proxies:
        yield lambda redis_url: proxies.enter_context(forgetting_proxy(redis_url))


def test_a_worker_whose_connections_are_all_forgotten_consumes_again_within_30_s(
    open_proxy: Callable[[str], ForgettingProxy], build: Build
) -> None:
    """Nothing is lost or charged twice, and its heartbeats report how long it has consumed nothing."""
    system = build(workers=0)
    proxy = open_proxy(system.redis_url)
    with Redis.from_url(system.redis_url, decode_responses=True) as redis:
        system.stack.use_redis(proxy.url)
        system.workers.extend(system.stack.start_workers(1))
        store = JobStore(redis)

        def worker() -> ProcessHeartbeat:
            return store.heartbeats["worker"].alive(store.clock() - 60)[0]

        with system.queue() as queue:
            queue.enqueue_many(jobs(3, "before"))
            eventually(lambda: settled(queue, "before"), within_s=60)
            proxy.forget()
            longest_idle_s = 0.0
            queue.enqueue_many(jobs(3))

            def is_consumed() -> bool:
                nonlocal longest_idle_s
                longest_idle_s = max([longest_idle_s, *consumed_queues(worker()).values()])
                states = queue.batch("voices").states
                return states[State.QUEUED] + states[State.ADMITTED] == 0

            eventually(is_consumed, within_s=RESUMES_WITHIN_S)
            eventually(lambda: settled(queue), within_s=60)
            spent = sum(job.credits for job in queue.jobs(batch="before"))

    assert proxy.swallowed > 0
    assert 0 < longest_idle_s < RESUMES_WITHIN_S
    verified_states(system, 3, spent_elsewhere=spent)


def test_processes_outlive_a_balancer_that_closes_every_connection(
    open_proxy: Callable[[str], ForgettingProxy], build: Build
) -> None:
    """Workers and gateway wait as for a Redis that is down: nothing is lost or charged twice, and no process ends."""
    system = build(workers=0)
    proxy = open_proxy(system.redis_url)
    system.stack.use_redis(proxy.url)
    system.workers.extend(system.stack.start_workers(2))
    web = system.stack.start_gateway(webhooks=True)
    before = [system.supervisor.pid(name) for name in (*system.workers, "web")]
    with system.queue() as queue:
        queue.enqueue_many(jobs(30))
        eventually(lambda: queue.batch("voices").states[State.PENDING] > 0, within_s=60)
        proxy.close_all()
        assert not settled(queue)
        eventually(lambda: proxy.closed > CLOSED_MIN, within_s=60)
        assert requests.get(f"{web}/readyz", timeout=20).status_code == 503
        proxy.closes_all = False
        eventually(lambda: settled(queue), within_s=60)

    assert [system.supervisor.pid(name) for name in (*system.workers, "web")] == before
    assert "RecursionError" not in system.logs() + (system.home / "log" / "web.log").read_text()
    verified_states(system, 30)
