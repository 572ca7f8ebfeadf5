"""Two queues in one Redis database: each has its own messages, workers, key and Flower."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import SECRET, Build, System, jobs, settled
from tests.conftest import eventually
from tests.support.messages import NAME, plain_client
from tests.support.monitored import names_in, recorded
from voicequeue import State, VoiceQueue

MESSAGES = 20
JOBS = 30
OTHER_KEY = "key-of-the-other-account"
LOGIN = ("operator", "pass-word")

#: Time limit for the jobs of both queues, in seconds: far more than they need, and too short for maintenance to find a
#: lost message.
IN_TIME_S = 40.0


@pytest.fixture(scope="module")
def systems(build_shared: Build) -> list[System]:
    """Two queues in one database, with a worker and an account each; neither account takes the other's key."""
    env = {"VOICEQUEUE_OVERDUE_AFTER_S": "60", "FLOWER_BASIC_AUTH": ":".join(LOGIN)}
    first = build_shared(workers=1, dials={"api_key": SECRET}, **env)
    env["MUSICAPI_KEY"] = OTHER_KEY
    return [first, build_shared(workers=1, beside=first, prefix="voicequeue-2", dials={"api_key": OTHER_KEY}, **env)]


@pytest.fixture(scope="module")
def redis(systems: list[System]) -> Iterator[Redis]:
    """Yield a client of their database."""
    with Redis.from_url(systems[0].redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def flower(systems: list[System]) -> str:
    """Start a Flower for the second queue and wait until it sees a worker."""
    address = systems[1].stack.start_flower()
    systems[1].stack.wait_for_flower(address)
    eventually(lambda: workers_in(address))
    return address


def workers_in(flower: str) -> set[str]:
    """Return the workers that Flower shows."""
    return set(requests.get(f"{flower}/api/workers", params={"refresh": 1}, auth=LOGIN, timeout=5).json())


def send(system: System, count: int) -> None:
    """Send this many jobs as a plain Celery client, as the guide describes."""
    with plain_client(system.redis_url, system.prefix) as client:
        for number in range(count):
            job = {"audio_url": f"https://recordings.example/{number}.wav", "batch": "by-message"}
            client.send_task(NAME, kwargs={"job": job}, queue="intake", task_id=f"{system.prefix}-{number}")


def is_done(queue: VoiceQueue) -> bool:
    """Return whether all jobs of a queue have arrived and are settled."""
    totals = {batch.name: batch.total for batch in queue.batches()}
    return totals == {"voices": JOBS, "by-message": MESSAGES} and settled(queue) and settled(queue, "by-message")


def test_a_job_stays_in_its_queue_and_is_paid_with_its_key(systems: list[System], flower: str, redis: Redis) -> None:
    """With jobs and messages in both: none crosses over, neither queue waits for the other, and Flower shows only its
    own queue's worker and tasks. Every key and channel starts with the root of one of the queues."""
    with recorded(redis) as commands:
        started_at = time.monotonic()
        for system in systems:
            with system.queue() as queue:
                queue.enqueue_many(jobs(JOBS))
            send(system, MESSAGES)
        for system in systems:
            with system.queue() as queue:
                eventually(partial(is_done, queue), within_s=IN_TIME_S)
        duration_s = time.monotonic() - started_at

    assert duration_s < IN_TIME_S
    for system in systems:
        with system.queue() as queue:
            assert queue.batch("voices").states[State.SUCCEEDED] == JOBS
            assert queue.batch("by-message").states[State.SUCCEEDED] == MESSAGES
        ledger = system.ledger()
        assert (ledger["credits_spent"], ledger["double_charges"]) == (JOBS * 19 + MESSAGES * 4, [])
        assert "401" not in ledger["statuses"]
    tasks = requests.get(f"{flower}/api/tasks", params={"limit": 10_000}, auth=LOGIN, timeout=5).json()
    [own] = workers_in(flower)
    assert {task["worker"] for task in tasks.values()} == {own}
    roots = tuple(f"{{{system.prefix}}}:" for system in systems)
    names = names_in(redis, commands) | set(map(str, redis.keys()))
    assert [name for name in names if not name.startswith(roots)] == []
