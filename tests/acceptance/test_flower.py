"""What Flower and the broker show of a job: its id, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import requests
from celery import Celery
from redis import Redis

from tests.acceptance.conftest import LYRICS, SECRET, Build, House, jobs, settled
from tests.conftest import eventually
from voicequeue import State, VoiceQueue

LOGIN = ("operator", "pass-word")


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """One worker."""
    return build_for_all(workers=1, FLOWER_BASIC_AUTH=":".join(LOGIN))


@pytest.fixture
def house(standing: House) -> House:
    """The house, for one test."""
    return standing.renew()


@pytest.fixture(scope="module")
def flower(standing: House) -> str:
    """Flower beside the house, which knows its worker; its address."""
    flower = standing.stack.start_flower()
    standing.stack.wait_for_flower(flower)
    eventually(lambda: requests.get(f"{flower}/api/workers", auth=LOGIN, timeout=5).json())
    return flower


def flower_tasks(flower: str) -> dict[str, dict[str, Any]]:
    """The tasks that Flower knows."""
    answer = requests.get(f"{flower}/api/tasks", params={"limit": 1000}, auth=LOGIN, timeout=5)
    answer.raise_for_status()
    found: dict[str, dict[str, Any]] = answer.json()
    return found


def everything_shown(house: House, flower: str) -> str:
    """All that Flower shows and the workers log."""
    pages = [
        requests.get(f"{flower}{page}", auth=LOGIN, timeout=5).text for page in ("/workers", "/tasks", "/api/tasks")
    ]
    details = [requests.get(f"{flower}/task/{task}", auth=LOGIN, timeout=5).text for task in flower_tasks(flower)]
    return "\n".join([*pages, *details, house.logs()])


def test_flower_shows_tasks_by_name_with_job_ids_and_no_secret_url_or_lyric(house: House, flower: str) -> None:
    """An operator sees which job a task is about; what a customer wrote or pays with is nowhere."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(12, "shown"))
        eventually(lambda: settled(queue, "shown"), within_s=40)
        ids = {job.id for job in queue.jobs(batch="shown")}
    eventually(lambda: shown_ids(flower) >= ids)

    names = {task["name"] for task in flower_tasks(flower).values()}
    shown = everything_shown(house, flower)

    assert names - {"voicequeue.enqueue"} == {"voice.submit", "voice.poll", "music.submit", "music.poll"}
    for forbidden in (SECRET, "recordings.example", LYRICS.splitlines()[1], "Song 1"):
        assert forbidden not in shown
    assert requests.get(f"{flower}/tasks", timeout=5).status_code == 401


def shown_ids(flower: str) -> set[str]:
    """Job ids in the arguments that Flower shows."""
    texts = " ".join(task["args"] for task in flower_tasks(flower).values())
    return {part for part in texts.replace("'", " ").split() if len(part) == 16}


def test_any_celery_client_can_enqueue_and_its_message_shows_nothing(house: House, flower: str) -> None:
    """A plain client sends the task by name; the job finishes, once, though it was sent twice."""
    job = {"audio_url": "https://recordings.example/a.wav", "song": {"prompt": LYRICS}, "batch": "door"}
    with Celery(broker=house.redis_url) as client, house.queue() as queue:
        for _ in range(2):
            client.send_task("voicequeue.enqueue", kwargs={"job": job}, queue="intake", task_id="one-message")
        client.send_task("voicequeue.enqueue", kwargs={"job": {**job, "mv": "x"}}, queue="intake")
        eventually(lambda: "door" in names_of_batches(queue) and settled(queue, "door"), within_s=40)
        assert queue.batch("door").total == 1
    eventually(lambda: "voicequeue.enqueue" in {task["name"] for task in flower_tasks(flower).values()})
    eventually(lambda: "mv: is not known here" in house.logs())

    shown = everything_shown(house, flower)

    assert "recordings.example" not in shown
    assert LYRICS.splitlines()[1] not in shown


def names_of_batches(queue: VoiceQueue) -> list[str]:
    """All batches."""
    return [batch.name for batch in queue.batches()]


def test_messages_in_the_broker_carry_ids_alone(house: House) -> None:
    """Whoever can read the broker's queues reads no URL, lyric or key there."""
    house.dial(voice_s=60)
    with house.queue() as queue, Redis.from_url(house.redis_url, decode_responses=True) as redis:
        queue.enqueue_many(jobs(5, "held"))
        ids = {job.id for job in queue.jobs(batch="held")}
        eventually(lambda: queue.batch("held").states[State.PENDING] == 5)
        eventually(lambda: any(job_id in held_messages(redis) for job_id in ids))
        held = held_messages(redis)
        for job_id in ids:
            queue.cancel(job_id)

    assert "voice.poll" in held
    for forbidden in (SECRET, "recordings.example", "nobody may see"):
        assert forbidden not in held


def held_messages(redis: Redis) -> str:
    """Messages in the broker that workers hold and have not acknowledged, headers and decoded bodies."""
    texts = list(map(str, redis.hvals("unacked")))
    bodies = [base64.b64decode(json.loads(text)[0]["body"]).decode() for text in texts]
    return "\n".join([*texts, *bodies])


def test_logs_say_what_happens_without_saying_what_was_asked(house: House) -> None:
    """Errors of upstream are logged, never with what the job is about."""
    house.dial(get_faults={"rate_limited": 0.5})
    with house.queue() as queue:
        queue.enqueue_many(jobs(5, "logged"))
        eventually(lambda: settled(queue, "logged"), within_s=40)

    assert "upstream says: slow down" in house.logs()
    assert "recordings.example" not in house.logs()
    assert SECRET not in house.logs()


def test_a_worker_started_without_any_option_brings_jobs_to_their_end(build: Build) -> None:
    """`celery -A workers.app worker` works as it is and consumes every queue but `callbacks`."""
    house = build(workers=0)
    house.stack.start("plain", "exec celery -A workers.app worker")
    with house.queue() as queue:
        queue.enqueue_many(jobs(3))
        eventually(lambda: settled(queue), within_s=60)
