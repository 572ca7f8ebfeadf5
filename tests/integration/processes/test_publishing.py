"""The workers' own messages: published without Celery's generic path, and equal to its messages."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from celery import _state
from celery.exceptions import Reject, Retry
from celery.signals import before_task_publish
from kombu.transport import TRANSPORT_ALIASES
from redis import Redis
from redis.exceptions import ConnectionError

from config.celeryconfig import configuration
from config.settings import Settings
from tasks.celery_tasks import ARCHIVE_TASK, DELIVER_TASK, poll_name, register, submit_name
from voicequeue.domain.stage import Stage
from voicequeue.storage.celery_queues import QUEUE_NAMES
from voicequeue.storage.connection.keyspace import celery_root
from workers.celery_app import CeleryApp
from workers.messaging import publishing, redis_transport

NOW = 1_900_000_000.25
IDS = ["0123456789abcdef01234567", "76543210fedcba9876543210"]
POLL_TASK = poll_name(Stage.VOICE)

#: The request of a task that is running, as a worker's child has it.
REQUEST = {
    "id": "the-task",
    "root_id": "its-root",
    "parent_id": "its-parent",
    "args": [IDS],
    "kwargs": {},
    "retries": 2,
    "called_directly": False,
    "delivery_info": {"exchange": "", "routing_key": "poll", "priority": 0},
}

#: Headers that workers do not read, and that Celery itself fills in differently for a message and for its retry.
DIFFERENT = ("timelimit", "ignore_result")

Send = Callable[[], Any]

celery_state: Any = _state


@pytest.fixture
def app(valkey_url: str, redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[CeleryApp]:
    """Return an app with the workers' tasks, whose clock is stopped."""
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, TRANSPORT_ALIASES[scheme])
    redis_transport.install(lambda: NOW, "redis://localhost")
    settings = Settings(_env_file=None, REDIS_URL=valkey_url, prefix=prefix)
    monkeypatch.setattr(publishing, "settings", lambda: settings)
    monkeypatch.setattr(publishing, "queue_redis", lambda: redis)
    for module in ("workers.celery_app", "workers.messaging.publishing"):
        monkeypatch.setattr(f"{module}.queue_time", lambda: NOW)
    monkeypatch.setattr("celery._state._on_app_finalizers", set())  # without the tasks of other apps
    with CeleryApp("test", amqp=redis_transport.Amqp, set_as_current=False) as celery_app:
        celery_app.conf.update(configuration(settings))
        unused: Any = None
        register(celery_app, unused, unused, unused)
        yield celery_app


def sent(redis: Redis, prefix: str, send: Send) -> tuple[str, dict[str, Any]]:
    """Send a message; return its queue, and the message with a decoded body and without random ids."""
    send()
    [(queue, text)] = [(name, popped) for name in QUEUE_NAMES if (popped := redis.rpop(celery_root(prefix) + name))]
    task_id = json.loads(str(text))["headers"]["id"]
    message: dict[str, Any] = json.loads(str(text).replace(task_id, "its-id"))
    message["body"] = json.loads(b64decode(message["body"]))
    assert len(message["properties"].pop("delivery_tag")) == len(str(uuid4()))
    for name in DIFFERENT:
        del message["headers"][name]
    return queue, message


@contextmanager
def observed() -> Iterator[list[str]]:
    """Take part in publishing, as traces do, and collect the names of the tasks: Celery's own path is used."""
    names: list[str] = []

    def observe(sender: str, **_: Any) -> None:
        names.append(sender)

    before_task_publish.connect(observe)
    try:
        yield names
    finally:
        before_task_publish.disconnect(observe)


@contextmanager
def running(task: Any) -> Iterator[None]:
    """Run the block as a worker's child runs the task."""
    task.push_request(**REQUEST)
    celery_state.push_current_task(task)
    try:
        yield
    finally:
        celery_state.pop_current_task()
        task.pop_request()


def retry(task: Any) -> None:
    """Retry a task in 1.5 s."""
    with pytest.raises(Retry, match=r"Retry in 1\.5s"):
        task.retry(args=(IDS,), countdown=1.5)


def test_messages_equal_those_of_celery(app: CeleryApp, redis: Redis, prefix: str) -> None:
    """From the main process and from a task, with and without a countdown, of each task that takes ids."""
    poll: Any = app.tasks[POLL_TASK]
    sends: dict[str, Send] = {
        name: partial(app.send_task, name, args=(IDS,))
        for name in (POLL_TASK, submit_name(Stage.MUSIC), DELIVER_TASK, ARCHIVE_TASK)
    }
    sends["countdown"] = partial(app.send_task, POLL_TASK, args=(IDS,), countdown=1.5)
    sends["no ids"] = partial(app.send_task, POLL_TASK, args=([],))
    sends["apply_async"] = partial(poll.apply_async, args=(IDS,), countdown=1.5)
    sends["retry"] = partial(retry, poll)
    for name, send in sends.items():
        for place in (nullcontext(), running(poll)) if name != "retry" else (running(poll),):
            with place:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(app, "producer_or_acquire", None)  # fails on Celery's own path
                    ours = sent(redis, prefix, send)
                with observed() as names:
                    theirs = sent(redis, prefix, send)
            assert names
            assert ours == theirs, name


def test_a_retry_that_cannot_be_sent_is_rejected(app: CeleryApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Celery: maintenance finds the jobs when they are overdue."""

    def unreachable() -> Redis:
        raise ConnectionError("gone")

    monkeypatch.setattr(publishing, "queue_redis", unreachable)
    poll: Any = app.tasks[POLL_TASK]
    with running(poll), pytest.raises(Reject) as rejected:
        poll.retry(args=(IDS,), countdown=1.5)
    assert vars(rejected.value)["requeue"] is False


def test_other_messages_take_celerys_path(app: CeleryApp, redis: Redis, prefix: str) -> None:
    """Messages of other programs, and those with options."""
    for send in (
        partial(app.send_task, "voicequeue.enqueue", kwargs={"job": {}}),
        partial(app.send_task, POLL_TASK, args=(IDS,), priority=3, queue="poll"),
        partial(app.tasks[POLL_TASK].apply_async, args=(IDS,), task_id="a-task"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(publishing, "queue_redis", None)
            send()
    assert redis.llen(f"{celery_root(prefix)}intake") == redis.llen(f"{celery_root(prefix)}poll") == 1
