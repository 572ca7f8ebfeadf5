"""kombu's Redis transport, with a guard for the moment when Redis goes away.

Seen with kombu 5.7.0: when the connection is lost while a worker holds messages (countdown polls:
always), closing the dead channel tries to give them back through it, which ends the worker's main
process. Here a channel that has lost its connection closes quietly, and what it held is given back
as soon as another channel stands. Nothing would be lost without that either (the visibility
timeout, and the pulse), but messages from other apps would wait for minutes.

Publications are judged by workers/remote_control.py; replies to them go to the queue that they name and nowhere else.

Messages are opened by workers/message_decoding.py and not by kombu: what kombu cannot open would end the worker, and
be lost.

A Redis that refuses writes for now (out of memory, a failover) would end the worker as well, and lose the message
that it has just taken. Here a refusal is a lost connection, a channel opens once Redis takes writes again, and a
message of which Redis took no note is held by this process until then. (A Redis that is out of memory still hands
messages out, so that consuming goes on.)

How long a message has been held is measured by the queue's time: by the hosts' clocks, one that is minutes ahead
would take all messages from the others, again and again.

And its connections are opened again within 3 s of Redis's return, where kombu would wait up to 30 s.

It reaches into kombu, which is therefore pinned; a new version needs another look.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection as KombuConnection
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError, ResponseError

from voicequeue.storage.celery_queues import INTAKE
from voicequeue.storage.clock import Clock
from voicequeue.storage.connection import UNREACHABLE
from voicequeue.storage.redis_refusals import PlainConnection, RedisRefusalError, SecureConnection
from workers import remote_control
from workers.message_decoding import UnsoundError, sound

log = logging.getLogger("voicequeue.broker")

#: What closing a dead channel raises: redis-py's errors, sockets', and kombu's own stumbling over
#: connections that it has already taken away.
DEAD = (RedisError, OSError, AttributeError)

#: A key that never exists, so that setting it where it exists is a write that changes nothing.
PROBE = "unacked_probe"

#: How long (seconds) a reply to remote control waits for whoever asked, and how many wait for one.
REPLY_S = 60
REPLIES_MAX = 1_000

#: Delivery tags that a dead channel of this process could not give back, and the message where Redis has none.
_orphans: deque[tuple[str, Any]] = deque()


class QoS(kombu_redis.QoS):
    """Gives messages back when it can, and remembers those that it could not."""

    _delivered: OrderedDict[str, Any]
    _remove_from_indices: Any
    channel: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tags of messages of which Redis took no note.
        self._unwritten: set[str] = set()
        #: Acknowledgements and rejections that Redis refused.
        self._unsettled: deque[Callable[[], None]] = deque()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message; where Redis takes no note of it, in this process alone."""
        try:
            super().append(message, delivery_tag)
        except (*UNREACHABLE, OSError):
            self._unwritten.add(delivery_tag)
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """It is done; where Redis refuses that, it counts as held until Redis takes it."""
        self._settle(partial(super().ack, delivery_tag), delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put it away, or back; where Redis refuses that, as above."""
        self._settle(partial(super().reject, delivery_tag, requeue=requeue), delivery_tag)

    def _settle(self, settle: Callable[[], None], tag: str) -> None:
        try:
            settle()
        except RedisRefusalError:
            self._unsettled.append(partial(self._settle, settle, tag))
        else:
            self._unwritten.discard(tag)

    def _settle_again(self) -> None:
        """Acknowledge and reject what Redis refused before."""
        for _ in range(len(self._unsettled)):
            self._unsettled.popleft()()

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put it back into its queue, from Redis or from this process."""
        if tag not in self._unwritten:
            super().restore_by_tag(tag, client, leftmost)
            return
        self._put_back(tag, self._delivered[tag], client, leftmost=leftmost)
        self._unwritten.discard(tag)

    def _put_back(self, tag: str, message: Any, client: Any = None, *, leftmost: bool = False) -> None:
        """Put a message of this process into its queue."""
        source = message.delivery_info
        with self.pipe_or_acquire(client=client) as pipe:
            self._remove_from_indices(tag, pipe)
            self.channel._do_restore_message(message._raw, source["exchange"], source["routing_key"], pipe, leftmost)
            pipe.execute()

    def restore_unacked(self, client: Any = None) -> None:
        """Give back all that is held; through a dead channel, later."""
        try:
            super().restore_unacked(client)
        except DEAD:
            unwritten = self._unwritten
            _orphans.extend((tag, held if tag in unwritten else None) for tag, held in self._delivered.items())
            self._delivered.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """The regular look for messages that nobody acknowledged: orphans first."""
        if _orphans:
            log.info("giving back %d messages that were held when the connection was lost", len(_orphans))
        while _orphans:
            tag, message = _orphans[0]
            if message is None:
                self.restore_by_tag(tag)
            else:
                self._put_back(tag, message)
            _orphans.popleft()
        self._settle_again()
        super().restore_visible(*args, **kwargs)


class Channel(kombu_redis.Channel):
    """A channel that opens where Redis takes writes, whose end is quiet, whatever its connection is like, and which
    keeps its client.

    kombu makes a client anew for each command, at more than the command's cost.
    """

    QoS = QoS
    connection_class = PlainConnection
    connection_class_ssl = SecureConnection
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
    _kept: Any = None
    auto_delete_queues: set[str]
    priority_steps: Any
    typeof: Any
    #: Whether this process may be stopped by remote control.
    may_stop = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self.client.set(PROBE, "", xx=True)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client for one command or more; a new one only where the pool is new (a fork, a lost connection)."""
        if client is None:
            if self._kept is None or self._kept.connection_pool is not self.pool:
                self._kept = self._create_client()
            client = self._kept
        yield client

    def _brpop_read(self, **options: Any) -> Any:
        """Read the message that came, and deliver its bytes as they are. Raises Empty where none came."""
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
        """Read Redis's answer; a connection that is lost is opened again at the next turn."""
        try:
            return self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise

    def _receive_one(self, client: Any) -> Any:
        """Read what was published, and deliver it; what cannot be read or is not allowed is dropped with a line."""
        try:
            response = client.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        published = self._handle_message(client, response) if isinstance(response, list | tuple) else {"data": None}
        data, channel = published["data"], bytes(published.get("channel") or b"").decode(errors="replace")
        exchange = channel.partition(".")[2].partition("/")[0]
        if not isinstance(data, bytes) or (queue := self._fanout_to_queue.get(exchange)) is None:
            return None
        try:
            envelope = remote_control.received(data, exchange, may_stop=self.may_stop)
        except UnsoundError as error:
            log.warning("ignored a publication on %s: %s", exchange, error)
            return None
        self.connection._deliver(envelope, queue)
        return True

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Note what the queue is bound to; in Redis only where that is looked up there."""
        if exchange not in remote_control.UNBOUND:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]  # as above
        elif self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def maybe_refresh_binding_expiry(self) -> None:
        """Do nothing: no queue that expires is bound in Redis."""

    def _delete(self, queue: str, exchange: str, *args: Any, **options: Any) -> None:
        if exchange not in remote_control.UNBOUND:
            super()._delete(queue, exchange, *args, **options)
            return
        self.auto_delete_queues.discard(queue)
        with self.conn_or_acquire(options.get("client")) as client:
            client.delete(*(self._q_for_pri(queue, priority) for priority in self.priority_steps))

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """Return the queues of a message; that of a reply by its name alone, whatever is bound in Redis."""
        if exchange != remote_control.REPLIES:
            return list(super()._lookup(exchange, routing_key, default))
        queue = remote_control.reply_queue(routing_key)
        return [queue] if queue else []

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Put a message into its queue; replies that are not collected expire, and those that it refuses are lost."""
        if not remote_control.is_reply_queue(queue):
            super()._put(queue, message, **options)
            return
        try:
            with self.conn_or_acquire() as client, client.pipeline() as pipe:
                key = self.global_keyprefix + queue  # to which kombu adds the root at some commands alone
                pipe.lpush(queue, json.dumps(message))
                pipe.ltrim(key, 0, REPLIES_MAX - 1)
                pipe.expire(key, REPLY_S)
                pipe.execute()
        except ResponseError as error:
            log.warning("ignored a reply to remote control: %s", type(error).__name__)

    def close(self) -> None:
        """Close; what a dead connection says meanwhile is of no interest."""
        if self._in_poll:
            try:
                self._brpop_read()
            except Empty:
                pass
            except DEAD as error:
                log.debug("the last read of a closing channel: %r", error)
        self._in_poll = None
        super().close()


class Transport(kombu_redis.Transport):
    """What `install` puts behind redis:// URLs."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, RedisRefusalError)

    def _deliver(self, message: Any, queue: str | None) -> None:
        """Open a message and hand it on: its bytes, or, of a publication, what they say."""
        super()._deliver(sound(message, queue or INTAKE), queue)


class Connection(KombuConnection):
    """A connection that, while Redis is away, looks for it every 3 s at least."""

    def ensure_connection(self, *args: Any, **named: Any) -> Connection:
        """The connection, once it stands."""
        often = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 3}
        super().ensure_connection(*args, **{**often, **named})
        return self


class Amqp(AMQP):
    """Celery's part for messages, with these connections."""

    Connection = Connection
    #: Long enough for the ids of the longest chunk: Flower finds a job's tasks by them.
    argsrepr_maxsize = 500 * 24


def install(clock: Clock, *, may_stop: bool = False) -> None:
    """Use this transport for every broker URL of this process that begins with redis:// or rediss://.

    `may_stop` is whether remote control may stop this process.
    By the table of aliases and not by `broker_transport`, whose name would show up as the scheme of
    the broker's URL in logs and in Flower, which then knows no queues.
    """
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
    Channel.may_stop = may_stop
    # By this kombu notes since when a message is held, and by another host's whether that is too long.
    kombu_redis.time = clock  # type: ignore[attr-defined]  # it is imported there
