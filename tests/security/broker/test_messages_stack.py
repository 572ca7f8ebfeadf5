"""A worker survives any content of the queue `intake`, and each message becomes a job or a reject."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.conftest import Build, System, build_shared
from tests.conftest import eventually
from tests.security import envelopes
from tests.security.envelopes import CORPUS, ahead, every_place
from tests.support.messages import INTAKE_KEY, UNACKED_KEY, envelope
from voicequeue import VoiceQueue
from voicequeue.storage.connection.keyspace import DEFAULT_PREFIX, celery_root

__all__ = ["build_shared"]

SAMPLE = 300


@pytest.fixture(scope="module")
def system(build_shared: Build) -> System:
    """Start one worker that is paused."""
    started = build_shared(workers=1)
    with started.queue() as queue:
        queue.pause()
    return started


@pytest.fixture
def queue(system: System) -> Iterator[VoiceQueue]:
    """Yield its queue, without rejects."""
    with system.queue() as opened:
        opened.clear_rejected_messages()
        yield opened


@pytest.fixture
def redis(system: System) -> Iterator[Redis]:
    """Yield a client of its Redis, as other programs use it."""
    with Redis.from_url(system.redis_url) as client:
        yield client


def job_count(queue: VoiceQueue) -> int:
    """Return the number of jobs."""
    return sum(queue.status().states.values())


def push(redis: Redis, messages: Sequence[bytes], key: str = INTAKE_KEY) -> None:
    """Push messages with one command."""
    redis.lpush(key, *messages)


def is_empty(redis: Redis) -> bool:
    """Return whether the intake is empty and no worker holds a message."""
    return (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0)


def errors(system: System) -> list[str]:
    """Return the log lines of workers that report an error or start a traceback."""
    lines = system.logs().splitlines()
    return [
        line for line in lines if re.search(r'"level": ?"(error|critical)"| ERROR | CRITICAL |Traceback', line, re.I)
    ]


def test_each_of_hundreds_of_hostile_messages_becomes_a_job_or_a_reject(
    system: System, queue: VoiceQueue, redis: Redis
) -> None:
    """The worker keeps running; none is lost, none is redelivered forever, and none causes an internal error."""
    worker = system.supervisor.pid("worker.1")
    jobs = job_count(queue)
    messages = [*CORPUS.values(), *random.Random(7).sample(every_place(), SAMPLE)]

    push(redis, messages)
    eventually(lambda: is_empty(redis), within_s=60)

    rejects = queue.rejected_messages()
    assert job_count(queue) - jobs + len(rejects) == len(messages)
    assert system.supervisor.pid("worker.1") == worker
    assert errors(system) == []
    assert [reject for reject in rejects if "defect" in reject.reason] == []
    assert all(json.dumps(reject.as_dict(), ensure_ascii=False).encode() for reject in rejects)


def test_a_message_with_an_eta_too_far_ahead_is_rejected_at_once(
    system: System, queue: VoiceQueue, redis: Redis
) -> None:
    """Celery would hold it and redeliver it after each visibility timeout. A message with an earlier time becomes a job
    at that time."""
    jobs = job_count(queue)
    far, soon = (
        [json.dumps(envelopes.message(headers={"eta": ahead(seconds)})).encode() for _ in range(30)]
        for seconds in (3_000, 1)
    )

    push(redis, [*far, *soon])
    eventually(lambda: len(queue.rejected_messages()) == len(far) and redis.llen(INTAKE_KEY) == 0)
    assert redis.hlen(UNACKED_KEY) <= len(soon)
    eventually(lambda: is_empty(redis))

    assert job_count(queue) - jobs == len(soon)
    assert all(reject.reason.startswith("eta: ") for reject in queue.rejected_messages())


def test_invalid_messages_in_the_workers_queues_end_no_worker(system: System, queue: VoiceQueue, redis: Redis) -> None:
    """They are rejected with the reason, queued or published, and the next message is processed."""
    worker = system.supervisor.pid("worker.1")
    root = celery_root(DEFAULT_PREFIX)
    for name in ("submit", "poll"):
        own = random.Random(7).sample(envelopes.own_queue("voice.poll"), 60)
        push(redis, [*CORPUS.values(), *own], f"{root}{name}")
    for text in (*CORPUS.values(), b"no JSON " + 9_000_000 * b"x"):
        assert redis.publish(f"{root}/0.celery.pidbox", text)
    eventually(lambda: "ignored a broadcast on celery.pidbox: it has 9,000,008 bytes" in system.logs())
    eventually(lambda: is_empty(redis) and not redis.exists(f"{root}submit", f"{root}poll"))
    jobs = job_count(queue)

    push(redis, [json.dumps(envelopes.message()).encode()])
    eventually(lambda: job_count(queue) > jobs)

    assert system.supervisor.pid("worker.1") == worker
    assert len(queue.rejected_messages()) > len(CORPUS)
    assert errors(system) == []
    assert max(map(len, system.logs().splitlines())) < 2_000


def _event(published: Any) -> str:
    """Return the decoded body of a published event."""
    if published["type"] != "pmessage":
        return ""
    return base64.b64decode(json.loads(published["data"])["body"]).decode()


def test_no_content_of_a_message_appears_in_logs_or_events(system: System, queue: VoiceQueue, redis: Redis) -> None:
    """Neither names of fields nor of arguments; the reject contains them, shortened, and is private."""
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
        offset = len(system.logs())
        bodies = [envelope([[], kwargs, {}], message_id=envelopes.fresh_id()) for kwargs in jobs]
        push(redis, [json.dumps(body).encode() for body in bodies])
        eventually(lambda: is_empty(redis) and len(queue.rejected_messages()) == len(jobs) - 1)
        published_text = ""
        while "task-failed" not in published_text:
            published = events.get_message(timeout=10)
            assert published is not None, "no event says that a task has failed"
            published_text += _event(published)

    log = system.logs()[offset:]
    assert "an unknown field: is not an argument" in log
    assert "SECRET" not in log + published_text
    assert max(map(len, log.splitlines())) < 2_000
    assert all("SECRET" in reject.reason and len(reject.reason) <= 2_001 for reject in queue.rejected_messages())


def test_a_worker_that_ends_on_a_key_of_a_wrong_type_names_the_key_and_the_fix(
    system: System, queue: VoiceQueue, redis: Redis
) -> None:
    """It continues once the key is deleted. (The last test in this module: it causes errors in the log.)"""
    eventually(lambda: not redis.exists(UNACKED_KEY))
    jobs = job_count(queue)
    redis.lpush(UNACKED_KEY, "x")
    push(redis, [json.dumps(envelopes.message()).encode()])
    eventually(lambda: f"the key {UNACKED_KEY} is a list and must be a hash" in system.logs())
    redis.delete(UNACKED_KEY)
    push(redis, [json.dumps(envelopes.message()).encode()])

    eventually(lambda: job_count(queue) > jobs, within_s=30)
