"""Hosts whose clocks are wrong, and are changed while they work: jobs go by Redis's clock alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.conftest import eventually
from tests.skewed_clock import SkewedClock
from voicequeue import State
from voicequeue.storage.heartbeats import Heard
from voicequeue.storage.job_store import Store, connect
from workers.local.stack import procfile

COUNT = 30

#: Nothing here is ever overdue: a poll that comes at a wrong time would be made up for after this time only (seconds).
STALE_S = 60.0


@dataclass(frozen=True)
class Hosts:
    """Two hosts with a worker each, whose clocks are 120 s apart; the gateway's and the simulator's are right."""

    house: House
    behind: SkewedClock
    ahead: SkewedClock


@pytest.fixture(scope="module")
def hosts(build_for_all: Build) -> Hosts:
    """They order again what is unsure after ten seconds."""
    house = build_for_all(
        workers=0,
        web=True,
        VOICEQUEUE_UNSURE="resubmit",
        VOICEQUEUE_UNSURE_GRACE_S="10",
        VOICEQUEUE_CHARGE_LEASE_S="30",
        VOICEQUEUE_STALE_S=str(STALE_S),
    )
    found = Hosts(house, SkewedClock(house.home / "behind", -90), SkewedClock(house.home / "ahead", 30))
    for name, clock in (("worker.1", found.behind), ("worker.2", found.ahead)):
        house.stack.start(name, clock.command(procfile()["worker"]))
    house.stack.wait_for_workers(2)
    return found


def test_hosts_whose_clocks_differ_charge_once_and_poll_on_time(hosts: Hosts) -> None:
    """What one of them is unsure of, the other does not take for forgotten: a webhook settles it in time. Both are
    alive, and say by how much their clocks are off."""
    house = hosts.house.renew()
    house.dial(post_faults={"reset_after": 0.4}, webhook="once")
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT))
        eventually(lambda: queue.batch("voices").states[State.SUCCEEDED] == COUNT, within_s=STALE_S / 2)
        assert queue.status().workers == 2

    nothing_lost_nothing_paid_twice(house, COUNT)
    assert [heard.ahead for heard in heartbeats(house)] == [pytest.approx(-90, abs=1), pytest.approx(30, abs=1)]


def test_a_clock_that_is_changed_while_orders_are_pending_fails_none_and_delays_none(hosts: Hosts) -> None:
    """One by an hour ahead, which is past every deadline, the other back: paid results are waited for as before."""
    house = hosts.house.renew()
    house.dial(voice_s=2.0, jitter=0, webhook="never")
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "steps"))
        eventually(lambda: queue.batch("steps").states[State.PENDING] == COUNT)
        hosts.ahead.set(3_600)
        hosts.behind.set(-3_600)
        eventually(lambda: settled(queue, "steps"), within_s=STALE_S / 2)

    assert nothing_lost_nothing_paid_twice(house, COUNT, "steps")[State.SUCCEEDED] == COUNT


def heartbeats(house: House) -> list[Heard]:
    """What the workers said last, that whose clock is furthest behind first."""
    with connect(house.redis_url) as redis:
        store = Store(redis)
        return sorted(store.pulses["worker"].since(store.clock() - 5), key=lambda heard: heard.ahead)
