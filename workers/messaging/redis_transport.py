"""kombu's Redis transport, adapted to outages of Redis and to messages of other programs.

Seen with kombu 5.7.0, and changed here:

- When the connection is lost while a worker holds messages (with countdown polls: always), closing the dead channel
  tries to requeue them through it, which ends the worker's main process. Here such a channel closes without an error,
  and its messages are requeued as soon as another channel is open. Nothing would be lost without this (the visibility
  timeout and maintenance recover them), but messages of other programs would wait for minutes.
- A message that kombu cannot decode ends the worker and is lost. Here message_decoding.py decodes messages and
  remote_control.py broadcasts, and replies go only to the queue that they name.
- A Redis that temporarily refuses writes (out of memory, a failover) ends the worker and loses the message that it
  has just received. Here a refusal counts as a lost connection, a channel opens once Redis accepts writes again, and
  this process holds a message that Redis could not record until then. (A Redis that is out of memory still delivers
  messages, so consuming continues.)
- How long a message has been held is measured by the hosts' clocks: a host that is minutes ahead would take all
  messages from the others, repeatedly. Here it is measured by the queue's clock.
- Connections are reopened up to 30 s after Redis is back. Here it takes at most 3 s.
- A lost subscription is noticed by the event loop of a worker only, not by Flower. Here both notice it.
- A broadcast is read without a limit. If the read opens a lost connection again, nothing is subscribed to the new one,
  and the worker consumes no more messages. Here the read ends.
- The transport for sentinels reads their addresses and logins from options that Flower shows. Here it gets the address
  of the queue's own client, so that both ask the same sentinels in the same way.

The module depends on kombu's internals, so kombu is pinned; review it with each new version.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection as KombuConnection
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError, ResponseError

from voicequeue.storage.celery_queues import INTAKE
from voicequeue.storage.connection.client import connection_pool
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.connection.redis_url import RedisAddress, parse_redis_url
from voicequeue.storage.connection.refusals import (
    PlainConnection,
    PrimaryConnection,
    RedisRefusalError,
    SecureConnection,
    SecurePrimaryConnection,
)
from workers.messaging import remote_control
from workers.messaging.consumption import consumption
from workers.messaging.event_loop import EventLoop
from workers.messaging.message_decoding import InvalidMessageError, decode_message
from workers.messaging.poller import Poller
from workers.messaging.requeueing import DEAD, QoS

log = logging.getLogger("voicequeue.broker")

#: A key that never exists: setting it only if it exists is a write that changes nothing.
PROBE = "unacked_probe"

#: How long the rest of a broadcast may take to arrive (seconds).
BROADCAST_S = 1.0

#: How long a reply to remote control is kept (seconds), and how many are kept per reply queue.
REPLY_S = 60
REPLIES_MAX = 1_000


class QueueCycle(round_robin_cycle):  # type: ignore[type-arg]  # generic in its stubs only
    """The queues of a channel in turn, without those that are paused."""

    def consume(self, n: int) -> list[str]:  # type: ignore[override]  # its stubs are wrong
        """Return the queues of which the next message is requested."""
        paused = Channel.paused_queues()
        return [queue for queue in super().consume(n) if queue not in paused]


class Channel(kombu_redis.Channel):
    """A channel that opens only if Redis accepts writes, closes without errors on a dead connection, and keeps its
    client: kombu creates one for each command, at more than the cost of the command.
    """

    QoS = QoS
    connection_class: type[PlainConnection] = PlainConnection
    connection_class_ssl: type[SecureConnection] = SecureConnection
    pool: Any
    client: Any
    connection: Any
    connection_errors: Any
    sep: str
    _create_client: Any
    _flush_brpop_reauth: Any
    _fanout_queues: dict[str, tuple[str, str]]
    _fanout_to_queue: dict[str, str]
    _handle_message: Any
    global_keyprefix: str
    _in_listen: Any
    _in_poll: Any
    _q_for_pri: Any
    _queue_cycle: Any
    active_queues: Any
    _kept_client: Any = None
    auto_delete_queues: set[str]
    priority_steps: Any
    typeof: Any
    #: Whether remote control may stop this process.
    may_stop = False
    #: Returns the queues whose messages this process leaves to others now.
    paused_queues: Callable[[], Set[str]] = frozenset

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._queue_cycle = QueueCycle()
        try:
            self.client.set(PROBE, "", xx=True)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield a client for one or more commands; a new pool (after a fork or a lost connection) needs a new one.

        A channel that was closed when its connection was lost counts as a lost connection too: kombu then publishes on
        a new one.
        """
        if client is None:
            if self.connection is None:
                raise ConnectionError("the channel is closed")
            if self._kept_client is None or self._kept_client.connection_pool is not self.pool:
                self._kept_client = self._create_client()
            client = self._kept_client
        yield client

    def _brpop_read(self, **options: Any) -> Any:
        """Read the next message and deliver its bytes unchanged. Raises Empty if there is none."""
        try:
            reply = self._brpop_reply(**options)
            if not reply:
                raise Empty
            queue = reply[0].decode().rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            self.connection._deliver(reply[1], queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _brpop_reply(self, **options: Any) -> Any:
        """Read Redis's reply; a lost connection is opened again with the next read."""
        try:
            reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        consumption.record(self.active_queues)
        return reply

    def _receive_one(self, client: Any) -> Any:
        """Read and deliver a broadcast; log and drop one that is invalid or not allowed.

        The read has a limit: it opens a lost connection again, to which nothing is subscribed before the next turn of
        the loop.
        """
        try:
            response = client.parse_response(block=False, timeout=BROADCAST_S)
        except self.connection_errors:
            self._in_listen = None
            raise
        published = self._handle_message(client, response) if isinstance(response, list | tuple) else {"data": None}
        data, channel = published["data"], bytes(published.get("channel") or b"").decode(errors="replace")
        exchange = channel.partition(".")[2].partition("/")[0]
        if not isinstance(data, bytes) or (queue := self._fanout_to_queue.get(exchange)) is None:
            return None
        try:
            envelope = remote_control.decode_broadcast(data, exchange, may_stop=self.may_stop)
        except InvalidMessageError as error:
            log.warning("ignored a broadcast on %s: %s", exchange, error)
            return None
        self.connection._deliver(envelope, queue)
        return True

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Record the binding of the queue; in Redis only for exchanges whose bindings are read there."""
        if exchange not in remote_control.UNBOUND:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # as above
        elif self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def maybe_refresh_binding_expiry(self) -> None:
        """Do nothing: queues that expire have no bindings in Redis."""

    def _delete(self, queue: str, exchange: str, *args: Any, **options: Any) -> None:
        if exchange not in remote_control.UNBOUND:
            super()._delete(queue, exchange, *args, **options)
            return
        self.auto_delete_queues.discard(queue)
        with self.conn_or_acquire(options.get("client")) as client:
            client.delete(*(self._q_for_pri(queue, priority) for priority in self.priority_steps))

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """Return the queues of a message; for a reply only the queue that it names, ignoring bindings in Redis."""
        if exchange != remote_control.REPLIES:
            return list(super()._lookup(exchange, routing_key, default))
        queue = remote_control.reply_queue(routing_key)
        return [queue] if queue else []

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Put a message into its queue. Replies expire, and are dropped if Redis refuses them."""
        if not remote_control.is_reply_queue(queue):
            super()._put(queue, message, **options)
            return
        try:
            with self.conn_or_acquire() as client, client.pipeline() as pipe:
                key = self.global_keyprefix + queue  # kombu adds the prefix to some commands only
                pipe.lpush(queue, json.dumps(message))
                pipe.ltrim(key, 0, REPLIES_MAX - 1)
                pipe.expire(key, REPLY_S)
                pipe.execute()
        except ResponseError as error:
            log.warning("ignored a reply to remote control: %s", type(error).__name__)

    def close(self) -> None:
        """Close the channel, ignoring the errors of a dead connection."""
        if self._in_poll:
            try:
                self._brpop_read()
            except Empty:
                pass
            except DEAD as error:
                log.debug("last read of a closing channel failed: %r", error)
        self._in_poll = None
        super().close()


class Transport(kombu_redis.Transport):
    """The transport that `install` registers for redis:// URLs."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, RedisRefusalError)
    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def _deliver(self, message: Any, queue: str | None) -> None:
        """Decode a message, given as bytes or as the envelope of a broadcast, and deliver it."""
        super()._deliver(decode_message(message, queue or INTAKE), queue)


class PrimaryChannel(Channel):
    """A channel to the primary that sentinels name."""

    connection_class = PrimaryConnection
    connection_class_ssl = SecurePrimaryConnection
    keyprefix_fanout: str
    _connparams: Any
    #: Where the sentinels are.
    address: RedisAddress

    def _get_pool(self, asynchronous: bool = False) -> Any:
        """Return a pool of connections with kombu's options."""
        options = self._connparams(asynchronous)
        kind = options.pop("connection_class")
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=self.address.database)
        for name in ("host", "port"):
            del options[name]
        return connection_pool(self.address, lambda _: kind, **options)


class PrimaryTransport(Transport):
    """The transport that `install` registers for sentinel:// URLs."""

    Channel = PrimaryChannel


class Connection(KombuConnection):
    """A connection that retries at least every 3 s while Redis is unavailable."""

    #: The event loop that Celery creates for a worker.
    requires_hub = EventLoop

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Connection:
        """Wait until the connection is established, and return it."""
        intervals = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3}
        super().ensure_connection(*args, **{**intervals, **kwargs})
        return self


class Amqp(AMQP):
    """Celery's message part, with these connections."""

    Connection = Connection
    #: Long enough for all job ids of the longest message: Flower finds a job's tasks by them.
    argsrepr_maxsize = 500 * 24


def install(clock: Clock, redis_url: str, *, may_stop: bool = False) -> None:
    """Use these transports for every redis://, rediss:// and sentinel:// broker URL of this process.

    `redis_url`: where the sentinels are, if it names any. `may_stop`: whether remote control may stop this process.
    The transports are registered as aliases, because the name of `broker_transport` would become the scheme of the
    broker's URL in logs and in Flower.
    """
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:{PrimaryTransport.__name__}"
    PrimaryChannel.address = parse_redis_url(redis_url)
    Channel.may_stop = may_stop
    # kombu compares the time at which a message was received with another host's clock.
    kombu_redis.time = clock  # type: ignore[attr-defined]  # an import there
