"""Hosts with wrong clocks, which change while jobs run: jobs depend on Redis's clock alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from tests.skewed_clock import SkewedClock
from voicequeue import State
from voicequeue.storage.connection.client import connect
from voicequeue.storage.heartbeats import ProcessHeartbeat
from voicequeue.storage.job_store import JobStore
from workers.local.stack import procfile

COUNT = 30

#: Longer than the test: nothing becomes overdue, so a poll at a wrong time is not repaired by maintenance.
STALE_S = 60.0


@dataclass(frozen=True)
class Hosts:
    """Two hosts with a worker each, whose clocks are 120 s apart; the clocks of the gateway and the simulator are
    right."""

    system: System
    behind: SkewedClock
    ahead: SkewedClock


@pytest.fixture(scope="module")
def hosts(build_shared: Build) -> Hosts:
    """Start two hosts that resubmit unsure jobs after ten seconds."""
    system = build_shared(
        workers=0,
        web=True,
        VOICEQUEUE_UNSURE_POLICY="resubmit",
        VOICEQUEUE_UNSURE_RESUBMIT_DELAY_S="10",
        VOICEQUEUE_SUBMIT_LEASE_S="30",
        VOICEQUEUE_OVERDUE_AFTER_S=str(STALE_S),
    )
    hosts = Hosts(system, SkewedClock(system.home / "behind", -90), SkewedClock(system.home / "ahead", 30))
    for name, clock in (("worker.1", hosts.behind), ("worker.2", hosts.ahead)):
        system.stack.start(name, clock.command(procfile()["worker"]))
    system.stack.wait_for_workers(2)
    return hosts


def test_hosts_whose_clocks_differ_charge_once_and_poll_on_time(hosts: Hosts) -> None:
    """One worker does not treat the other's unsure job as overdue: a webhook settles it in time. Both workers count as
    running and report the drift of their clocks."""
    system = hosts.system.reset()
    system.dial(post_faults={"reset_after": 0.4}, webhook="once")
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT))
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == COUNT, within_s=STALE_S / 2)
        assert queue.status().workers == 2

    verified_states(system, COUNT)
    assert [heartbeat.clock_ahead_s for heartbeat in heartbeats(system)] == [
        pytest.approx(-90, abs=1),
        pytest.approx(30, abs=1),
    ]


def test_a_clock_change_fails_and_delays_no_pending_order(hosts: Hosts) -> None:
    """One clock jumps an hour ahead, past every deadline, the other an hour back: paid results still arrive."""
    system = hosts.system.reset()
    system.dial(voice_s=2.0, jitter=0, webhook="never")
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "steps"))
        eventually(lambda: queue.batch("steps").states[State.PENDING] == COUNT)
        hosts.ahead.set(3_600)
        hosts.behind.set(-3_600)
        eventually(lambda: settled(queue, "steps"), within_s=STALE_S / 2)

    assert verified_states(system, COUNT, "steps")[State.SUCCEEDED] == COUNT


def heartbeats(system: System) -> list[ProcessHeartbeat]:
    """Return the workers' last heartbeats, the slowest clock first."""
    with connect(system.redis_url) as redis:
        store = JobStore(redis)
        return sorted(
            store.heartbeats["worker"].since(store.clock() - 5), key=lambda heartbeat: heartbeat.clock_ahead_s
        )
