"""Whatever lies in the queue `intake`, a worker lives, and each message becomes a job or a reject."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.conftest import Build, House, build_for_all
from tests.acceptance.messages import INTAKE_KEY, UNACKED_KEY, envelope
from tests.conftest import eventually
from tests.security import envelopes
from tests.security.envelopes import CORPUS, ahead, every_place
from voicequeue import VoiceQueue
from voicequeue.storage.keyspace import DEFAULT_PREFIX, celery_root

__all__ = ["build_for_all"]

SAMPLE = 300


@pytest.fixture(scope="module")
def house(build_for_all: Build) -> House:
    """One worker that orders nothing."""
    built = build_for_all(workers=1)
    with built.queue() as queue:
        queue.pause()
    return built


@pytest.fixture
def queue(house: House) -> Iterator[VoiceQueue]:
    """Its queue, without rejects."""
    with house.queue() as opened:
        opened.clear_rejects()
        yield opened


@pytest.fixture
def redis(house: House) -> Iterator[Redis]:
    """Its Redis, as other programs see it."""
    with Redis.from_url(house.redis_url) as client:
        yield client


def job_count(queue: VoiceQueue) -> int:
    """How many jobs there are."""
    return sum(queue.status().states.values())


def push(redis: Redis, messages: Sequence[bytes], key: str = INTAKE_KEY) -> None:
    """Write messages, in one step."""
    redis.lpush(key, *messages)


def is_empty(redis: Redis) -> bool:
    """Whether nothing waits in the intake, and no worker holds anything."""
    return (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0)


def errors(house: House) -> list[str]:
    """Lines of the workers' logs that report an error, and the beginnings of tracebacks."""
    lines = house.logs().splitlines()
    return [
        line for line in lines if re.search(r'"level": ?"(error|critical)"| ERROR | CRITICAL |Traceback', line, re.I)
    ]


def test_each_of_hundreds_of_hostile_messages_is_a_job_or_a_reject_and_the_worker_lives(
    house: House, queue: VoiceQueue, redis: Redis
) -> None:
    """None is lost, none is delivered for ever, and none makes an error of ours."""
    worker = house.supervisor.pid("worker.1")
    jobs = job_count(queue)
    messages = [*CORPUS.values(), *random.Random(7).sample(every_place(), SAMPLE)]

    push(redis, messages)
    eventually(lambda: is_empty(redis), within_s=60)

    rejects = queue.rejects()
    assert job_count(queue) - jobs + len(rejects) == len(messages)
    assert house.supervisor.pid("worker.1") == worker
    assert errors(house) == []
    assert [each for each in rejects if "defect" in each.reason] == []
    assert all(json.dumps(each.as_dict(), ensure_ascii=False).encode() for each in rejects)


def test_a_message_for_a_time_further_ahead_than_a_worker_waits_is_rejected_at_once(
    house: House, queue: VoiceQueue, redis: Redis
) -> None:
    """Celery would hold it, and deliver it again each time that the visibility timeout has passed. What is due within
    it becomes a job when it is due.
    """
    jobs = job_count(queue)
    far, soon = (
        [json.dumps(envelopes.message(headers={"eta": ahead(seconds)})).encode() for _ in range(30)]
        for seconds in (3_000, 1)
    )

    push(redis, [*far, *soon])
    eventually(lambda: len(queue.rejects()) == len(far) and redis.llen(INTAKE_KEY) == 0)
    assert redis.hlen(UNACKED_KEY) <= len(soon)
    eventually(lambda: is_empty(redis))

    assert job_count(queue) - jobs == len(soon)
    assert all(each.reason.startswith("eta: ") for each in queue.rejects())


def test_rubbish_in_the_queues_of_the_workers_ends_no_worker(house: House, queue: VoiceQueue, redis: Redis) -> None:
    """It is rejected with the reason, whether it lies in a queue or was published, and the next message is taken."""
    worker = house.supervisor.pid("worker.1")
    root = celery_root(DEFAULT_PREFIX)
    for name in ("submit", "poll"):
        own = random.Random(7).sample(envelopes.own_queue("voice.poll"), 60)
        push(redis, [*CORPUS.values(), *own], f"{root}{name}")
    for text in (*CORPUS.values(), b"no JSON " + 9_000_000 * b"x"):
        assert redis.publish(f"{root}/0.celery.pidbox", text)
    eventually(lambda: "ignored a broadcast on celery.pidbox: it has 9,000,008 bytes" in house.logs())
    eventually(lambda: is_empty(redis) and not redis.exists(f"{root}submit", f"{root}poll"))
    jobs = job_count(queue)

    push(redis, [json.dumps(envelopes.message()).encode()])
    eventually(lambda: job_count(queue) > jobs)

    assert house.supervisor.pid("worker.1") == worker
    assert len(queue.rejects()) > len(CORPUS)
    assert errors(house) == []
    assert max(map(len, house.logs().splitlines())) < 2_000


def _event(published: Any) -> str:
    """What one publication says; its body is base64."""
    if published["type"] != "pmessage":
        return ""
    return base64.b64decode(json.loads(published["data"])["body"]).decode()


def test_nothing_that_a_message_says_is_in_a_log_or_an_event_of_celerys(
    house: House, queue: VoiceQueue, redis: Redis
) -> None:
    """Neither names of fields nor of arguments, however many; the reject has them, cut, and is private."""
    jobs = [
        {"job": {**envelopes.GOOD, "SECRET LYRIC https://signed.example/?sig=abc": 1}},
        {"job": {**envelopes.GOOD, "metadata": {"SECRET": 1}}},
        {"SECRET ARGUMENT": {}},
        {f"SECRET {number}": {} for number in range(60_000)},
        {"job": {**envelopes.GOOD, "key": "SECRET KEY"}},
        {"job": {**envelopes.GOOD, "key": "SECRET KEY", "name": "another"}},
    ]
    with redis.pubsub() as events:  # type: ignore[no-untyped-call]  # redis-py
        events.psubscribe("*celeryev*")
        read = len(house.logs())
        bodies = [envelope([[], named, {}], message_id=envelopes.fresh_id()) for named in jobs]
        push(redis, [json.dumps(body).encode() for body in bodies])
        eventually(lambda: is_empty(redis) and len(queue.rejects()) == len(jobs) - 1)
        seen = ""
        while "task-failed" not in seen:
            published = events.get_message(timeout=10)
            assert published is not None, "no event says that a task has failed"
            seen += _event(published)

    log = house.logs()[read:]
    assert "an unknown field: is no argument" in log
    assert "SECRET" not in log + seen
    assert max(map(len, log.splitlines())) < 2_000
    assert all("SECRET" in each.reason and len(each.reason) <= 2_001 for each in queue.rejects())


def test_a_worker_that_a_key_of_a_wrong_type_ends_names_the_key_and_its_cure(
    house: House, queue: VoiceQueue, redis: Redis
) -> None:
    """And goes on as soon as the key is deleted. (The last test here: it makes errors in the log.)"""
    eventually(lambda: not redis.exists(UNACKED_KEY))
    jobs = job_count(queue)
    redis.lpush(UNACKED_KEY, "x")
    push(redis, [json.dumps(envelopes.message()).encode()])
    eventually(lambda: f"the key {UNACKED_KEY} is a list and must be a hash" in house.logs())
    redis.delete(UNACKED_KEY)
    push(redis, [json.dumps(envelopes.message()).encode()])

    eventually(lambda: job_count(queue) > jobs, within_s=30)
