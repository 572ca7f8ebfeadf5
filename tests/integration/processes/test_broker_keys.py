"""Celery's keys in Redis: every key that kombu uses for a queue has the prefix of that queue."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from flower.utils.broker import Broker  # type: ignore[import-untyped]
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES
from redis import Redis
from tornado.ioloop import IOLoop

from config.celeryconfig import WORKER_QUEUES, configuration
from config.settings import Settings
from tests.support.messages import NAME, envelope
from tests.support.monitored import names_in, recorded
from voicequeue.storage.connection.keyspace import celery_root
from workers.messaging import redis_transport

#: The keys of a queue of a test.
OF_A_TEST = re.compile(r"\{test\d+\}:")


@pytest.fixture
def user_url(valkey_url: str, redis: Redis, prefix: str) -> str:
    """Return the URL of a Redis user with access to the keys of this test's queue only."""
    keys = [f"{{{prefix}}}:*"]
    redis.acl_setuser(prefix, enabled=True, nopass=True, keys=keys, channels=["*"], categories=["+@all"])
    return valkey_url.replace("//", f"//{prefix}:any@")


@pytest.fixture
def app(user_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Return the Celery app of workers, for a user of one queue, that restores messages at once."""
    for scheme in ("redis", "rediss"):
        monkeypatch.setitem(TRANSPORT_ALIASES, scheme, TRANSPORT_ALIASES[scheme])
    redis_transport.install(time.time, "redis://localhost")
    monkeypatch.setattr("celery._state._on_app_finalizers", set())  # without the tasks of other apps
    with Celery("test", amqp=redis_transport.Amqp, set_as_current=False) as celery_app:
        celery_app.conf.update(configuration(Settings(_env_file=None, REDIS_URL=user_url, prefix=prefix)))
        celery_app.conf.broker_transport_options |= {"visibility_timeout": 0}
        yield celery_app


def receive(channel: Any, queue: str) -> Any:
    """Receive the next message of a queue as a worker does, without acknowledging it."""
    messages: list[Any] = []
    consumer = channel.connection.client.Consumer(
        Queue(queue), channel=channel, callbacks=[lambda _, message: messages.append(message)], accept=["json"]
    )
    with consumer:
        while not messages:
            channel.connection.client.drain_events(timeout=5)
    return messages[0]


def test_every_key_and_channel_of_celery_has_the_prefix_of_its_queue(app: Celery, redis: Redis, prefix: str) -> None:
    """Messages of each priority are acknowledged, rejected, requeued and restored; remote control, events, purges."""
    with recorded(redis) as commands:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            for priority in (0, 3, 6, 9):
                app.send_task(NAME, queue="intake", priority=priority, connection=connection)
            receive(channel, "intake").ack()
            receive(channel, "intake").reject()
            receive(channel, "intake").requeue()
            receive(channel, "intake")
            channel.qos.restore_visible(num=10, interval=1)
            receive(channel, "intake")
        with app.connection_for_write() as connection:
            app.control.ping(timeout=0.1, connection=connection)
            with app.events.Dispatcher(connection) as dispatcher:
                dispatcher.send("worker-heartbeat")
            receiver = app.events.Receiver(connection, handlers={})
            with suppress(TimeoutError):
                receiver.capture(limit=1, timeout=0.1, wakeup=False)
        app.control.purge()

    # A thread of an earlier test may still write metrics.
    names = {
        name for name in names_in(redis, commands) if name.startswith(f"{{{prefix}}}") or not OF_A_TEST.match(name)
    }
    root = celery_root(prefix)
    assert names
    assert [name for name in sorted(names) if not name.startswith(root)] == []
    verbs = {command[0].upper() for command in commands}
    assert verbs >= {
        "LPUSH",
        "BRPOP",
        "HSET",
        "ZADD",
        "HDEL",
        "WATCH",
        "RPUSH",
        "SET",
        "EVALSHA",
        "PUBLISH",
        "PSUBSCRIBE",
    }
    assert all(str(key).startswith(root) for key in redis.keys(f"*{prefix}*"))


@pytest.mark.parametrize("route", ["whole key", "another queue", "an undeclared exchange"])
def test_a_message_is_requeued_to_its_own_queue(app: Celery, redis: Redis, prefix: str, route: str) -> None:
    """Clients without a key prefix name the whole key; kombu alone would requeue to the queue that they name."""
    intake = f"{celery_root(prefix)}intake"
    claims = {
        "whole key": {"exchange": "", "routing_key": intake},
        "another queue": {"exchange": "", "routing_key": "poll"},
        "an undeclared exchange": {"exchange": intake, "routing_key": intake},
    }
    message = envelope()
    message["properties"]["delivery_info"] = claims[route]
    with app.connection_for_read() as connection:
        redis.lpush(intake, json.dumps(message))
        receive(connection.default_channel, "intake")
        assert redis.llen(intake) == 0

    assert redis.llen(intake) == 1
    assert [key for key in redis.keys(f"*{prefix}*") if redis.type(key) == "list"] == [intake]


def test_of_two_messages_with_the_same_delivery_tag_neither_is_lost(app: Celery, redis: Redis, prefix: str) -> None:
    """kombu records held messages by tag: it would record one of them, and lose the other with the worker."""
    intake = f"{celery_root(prefix)}intake"
    messages = [envelope(message_id=name) for name in ("first", "second")]
    with app.connection_for_read() as connection:
        for message in messages:
            message["properties"]["delivery_tag"] = "same"
            redis.lpush(intake, json.dumps(message))
            receive(connection.default_channel, "intake")
        assert redis.hlen(f"{celery_root(prefix)}unacked") == 2

    assert {json.loads(text)["headers"]["id"] for text in redis.lrange(intake, 0, -1)} == {"first", "second"}


def test_flower_counts_the_messages_of_its_own_queue(app: Celery, redis: Redis, prefix: str, valkey_url: str) -> None:
    """Its broker page reads Redis itself."""
    redis.lpush("intake", "another program's")
    redis.lpush(f"{celery_root(prefix + '2')}intake", "a", "b")
    redis.lpush(f"{celery_root(prefix)}intake", "a", "b", "c")

    shown = Broker(valkey_url, broker_options=app.conf.broker_transport_options)
    lengths = IOLoop(make_current=False).run_sync(lambda: shown.queues(WORKER_QUEUES))
    redis.delete("intake")

    assert {queue["name"]: queue["messages"] for queue in lengths} == {"submit": 0, "poll": 0, "intake": 3}


def test_the_settings_and_the_library_agree_on_the_root(prefix: str) -> None:
    """Neither may import the other."""
    options = configuration(Settings(_env_file=None, prefix=prefix))["broker_transport_options"]

    assert options["global_keyprefix"] == celery_root(prefix)
