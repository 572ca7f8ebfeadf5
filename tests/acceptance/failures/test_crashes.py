"""Killed processes: nothing is paid twice, and nothing is lost."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest
from redis import Redis

from config.celeryconfig import configuration
from config.settings import Settings
from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from tests.support.messages import UNACKED_KEY
from voicequeue import State, StoreUnavailableError, VoiceQueue
from workers.messaging.submit_slots import submit_processes

COUNT = 100
#: Children of a worker; all but one send orders.
CHILDREN: int = configuration(Settings(_env_file=None))["worker_concurrency"]

#: Orders that one worker can have in flight.
REQUESTS_IN_FLIGHT = submit_processes(CHILDREN) * Settings.model_fields["upstream_concurrency"].default


def is_busy(queue: VoiceQueue, batch: str) -> bool:
    """Return whether jobs are in every stage: charging, waiting for voices, and waiting for songs."""
    states = queue.batch(batch).states
    return states[State.CHARGING] > 0 and states[State.PENDING] > COUNT // 4


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start two workers whose upstream answers slowly."""
    return build_shared(workers=2, dials={"latency_s": 0.05})


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system with both workers running, after earlier tests killed some."""
    eventually(lambda: all(has_children(shared_system, name) for name in shared_system.workers))
    return shared_system.reset()


def has_children(system: System, worker: str) -> bool:
    """Return whether a worker has its child processes."""
    with suppress(psutil.NoSuchProcess):
        return (pid := system.supervisor.pid(worker)) is not None and len(psutil.Process(pid).children()) == CHILDREN
    return False


def kill(system: System, program: str, *, whole_group: bool) -> None:
    """Kill a program with SIGKILL, alone or with its children, and wait for its replacement."""
    pid = system.supervisor.pid(program)
    assert pid is not None
    if whole_group:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: system.supervisor.pid(program) not in (None, pid), otherwise=f"{program} was not restarted")


@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(True, marks=pytest.mark.essential, id="with its children"), pytest.param(False, id="alone")],
)
def test_a_killed_worker_loses_no_job_and_pays_for_none_twice(system: System, whole_group: bool) -> None:
    """After SIGKILL amid work every job succeeds, or is unsure if its POST was in flight."""
    batch = f"group-{whole_group}"
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT, batch))
        eventually(lambda: is_busy(queue, batch))
        kill(system, "worker.1", whole_group=whole_group)
        eventually(lambda: settled(queue, batch), within_s=60, otherwise=str(queue.batch(batch)))

    states = verified_states(system, COUNT, batch)

    assert states[State.UNSURE] <= REQUESTS_IN_FLIGHT


def test_a_killed_valkey_restarts_from_its_file_and_nothing_is_lost(system: System) -> None:
    """After SIGKILL of Valkey, workers wait or restart; every paid result is kept."""
    with system.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "valkey"))
        eventually(lambda: is_busy(queue, "valkey"))
    kill(system, "valkey", whole_group=False)
    with system.queue() as queue:
        eventually(lambda: _settled_if_it_answers(queue, "valkey"), within_s=60)

    verified_states(system, COUNT, "valkey")


def test_the_only_worker_is_killed_and_its_successor_finishes(system: System) -> None:
    """Without any running worker, the restarted one finds everything in the records."""
    with system.supervisor.held_down("worker.2"), system.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "alone"))
        eventually(lambda: is_busy(queue, "alone"))
        kill(system, "worker.1", whole_group=True)
        eventually(lambda: settled(queue, "alone"), within_s=60, otherwise=str(queue.batch("alone")))

    verified_states(system, COUNT, "alone")


def test_a_worker_that_holds_polls_survives_a_restart_of_valkey(build: Build) -> None:
    """A worker normally holds polls with a countdown: it survives, and its messages are returned to the queue."""
    system = build(
        workers=1, dials={"voice_s": 2}, VOICEQUEUE_POLL_MIN_INTERVAL_S="3", VOICEQUEUE_POLL_MAX_INTERVAL_S="3.5"
    )
    with system.queue() as queue:
        queue.enqueue_many(jobs(10))
        eventually(lambda: queue.batch("voices").states[State.PENDING] == 10)
    eventually(lambda: unacknowledged(system))
    worker = system.supervisor.pid("worker.1")
    kill(system, "valkey", whole_group=False)
    with system.queue() as queue:
        eventually(lambda: _settled_if_it_answers(queue, "voices"), within_s=60)

    assert system.supervisor.pid("worker.1") == worker
    eventually(lambda: not unacknowledged(system), otherwise="messages wait for the visibility timeout")
    assert verified_states(system, 10)[State.SUCCEEDED] == 10


def unacknowledged(system: System) -> int:
    """Return how many messages are held by workers without acknowledgement."""
    with Redis.from_url(system.redis_url) as redis:
        return int(redis.hlen(UNACKED_KEY))


def _settled_if_it_answers(queue: VoiceQueue, batch: str) -> bool:
    try:
        return settled(queue, batch)
    except StoreUnavailableError:
        return False
