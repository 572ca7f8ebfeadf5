"""What was paid is not paid again, and nothing is lost, whatever dies."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import psutil
import pytest
from redis import Redis

from config.settings import Settings
from tests.acceptance.conftest import Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.conftest import eventually
from tests.support.messages import UNACKED_KEY
from voicequeue import State, StoreUnreachable, VoiceQueue

COUNT = 100
#: Calls that one worker can have on the way at once: those of each of its two children.
ON_THE_WAY = 2 * Settings.model_fields["http_threads"].default


def in_the_thick_of_it(queue: VoiceQueue, batch: str) -> bool:
    """Jobs are everywhere: being charged or waiting for voices, and others for their songs."""
    states = queue.batch(batch).states
    return states[State.CHARGING] > 0 and states[State.PENDING] > COUNT // 4


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """Two workers, whose upstream takes a moment for each answer."""
    return build_for_all(workers=2, dials={"latency_s": 0.05})


@pytest.fixture
def house(standing: House) -> House:
    """The house for one test: both workers have their children, whatever was killed before."""
    eventually(lambda: all(has_children(standing, name) for name in standing.workers))
    return standing.renew()


def has_children(house: House, worker: str) -> bool:
    """Whether a worker has the two processes that do its tasks."""
    with suppress(psutil.NoSuchProcess):
        return (pid := house.supervisor.pid(worker)) is not None and len(psutil.Process(pid).children()) == 2
    return False


def kill(house: House, program: str, *, whole_group: bool) -> None:
    """SIGKILL a program, alone or with its children, and see that it is another process afterwards."""
    pid = house.supervisor.pid(program)
    assert pid is not None
    if whole_group:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: house.supervisor.pid(program) not in (None, pid), otherwise=f"{program} did not come back")


@pytest.mark.parametrize("whole_group", [True, False], ids=["with its children", "alone"])
def test_a_killed_worker_loses_no_job_and_pays_for_none_twice(house: House, whole_group: bool) -> None:
    """SIGKILL in the thick of it: every job succeeds, or is unsure where its POST was on the way."""
    batch = f"group-{whole_group}"
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT, batch))
        eventually(lambda: in_the_thick_of_it(queue, batch))
        kill(house, "worker.1", whole_group=whole_group)
        eventually(lambda: settled(queue, batch), within_s=60, otherwise=str(queue.batch(batch)))

    states = nothing_lost_nothing_paid_twice(house, COUNT, batch)

    assert states[State.UNSURE] <= ON_THE_WAY


def test_a_killed_valkey_comes_back_on_its_file_and_nothing_is_lost(house: House) -> None:
    """SIGKILL of Valkey: workers wait or are started again; every answer that was paid for is kept."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "valkey"))
        eventually(lambda: in_the_thick_of_it(queue, "valkey"))
    kill(house, "valkey", whole_group=False)
    with house.queue() as queue:
        eventually(lambda: _settled_if_it_answers(queue, "valkey"), within_s=60)

    nothing_lost_nothing_paid_twice(house, COUNT, "valkey")


def test_the_only_worker_is_killed_and_its_successor_finishes(house: House) -> None:
    """With nobody left, the worker that is started again finds everything in the records."""
    with house.supervisor.held_down("worker.2"), house.queue() as queue:
        queue.enqueue_many(jobs(COUNT, "alone"))
        eventually(lambda: in_the_thick_of_it(queue, "alone"))
        kill(house, "worker.1", whole_group=True)
        eventually(lambda: settled(queue, "alone"), within_s=60, otherwise=str(queue.batch("alone")))

    nothing_lost_nothing_paid_twice(house, COUNT, "alone")


def test_a_worker_that_holds_polls_survives_a_restart_of_valkey(build: Build) -> None:
    """Holding countdown polls is a worker's normal state: it stays alive, and what it held is given back."""
    house = build(workers=1, dials={"voice_s": 2}, VOICEQUEUE_POLL_MIN_S="3", VOICEQUEUE_POLL_MAX_S="3.5")
    with house.queue() as queue:
        queue.enqueue_many(jobs(10))
        eventually(lambda: queue.batch("voices").states[State.PENDING] == 10)
    eventually(lambda: messages_held(house))
    worker = house.supervisor.pid("worker.1")
    kill(house, "valkey", whole_group=False)
    with house.queue() as queue:
        eventually(lambda: _settled_if_it_answers(queue, "voices"), within_s=60)

    assert house.supervisor.pid("worker.1") == worker
    eventually(lambda: not messages_held(house), otherwise="messages wait for the visibility timeout")
    assert nothing_lost_nothing_paid_twice(house, 10)[State.SUCCEEDED] == 10


def messages_held(house: House) -> int:
    """Messages that a worker has taken and not acknowledged."""
    with Redis.from_url(house.redis_url) as redis:
        return int(redis.hlen(UNACKED_KEY))


def _settled_if_it_answers(queue: VoiceQueue, batch: str) -> bool:
    try:
        return settled(queue, batch)
    except StoreUnreachable:
        return False
