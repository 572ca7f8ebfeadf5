"""The Celery queue `intake`: every message becomes a job, or is kept as rejected with the reason.

The examples of docs/guides/messages.md are followed literally.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.acceptance.conftest import Build, System, settled
from tests.conftest import eventually
from tests.node import MISSING, MODULES, NODE, environment
from tests.support.messages import INTAKE_KEY, NAME, SECRET_JOB, UNACKED_KEY, envelope, plain_client, push
from voicequeue import RejectedMessage, State, VoiceQueue

pytestmark = pytest.mark.essential

GOOD = {"audio_url": "https://recordings.example/good.wav"}


@pytest.fixture(scope="module")
def shared_system(build_shared: Build) -> System:
    """Start one worker."""
    return build_shared(workers=1)


@pytest.fixture
def system(shared_system: System) -> System:
    """Return the system for one test, without rejected messages."""
    with shared_system.queue() as queue:
        queue.clear_rejected_messages()
    return shared_system


@pytest.fixture
def queue(system: System) -> Iterator[VoiceQueue]:
    """Yield its queue."""
    with system.queue() as queue:
        yield queue


@pytest.fixture
def redis(system: System) -> Iterator[Redis]:
    """Yield a client of its Redis, as other programs use it."""
    with Redis.from_url(system.redis_url, decode_responses=True) as client:
        yield client


def rejected(queue: VoiceQueue, count: int) -> list[RejectedMessage]:
    """Wait for this many rejected messages; return them in order of arrival."""
    eventually(lambda: len(queue.rejected_messages()) >= count)
    return queue.rejected_messages()[::-1]


def with_properties(**properties: Any) -> dict[str, Any]:
    """Return a message with other properties."""
    message = envelope()
    return {**message, "properties": {**message["properties"], **properties}}


#: Messages, and part of the reason for which each is rejected.
BAD: dict[str, tuple[Any, str]] = {
    "not JSON": ("that is no JSON", "not JSON"),
    "not UTF-8": (b"\xff\xfe\x00", "not JSON"),
    "deeply nested": ("[" * 200_000, "nested too deeply"),
    "a number": ("17", "not a JSON object"),
    "an array": ("[]", "not a JSON object"),
    "an empty object": ("{}", "body must be a text"),
    "odd properties": (envelope(properties=[]), "properties must be an object"),
    "odd delivery info": (with_properties(delivery_info="x"), "delivery_info must be an object"),
    "odd headers in the envelope": ({**envelope(), "headers": [1]}, "headers must be an object"),
    "an unknown encoding": (with_properties(body_encoding="hex"), "body_encoding must be base64"),
    "not base64": (envelope(raw_body="abc"), "not valid base64"),
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


def test_an_invalid_message_is_kept_with_the_reason_and_the_worker_continues(
    system: System, queue: VoiceQueue, redis: Redis
) -> None:
    """Each is kept once, none is redelivered; then a valid message becomes a job, by the same worker process."""
    worker = system.supervisor.pid("worker.1")

    push(redis, *(message for message, _ in BAD.values()))
    messages = rejected(queue, len(BAD))
    push(redis, envelope([[], {"job": {**GOOD, "batch": "afterwards"}}, {}]))
    eventually(lambda: len(queue.batches()) == 1 and settled(queue, "afterwards"))

    reasons = " | ".join(message.reason for message in messages)
    assert [case for case, (_, reason) in BAD.items() if reason not in reasons] == []
    assert len(queue.rejected_messages()) == len(BAD)
    eventually(lambda: (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0))
    assert system.supervisor.pid("worker.1") == worker


def test_no_log_shows_the_content_of_a_rejected_message(system: System, queue: VoiceQueue, redis: Redis) -> None:
    """Neither the recording's URL, nor the lyrics, nor the display name that the sender chose for the task."""
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
    messages = rejected(queue, 4)
    eventually(lambda: sum(queue.status().states.values()) > 0)

    assert all("a lyric that is secret" in json.dumps(message.job) for message in messages if message.task)
    assert "recordings.example/secret" not in system.logs()
    assert "a lyric that is secret" not in system.logs()


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
def test_unusual_but_unambiguous_messages_become_jobs(queue: VoiceQueue, redis: Redis, message: dict[str, Any]) -> None:
    """A positional argument, options that are null, an unencoded body, protocol 1, extra headers."""
    before = {batch.name for batch in queue.batches()}
    push(redis, message)
    eventually(lambda: len(queue.batches()) > len(before))

    [batch_name] = {batch.name for batch in queue.batches()} - before
    assert batch_name in str(message) or batch_name in json.dumps(body_of(message))
    assert queue.rejected_messages() == []


def body_of(message: dict[str, Any]) -> Any:
    """Return the decoded body of a message."""
    return json.loads(base64.b64decode(message["body"]))


def test_a_message_with_the_key_of_another_job_is_rejected(queue: VoiceQueue, system: System) -> None:
    """The message is kept as it was sent, and the existing job continues."""
    with plain_client(system.redis_url) as client:
        for name in ("first", "second"):
            job = {**GOOD, "key": "k", "name": name, "batch": "conflict"}
            client.send_task(NAME, kwargs={"job": job}, queue="intake", task_id=name)
            eventually(lambda: queue.rejected_messages() or "conflict" in [batch.name for batch in queue.batches()])
    [message] = rejected(queue, 1)

    assert (message.message_id, message.task, message.job["name"]) == ("second", NAME, "second")
    assert message.reason.startswith("key: 'k' already belongs to job ")
    assert queue.batch("conflict").total == 1


# ── out of memory ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def reset_maxmemory(redis: Redis) -> Iterator[None]:
    """Reset Redis's memory limit after the test."""
    yield
    redis.config_set("maxmemory", 0)


def total(queue: VoiceQueue, batch: str) -> int:
    """Return the number of jobs in the batch."""
    return sum(summary.total for summary in queue.batches() if summary.name == batch)


@pytest.mark.usefixtures("reset_maxmemory")
def test_messages_are_retried_while_redis_is_out_of_memory(system: System, queue: VoiceQueue, redis: Redis) -> None:
    """Jobs, and messages to reject: nothing is lost, nothing is done twice, and the worker keeps running."""
    worker = system.supervisor.pid("worker.1")
    eventually(lambda: redis.hlen(UNACKED_KEY) == 0)
    later = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    push(redis, envelope([[], {"job": GOOD | {"batch": "full"}}, {}], headers={"eta": later}))
    eventually(lambda: redis.hlen(UNACKED_KEY) == 1)
    with redis.pipeline() as transaction:  # atomically, so that they are there when Redis is full
        transaction.lpush(INTAKE_KEY, json.dumps(envelope(headers={"task": "unknown"})))
        for _ in range(5):
            transaction.lpush(INTAKE_KEY, json.dumps(envelope([[], {"job": GOOD | {"batch": "full"}}, {}])))
        transaction.config_set("maxmemory", 1)
        transaction.execute()
    eventually(lambda: system.logs().count("rejected message cannot be stored yet") >= 1)
    eventually(lambda: system.logs().count("Redis refuses (OOM ") >= 3)

    redis.config_set("maxmemory", 0)

    eventually(lambda: total(queue, "full") == 6 and len(queue.rejected_messages()) == 1)
    eventually(lambda: (redis.llen(INTAKE_KEY), redis.hlen(UNACKED_KEY)) == (0, 0))
    eventually(lambda: settled(queue, "full"))
    assert (total(queue, "full"), len(queue.rejected_messages())) == (6, 1)
    assert system.supervisor.pid("worker.1") == worker


# ── the guide ─────────────────────────────────────────────────────────────────────────────────────

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "messages.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    """Return the guide's example in this language."""
    [program] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return str(program)


@contextmanager
def in_node(system: System, program: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a Node program in a folder with celery-node; kill it at the end of the block."""
    if not (MODULES / "celery-node").is_dir():
        pytest.fail(MISSING)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "enqueue.js").write_text(program, encoding="utf-8")
    env = environment() | {"REDIS_URL": system.redis_url}
    command = [str(NODE), "enqueue.js"]
    with subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_until_finished(system: System, batch: str, count: int = 1) -> None:
    """Wait until this many jobs are in the batch and all have succeeded."""
    with system.queue() as queue:
        eventually(lambda: batch in [summary.name for summary in queue.batches()] and queue.batch(batch).total == count)
        eventually(lambda: settled(queue, batch))
        assert queue.batch(batch).states[State.SUCCEEDED] == count
        assert queue.rejected_messages() == []


def test_celery_node_enqueues_as_the_guide_describes(system: System, tmp_path: Path) -> None:
    """A client that is not Python, with its own headers; sending again gives the same job."""
    for attempt in ("first", "again"):
        folder = tmp_path / attempt
        folder.mkdir()
        with in_node(system, example("js"), folder) as running:
            assert (running.communicate(timeout=60)[1], running.returncode) == ("", 0)

    wait_until_finished(system, "by-node")


def test_every_way_to_send_of_celery_node_works(system: System, tmp_path: Path) -> None:
    """`sendTask`, and a task's `applyAsync` and `delay`, with generated ids, while the program keeps running."""
    program = """
        const { createClient } = require("celery-node");
        const client = createClient(process.env.REDIS_URL, process.env.REDIS_URL, "{voicequeue}:celery:intake");
        const job = (name) => ({ audio_url: `https://example.com/${name}.wav`, batch: "sent-by-node" });
        client.sendTask("voicequeue.enqueue", [], { job: job("ana") });
        client.createTask("voicequeue.enqueue").applyAsync([], { job: job("ben") });
        client.createTask("voicequeue.enqueue").delay(job("cleo"));
    """
    with in_node(system, program, tmp_path):
        wait_until_finished(system, "sent-by-node", 3)


def test_a_celery_client_enqueues_as_the_guide_describes(system: System) -> None:
    """With Celery alone, without this package."""
    env = {**os.environ, "REDIS_URL": system.redis_url}
    subprocess.run([sys.executable, "-c", example("python")], env=env, check=True, timeout=60)

    wait_until_finished(system, "by-celery")


@pytest.mark.parametrize("tag", [True, False])
def test_a_message_written_by_hand_as_the_guide_describes_becomes_a_job(system: System, tag: bool) -> None:
    """One LPUSH, with or without a delivery tag; the second is the same job."""
    message = example("json")
    if not tag:
        message = re.sub(r'"delivery_tag": "[^"]*",', "", message)
    with Redis.from_url(system.redis_url) as redis:
        redis.lpush("{voicequeue}:celery:intake", message)

    wait_until_finished(system, "by-hand")
