"""The Celery message door: whatever is written into its queue becomes a job, or is kept with the reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.conftest import Build, House, settled
from tests.conftest import eventually
from tests.support.messages import INTAKE_KEY, NAME, SECRET_JOB, UNACKED_KEY, envelope, plain_client, push
from voicequeue import RejectedMessage, VoiceQueue

GOOD = {"audio_url": "https://recordings.example/good.wav"}


@pytest.fixture(scope="module")
def standing(build_for_all: Build) -> House:
    """One worker."""
    return build_for_all(workers=1)


@pytest.fixture
def house(standing: House) -> House:
    """The house, for one test, with nothing rejected yet."""
    with standing.queue() as queue:
        queue.clear_rejects()
    return standing


@pytest.fixture
def queue(house: House) -> Iterator[VoiceQueue]:
    """Its queue."""
    with house.queue() as found:
        yield found


@pytest.fixture
def redis(house: House) -> Iterator[Redis]:
    """Its Redis, as other programs see it."""
    with Redis.from_url(house.redis_url, decode_responses=True) as found:
        yield found


def rejected(queue: VoiceQueue, count: int) -> list[RejectedMessage]:
    """The rejected messages, once there are so many, in the order they came."""
    eventually(lambda: len(queue.rejects()) >= count)
    return queue.rejects()[::-1]


def with_properties(**properties: Any) -> dict[str, Any]:
    """A message with other properties."""
    message = envelope()
    return {**message, "properties": {**message["properties"], **properties}}


#: What is written, and what is said of it.
BAD: dict[str, tuple[Any, str]] = {
    "not JSON": ("that is no JSON", "no JSON"),
    "not UTF-8": (b"\xff\xfe\x00", "no JSON"),
    "nested for ever": ("[" * 200_000, "nested too deeply"),
    "a number": ("17", "no JSON object"),
    "an array": ("[]", "no JSON object"),
    "an empty object": ("{}", "body must be a text"),
    "odd properties": (envelope(properties=[]), "properties must be an object"),
    "odd delivery info": (with_properties(delivery_info="x"), "delivery_info must be an object"),
    "odd headers in the envelope": ({**envelope(), "headers": [1]}, "headers must be an object"),
    "an unknown encoding": (with_properties(body_encoding="hex"), "body_encoding must be base64"),
    "not base64": (envelope(raw_body="abc"), "not the base64"),
    "not UTF-8 in the body": (envelope(raw_body="//79"), "cannot be decoded"),
    "no JSON in the body": (envelope(raw_body="e3t7"), "cannot be decoded"),
    "a number in the body": (envelope(5), "the body must be"),
    "an empty body": (envelope(raw_body=""), "the body cannot be decoded"),
    "too few parts": (envelope([[], {}]), "the body must be"),
    "odd arguments": (envelope(["job", {}, {}]), "args must be an array"),
    "odd options": (envelope([[], {"job": GOOD}, [1]]), "options objects"),
    "pickle": ({**envelope(), "content-type": "application/x-python-serialize"}, "the content type must be"),
    "YAML": ({**envelope(), "content-type": "application/x-yaml"}, "the content type must be"),
    "no content type": ({**envelope(), "content-type": None}, "the content type must be"),
    "a compression that is none": (envelope(headers={"compression": "klingon"}), "send the body uncompressed"),
    "an unknown task": (envelope(headers={"task": "voicequeue.enqeue"}), "no task 'voicequeue.enqeue'"),
    "no task": (envelope(headers={"task": None}), "no task is named"),
    "an odd task": (envelope(headers={"task": ["x"]}), "no task is named"),
    "no id": (envelope(headers={"id": None}), "id must be a text"),
    "an odd id": (envelope(headers={"id": 7}), "id must be a text"),
    "a long id": (envelope(message_id="x" * 181), "id must be a text of 1 to 180"),
    "an odd time": (envelope(headers={"eta": "tomorrow"}), "eta must be a time"),
    "an impossible time": (envelope(headers={"eta": "0001-01-01T00:00:00+14:00"}), "eta must be a time"),
    "expired": (envelope(headers={"expires": "2020-01-01T00:00:00"}), "expired before"),
    "protocol 1 without a task": (envelope({"id": "1", "args": []}, headers={"task": None}), "no task is named"),
    "no argument": (envelope([[], {}, {}]), "job: must be given once"),
    "two arguments": (envelope([[GOOD, GOOD], {}, {}]), "job: must be given once"),
    "a job twice": (envelope([[GOOD], {"job": GOOD}, {}]), "job: must be given once"),
    "an extra argument": (envelope([[], {"job": GOOD, "jobs": 1}, {}]), "jobs: is not an argument"),
    "a job that is no object": (envelope([["https://x.example/a.wav"], {}, {}]), "job: must be an object"),
    "an invalid job": (
        envelope([[], {"job": {**SECRET_JOB, "mv": "x", "batch": "a b"}}, {}]),
        "batch: must be 1 to 100",
    ),
}


def test_whatever_is_no_job_is_kept_with_the_reason_and_the_worker_goes_on(
    house: House, queue: VoiceQueue, redis: Redis
) -> None:
    """Each of them once, none again and again; then a good one becomes a job, by the same worker process."""
    worker = house.supervisor.pid("worker.1")

    push(redis, *(message for message, _ in BAD.values()))
    found = rejected(queue, len(BAD))
    push(redis, envelope([[], {"job": {**GOOD, "batch": "afterwards"}}, {}]))
    eventually(lambda: len(queue.batches()) == 1 and settled(queue, "afterwards"))

    told = " | ".join(each.reason for each in found)
    assert [case for case, (_, reason) in BAD.items() if reason not in told] == []
    assert len(queue.rejects()) == len(BAD)
    eventually(lambda: (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0))
    assert house.supervisor.pid("worker.1") == worker


def test_what_is_rejected_shows_in_no_log(house: House, queue: VoiceQueue, redis: Redis) -> None:
    """Neither the recording nor the lyrics nor a name that the sender chose for the task to be shown as."""
    push(
        redis,
        envelope(headers={"task": "unknown"}),
        envelope(
            headers={"argsrepr": str(SECRET_JOB), "kwargsrepr": str(SECRET_JOB), "shadow": "a lyric that is secret"}
        ),
        envelope([[SECRET_JOB], {"secret": 1}, {}]),
        {**envelope(), "content-type": "text/plain"},
        json.dumps(SECRET_JOB),
    )
    found = rejected(queue, 4)
    eventually(lambda: sum(queue.status().states.values()) > 0)

    assert all("a lyric that is secret" in json.dumps(each.job) for each in found if each.task)
    assert "recordings.example/secret" not in house.logs()
    assert "a lyric that is secret" not in house.logs()


@pytest.mark.parametrize(
    "message",
    [
        envelope([[GOOD | {"batch": "positional"}], {}, {}]),
        envelope([[], {"job": GOOD | {"batch": "options-null"}}, None]),
        envelope(raw_body=json.dumps([[], {"job": GOOD | {"batch": "plain-text"}}, {}]), properties={}),
        envelope(
            {"id": "one", "task": NAME, "args": [], "kwargs": {"job": GOOD | {"batch": "protocol-1"}}}, headers=None
        )
        | {"headers": {}},
        with_properties(delivery_tag=7, body_encoding=None)
        | {"body": json.dumps([[], {"job": GOOD | {"batch": "odd-tag"}}, {}])},
        envelope([[], {"job": GOOD | {"batch": "with-a-limit"}}, {}], headers={"timelimit": [0.001, 0.001]}),
        envelope([[], {"job": GOOD | {"batch": "later"}}, {}], headers={"expires": "2999-12-31T00:00:00+00:00"}),
    ],
)
def test_what_is_meant_is_taken(queue: VoiceQueue, redis: Redis, message: dict[str, Any]) -> None:
    """The only positional argument, options that are null, a body as it is, protocol 1, headers of the sender's."""
    before = {batch.name for batch in queue.batches()}
    push(redis, message)
    eventually(lambda: len(queue.batches()) > len(before))

    [made] = {batch.name for batch in queue.batches()} - before
    assert made in str(message) or made in json.dumps(body_of(message))
    assert queue.rejects() == []


def body_of(message: dict[str, Any]) -> Any:
    """What a message carries."""
    return json.loads(base64.b64decode(message["body"]))


def test_a_key_that_stands_for_another_job_is_told(queue: VoiceQueue, house: House) -> None:
    """The message is kept as it was given, and the job that was there goes on."""
    with plain_client(house.redis_url) as client:
        for name in ("first", "second"):
            job = {**GOOD, "key": "k", "name": name, "batch": "conflict"}
            client.send_task(NAME, kwargs={"job": job}, queue="intake", task_id=name)
            eventually(lambda: queue.rejects() or "conflict" in [batch.name for batch in queue.batches()])
    [found] = rejected(queue, 1)

    assert (found.message_id, found.task, found.job["name"]) == ("second", NAME, "second")
    assert found.reason.startswith("key: 'k' already stands for job ")
    assert queue.batch("conflict").total == 1


# ── out of memory ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def full(redis: Redis) -> Iterator[None]:
    """Redis has its memory back when the test ends."""
    yield
    redis.config_set("maxmemory", 0)


def total(queue: VoiceQueue, batch: str) -> int:
    """How many jobs the batch has."""
    return sum(each.total for each in queue.batches() if each.name == batch)


@pytest.mark.usefixtures("full")
def test_what_comes_while_redis_is_out_of_memory_is_tried_again(house: House, queue: VoiceQueue, redis: Redis) -> None:
    """Jobs, and messages to be rejected: nothing is lost, nothing is done twice, and the worker stays."""
    worker = house.supervisor.pid("worker.1")
    eventually(lambda: redis.hlen(UNACKED_KEY) == 0)
    later = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    push(redis, envelope([[], {"job": GOOD | {"batch": "full"}}, {}], headers={"eta": later}))
    eventually(lambda: redis.hlen(UNACKED_KEY) == 1)
    with redis.pipeline() as at_once:  # so that they are there when Redis is full
        at_once.lpush(INTAKE_KEY, json.dumps(envelope(headers={"task": "unknown"})))
        for _ in range(5):
            at_once.lpush(INTAKE_KEY, json.dumps(envelope([[], {"job": GOOD | {"batch": "full"}}, {}])))
        at_once.config_set("maxmemory", 1)
        at_once.execute()
    eventually(lambda: house.logs().count("cannot be noted as rejected yet") >= 1)
    eventually(lambda: house.logs().count("Redis refuses (OOM ") >= 3)

    redis.config_set("maxmemory", 0)

    eventually(lambda: total(queue, "full") == 6 and len(queue.rejects()) == 1)
    eventually(lambda: (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0))
    eventually(lambda: settled(queue, "full"))
    assert (total(queue, "full"), len(queue.rejects())) == (6, 1)
    assert house.supervisor.pid("worker.1") == worker
