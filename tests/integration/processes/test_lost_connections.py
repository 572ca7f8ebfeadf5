"""Connections that the network forgets: they are neither closed nor answered, and are noticed all the same."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Consumer, Exchange, Queue
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.celeryconfig import BROKER_TRANSPORT_OPTIONS
from tests.conftest import eventually
from tests.support.forgetting import ForgettingProxy, forgetting_proxy
from voicequeue.storage.connection.client import KEEPALIVE_OPTIONS, connect, connection_pool
from voicequeue.storage.connection.redis_url import parse_redis_url
from workers.messaging import redis_transport
from workers.messaging.consumption import Consumption

#: The timeout of a reply (seconds): long for one that arrives, and short for a test.
TIMEOUT_S = 0.5


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[ForgettingProxy]:
    """Run a proxy that forgets connections on demand."""
    with forgetting_proxy(valkey_url) as proxy:
        yield proxy


@pytest.fixture
def broker(proxy: ForgettingProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a connection of the transport that is checked at short intervals; kombu uses this host's clock."""
    monkeypatch.setattr("kombu.transport.redis.time", time.time)
    options = {
        **BROKER_TRANSPORT_OPTIONS,
        "health_check_interval": 0.2,
        "socket_timeout": TIMEOUT_S,
        "global_keyprefix": "lost:",
    }
    url, transport = proxy.url, redis_transport.Transport
    with redis_transport.Connection(url, transport=transport, transport_options=options) as connection:
        yield connection


def drain(connection: Any) -> None:
    """Handle what arrives within a moment, as a process without an event loop does."""
    try:
        connection.drain_events(timeout=0.1)
    except (TimeoutError, *connection.connection_errors):
        pass


@pytest.mark.parametrize("kind", ["direct", "fanout"])
def test_a_consumer_receives_again_after_its_connections_are_forgotten(
    broker: Any, proxy: ForgettingProxy, kind: str
) -> None:
    """A blocking read of a queue, and a subscription, as Flower has one: without an event loop."""
    received: list[dict[str, str]] = []
    queue = Queue(f"lost-{kind}", Exchange(f"lost-{kind}", kind), routing_key="lost")

    def receive(body: dict[str, str], message: Any) -> None:
        received.append(body)
        message.ack()

    def receives(text: str) -> bool:
        with redis_transport.Connection(
            proxy.url, transport=redis_transport.Transport, transport_options=broker.transport_options
        ) as other:
            message, exchange = {"sent": text}, queue.exchange
            other.Producer().publish(message, exchange=exchange, routing_key="lost", declare=[exchange])
        drain(broker)
        return {"sent": text} in received

    with Consumer(broker, [queue], callbacks=[receive], accept=["json"]):
        eventually(lambda: receives("before"))
        proxy.forget()
        assert not receives("at first")
        eventually(lambda: receives("after"), within_s=10)


def test_one_loss_opens_all_other_idle_connections_again(proxy: ForgettingProxy) -> None:
    """Otherwise a process would wait for the timeout of each of them, one after the other."""
    pool = connection_pool(parse_redis_url(proxy.url), socket_timeout=TIMEOUT_S)
    with Redis.from_pool(pool) as first, connect(proxy.url) as other:
        connections = [pool.get_connection() for _ in range(10)]
        for connection in connections:
            pool.release(connection)
        other.ping()
        proxy.forget()
        started_at = time.monotonic()
        with pytest.raises(RedisTimeoutError, match="Timeout reading"):
            first.ping()
        lost_after_s = time.monotonic() - started_at

        for connection in [pool.get_connection() for _ in range(10)]:
            connection.send_command("PING")  # type: ignore[no-untyped-call]  # redis-py has no types here
            assert connection.read_response() == b"PONG"
            pool.release(connection)
        assert other.ping()

    assert lost_after_s >= TIMEOUT_S
    assert time.monotonic() - started_at < 2 * TIMEOUT_S + 1


def test_the_kernel_watches_every_connection(valkey_url: str, broker: Any) -> None:
    """The client's, and the transport's for commands, reads and subscriptions."""
    channel = broker.default_channel
    with connect(valkey_url) as client:
        connections = [
            client.connection_pool.get_connection(),
            channel.pool.get_connection(),
            channel.async_pool.get_connection(),
        ]
        for connection in connections:
            opened = connection._get_socket()
            assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert {
                number: opened.getsockopt(socket.IPPROTO_TCP, number) for number in KEEPALIVE_OPTIONS
            } == KEEPALIVE_OPTIONS


def test_an_answered_read_is_a_consumption_and_a_cancelled_queue_has_none(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if no message has arrived."""
    log = Consumption()
    monkeypatch.setattr(redis_transport, "consumption", log)
    queues = [Queue(name, Exchange(name), routing_key=name) for name in ("lost-poll", "lost-submit")]
    names = [queue.name for queue in queues]
    log.start(names)
    consumer: Any
    with Consumer(broker, queues, accept=["json"]) as consumer:

        def consumed() -> dict[str, float]:
            drain(broker)
            log.turn(consumer.channel.active_queues, is_full=False)
            return dict(log.facts(names, time.time())["consumed"])

        before = consumed()
        eventually(lambda: min(consumed().values()) > max(before.values()))
        consumer.cancel_by_queue("lost-poll")
        cancelled_at = consumed()["lost-poll"]
        eventually(lambda: consumed()["lost-submit"] > cancelled_at + 0.3)

        assert log.facts(names, time.time())["cancelled"] == ["lost-poll"]
        assert consumed()["lost-poll"] == pytest.approx(cancelled_at, abs=0.2)
