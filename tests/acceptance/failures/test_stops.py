"""Stopping a worker, by any signal: no POST starts and none is cut off."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.acceptance.conftest import Build, System, jobs
from tests.conftest import eventually
from voicequeue import State, VoiceQueue

#: POSTs that the worker sends at once, and the duration of each in seconds.
AT_ONCE, POST_S = 4, 1.5

SLOW = {"latency_s": POST_S, "voice_s": 600}
#: Nothing is polled during the test: answers to polls are as slow.
ENV = {
    "VOICEQUEUE_UPSTREAM_CONCURRENCY": "2",
    "VOICEQUEUE_POLL_MIN_INTERVAL_S": "50",
    "VOICEQUEUE_POLL_MAX_INTERVAL_S": "60",
}

STOPS = [
    (signal.SIGTERM, False),
    (signal.SIGTERM, True),
    (signal.SIGHUP, True),
    (signal.SIGQUIT, True),
    (signal.SIGKILL, False),
]


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start one worker with slow POSTs, and three processes of which two send them."""
    return build_shared(workers=1, dials=SLOW, **ENV)


@pytest.mark.parametrize(
    ("number", "whole_group"),
    STOPS,
    ids=[f"{number.name} to the {'group' if group else 'worker'}" for number, group in STOPS],
)
def test_a_stop_starts_no_post_and_cuts_none_off(system: System, number: signal.Signals, whole_group: bool) -> None:
    """All POSTs in flight are answered and recorded, none starts after the signal, the other jobs are queued again at
    once, no process is left, and the log has no error."""
    batch = f"{number.name}-{whole_group}"
    with system.queue() as queue:
        queue.enqueue_many(jobs(3 * AT_ONCE, batch))
        eventually(lambda: queue.batch(batch).states[State.CHARGING] == AT_ONCE)
        eventually(lambda: charges(system, batch) == AT_ONCE)
        children = children_of(system)
        with system.supervisor.held_down("worker.1", number, whole_group=whole_group):
            eventually(lambda: not any(map(is_running, children)), otherwise="children are still running")
            states = queue.batch(batch).states
            paid = charges(system, batch)
            cancel_queued(queue, batch)

    assert '"level": "error"' not in system.logs()
    assert paid == AT_ONCE
    assert {state: count for state, count in states.items() if count} == {
        State.PENDING: AT_ONCE,
        State.QUEUED: 2 * AT_ONCE,
    }


def charges(system: System, batch: str) -> int:
    """Return how many POSTs upstream has charged for the batch."""
    return sum(f"/{batch}/" in charge["subject"] for charge in system.ledger()["charges"])


def children_of(system: System) -> list[psutil.Process]:
    """Return the processes in which the worker runs its tasks."""
    pid = system.supervisor.pid("worker.1")
    assert pid is not None
    return psutil.Process(pid).children()


def is_running(process: psutil.Process) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cancel_queued(queue: VoiceQueue, batch: str) -> None:
    """Cancel the rest of the batch, so that the next test starts without jobs."""
    for job in queue.jobs(batch=batch, state=State.QUEUED):
        queue.cancel(job.id)
