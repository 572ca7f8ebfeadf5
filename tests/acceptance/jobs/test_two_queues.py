"""Two queues in one Redis database: each has its own messages, workers, key and Flower."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest
import requests
from redis import Redis

from tests.acceptance.conftest import SECRET, Build, House, jobs, settled
from tests.conftest import eventually
from tests.support.messages import NAME, plain_client
from tests.support.monitored import names_in, recorded
from voicequeue import State, VoiceQueue

MESSAGES = 20
JOBS = 30
OTHER_KEY = "key-of-the-other-account"
LOGIN = ("operator", "pass-word")

#: What both queues together may take for their jobs (seconds): far more than they do, and too little for a message
#: that was lost to be found by the search for overdue jobs.
IN_TIME_S = 40.0


@pytest.fixture(scope="module")
def houses(build_for_all: Build) -> list[House]:
    """Two queues in one database, with a worker and an account each; neither account takes the other's key."""
    env = {"VOICEQUEUE_STALE_S": "60", "FLOWER_BASIC_AUTH": ":".join(LOGIN)}
    first = build_for_all(workers=1, dials={"api_key": SECRET}, **env)
    env["MUSICAPI_KEY"] = OTHER_KEY
    return [first, build_for_all(workers=1, beside=first, prefix="voicequeue-2", dials={"api_key": OTHER_KEY}, **env)]


@pytest.fixture(scope="module")
def redis(houses: list[House]) -> Iterator[Redis]:
    """Their database."""
    with Redis.from_url(houses[0].redis_url, decode_responses=True) as found:
        yield found


@pytest.fixture(scope="module")
def flower(houses: list[House]) -> str:
    """A Flower of the second queue, which knows a worker."""
    address = houses[1].stack.start_flower()
    houses[1].stack.wait_for_flower(address)
    eventually(lambda: workers_in(address))
    return address


def workers_in(flower: str) -> set[str]:
    """The workers that Flower shows."""
    return set(requests.get(f"{flower}/api/workers", params={"refresh": 1}, auth=LOGIN, timeout=5).json())


def send(house: House, count: int) -> None:
    """Send that many jobs as a plain Celery client does, as the guide says."""
    with plain_client(house.redis_url, house.prefix) as client:
        for number in range(count):
            job = {"audio_url": f"https://recordings.example/{number}.wav", "batch": "by-message"}
            client.send_task(NAME, kwargs={"job": job}, queue="intake", task_id=f"{house.prefix}-{number}")


def is_done(queue: VoiceQueue) -> bool:
    """Whether all jobs of a queue came and are over."""
    totals = {batch.name: batch.total for batch in queue.batches()}
    return totals == {"voices": JOBS, "by-message": MESSAGES} and settled(queue) and settled(queue, "by-message")


def test_a_job_belongs_to_the_queue_that_it_was_sent_to_and_is_paid_with_its_key(
    houses: list[House], flower: str, redis: Redis
) -> None:
    """Jobs and messages of both at once: none crosses over, neither queue waits for the other, and Flower shows the
    worker and the tasks of its own queue. Every key and channel begins with the root of one of the queues.
    """
    with recorded(redis) as commands:
        began = time.monotonic()
        for house in houses:
            with house.queue() as queue:
                queue.enqueue_many(jobs(JOBS))
            send(house, MESSAGES)
        for house in houses:
            with house.queue() as queue:
                eventually(partial(is_done, queue), within_s=IN_TIME_S)
        took = time.monotonic() - began

    assert took < IN_TIME_S
    for house in houses:
        with house.queue() as queue:
            assert queue.batch("voices").states[State.SUCCEEDED] == JOBS
            assert queue.batch("by-message").states[State.SUCCEEDED] == MESSAGES
        ledger = house.ledger()
        assert (ledger["credits_spent"], ledger["double_charges"]) == (JOBS * 19 + MESSAGES * 4, [])
        assert "401" not in ledger["statuses"]
    tasks = requests.get(f"{flower}/api/tasks", params={"limit": 10_000}, auth=LOGIN, timeout=5).json()
    [own] = workers_in(flower)
    assert {task["worker"] for task in tasks.values()} == {own}
    roots = tuple(f"{{{house.prefix}}}:" for house in houses)
    names = names_in(redis, commands) | set(map(str, redis.keys()))
    assert [name for name in names if not name.startswith(roots)] == []
