"""Polls of orders that are ready within seconds: one process of a worker makes them, with few messages."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest
from redis import Redis

from tests.acceptance.conftest import Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import State

COUNT = 30

#: Intervals of the default form, without the help of maintenance: a lost poll would be late by ten minutes.
ALONE: Mapping[str, str] = MappingProxyType({"VOICEQUEUE_OVERDUE_AFTER_S": "600", "VOICEQUEUE_TASK_CHUNK_SIZE": "100"})


@pytest.fixture
def system(build: Build) -> System:
    """Start a worker; orders take seconds."""
    return build(workers=1, dials={"voice_s": 3, "music_s": 1}, **ALONE)


@contextmanager
def sent_messages(redis_url: str) -> Iterator[list[str]]:
    """Yield the tasks of the messages that are sent meanwhile."""
    tasks: list[str] = []
    with Redis.from_url(redis_url) as client, client.monitor() as monitor:

        def read() -> None:
            for command in monitor.listen():
                if command["command"].startswith("LPUSH "):
                    tasks.extend(re.findall(r'"task": "([a-z.]+)"', command["command"]))
                elif "the-end" in command["command"]:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        yield tasks
        client.echo("the-end")
        reader.join()


def kill_polling_process(system: System) -> bool:
    """Kill the process of the worker that holds the lock; return whether there is one."""
    main = system.supervisor.pid(system.workers[0])
    children = {child.pid for child in psutil.Process(main).children()}
    locks = re.findall(r"POSIX +ADVISORY +WRITE (\d+) ", Path("/proc/locks").read_text(encoding="ascii"))
    holders = [int(pid) for pid in locks if int(pid) in children]
    for pid in holders:
        os.kill(pid, signal.SIGKILL)
    return bool(holders)


def test_jobs_that_arrive_one_by_one_are_polled_with_few_messages(system: System) -> None:
    """Each job is polled about ten times; each of these polls would need a message otherwise."""
    with system.queue() as queue, sent_messages(system.redis_url) as tasks:
        for job in jobs(COUNT):
            queue.enqueue(job)
            eventually(lambda: queue.batch("voices").states[State.QUEUED] == 0)
        eventually(lambda: settled(queue))

    assert verified_states(system, COUNT)[State.SUCCEEDED] == COUNT
    polls = sum(task.endswith(".poll") for task in tasks)
    assert 0 < polls < COUNT < system.ledger()["calls"]["task"] / 4


def test_a_killed_process_delays_the_polls_of_no_job(system: System) -> None:
    """The worker notices late polls that no process makes, long before Celery delivers the message of the killed one
    again. Without songs, the process orders nothing, so no order is lost with it."""
    with system.queue() as queue:
        queue.enqueue_many(job.model_copy(update={"song": None}) for job in jobs(COUNT))
        eventually(lambda: queue.batch("voices").states[State.PENDING] == COUNT)
        for _ in range(3):
            eventually(lambda: kill_polling_process(system))
        eventually(lambda: settled(queue))

        assert queue.batch("voices").states[State.SUCCEEDED] == COUNT
    assert system.ledger()["double_charges"] == []
