"""A stop begins no POST and cuts none, however the worker is asked to stop."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.acceptance.conftest import Build, House, jobs
from tests.conftest import eventually
from voicequeue import State, VoiceQueue

#: POSTs that the worker below sends at once, and how long (seconds) each takes.
AT_ONCE, POST_S = 4, 1.5

SLOW = {"latency_s": POST_S, "voice_s": 600}
#: Nothing is polled meanwhile: answers to polls are as slow.
ENV = {"VOICEQUEUE_HTTP_THREADS": "2", "VOICEQUEUE_POLL_MIN_S": "50", "VOICEQUEUE_POLL_MAX_S": "60"}

STOPS = [
    (signal.SIGTERM, False),
    (signal.SIGTERM, True),
    (signal.SIGHUP, True),
    (signal.SIGQUIT, True),
    (signal.SIGKILL, False),
]


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """One worker of two processes, and slow POSTs."""
    return build_for_all(workers=1, dials=SLOW, **ENV)


@pytest.mark.parametrize(
    ("number", "whole_group"),
    STOPS,
    ids=[f"{number.name} to the {'group' if group else 'worker'}" for number, group in STOPS],
)
def test_a_stop_begins_no_post_and_cuts_none(house: House, number: signal.Signals, whole_group: bool) -> None:
    """All POSTs on their way are answered and written, none begins after the signal, what is left is queued again at
    once, and no process is left behind."""
    batch = f"{number.name}-{whole_group}"
    with house.queue() as queue:
        queue.enqueue_many(jobs(3 * AT_ONCE, batch))
        eventually(lambda: queue.batch(batch).states[State.CHARGING] == AT_ONCE)
        eventually(lambda: charges(house, batch) == AT_ONCE)
        children = children_of(house)
        with house.supervisor.held_down("worker.1", number, whole_group=whole_group):
            eventually(lambda: not any(map(is_running, children)), otherwise="children live on")
            states = queue.batch(batch).states
            paid = charges(house, batch)
            cancel_queued(queue, batch)

    assert paid == AT_ONCE
    assert {state: count for state, count in states.items() if count} == {
        State.PENDING: AT_ONCE,
        State.QUEUED: 2 * AT_ONCE,
    }


def charges(house: House, batch: str) -> int:
    """POSTs that upstream has charged for the batch."""
    return sum(f"/{batch}/" in charge["subject"] for charge in house.ledger()["charges"])


def children_of(house: House) -> list[psutil.Process]:
    """The processes in which the worker does its tasks."""
    pid = house.supervisor.pid("worker.1")
    assert pid is not None
    return psutil.Process(pid).children()


def is_running(process: psutil.Process) -> bool:
    """Whether it is there and no zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cancel_queued(queue: VoiceQueue, batch: str) -> None:
    """Take the rest of the batch out of the next test's way."""
    for job in queue.jobs(batch=batch, state=State.QUEUED):
        queue.cancel(job.id)
