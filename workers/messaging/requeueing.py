"""Messages that a worker holds: requeued or settled as soon as Redis permits it; redis_transport.py has the reasons."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.json import dumps
from redis.exceptions import RedisError

from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.connection.retry import UNREACHABLE
from workers.messaging.transactions import Command, execute

log = logging.getLogger("voicequeue.broker")

#: The errors of closing a dead channel: redis-py's, those of sockets, and kombu's own on connections that it has
#: already removed.
DEAD = (RedisError, OSError, AttributeError)

#: Delivery tags that a dead channel of this process could not requeue, with the message if Redis did not record it.
_orphans: deque[tuple[str, Any]] = deque()


class QoS(kombu_redis.QoS):
    """Requeues messages when possible, and remembers those that it could not requeue."""

    _delivered: OrderedDict[str, Any]
    _remove_from_indices: Any
    channel: Any
    unacked_key: str
    unacked_index_key: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tags of messages that Redis did not record.
        self._unwritten: set[str] = set()
        #: Acknowledgements and rejections that Redis refused.
        self._unsettled: deque[Callable[[], None]] = deque()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message; if Redis cannot record it, in this process only."""
        source = message.delivery_info
        record = dumps([message._raw, source["exchange"], source["routing_key"]])
        try:
            self._execute(
                ("ZADD", self._index_key, kombu_redis.time(), delivery_tag),  # type: ignore[attr-defined]
                ("HSET", self._key, delivery_tag, record),
            )
        except (*UNREACHABLE, OSError):
            self._unwritten.add(delivery_tag)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; while Redis refuses that, it counts as held."""
        self._settle(partial(self._ack, delivery_tag), delivery_tag)

    def _ack(self, delivery_tag: str) -> None:
        self._execute(("ZREM", self._index_key, delivery_tag), ("HDEL", self._key, delivery_tag))
        virtual.QoS.ack(self, delivery_tag)

    def _execute(self, *commands: Command) -> None:
        with self.channel.conn_or_acquire() as client:
            execute(client, *commands)

    @cached_property
    def _key(self) -> str:
        """The complete key of the messages that are held, by tag."""
        return f"{self.channel.global_keyprefix}{self.unacked_key}"

    @cached_property
    def _index_key(self) -> str:
        """The complete key of the times since when they are held."""
        return f"{self.channel.global_keyprefix}{self.unacked_index_key}"

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop or requeue a message; while Redis refuses that, it counts as held."""
        self._settle(partial(super().reject, delivery_tag, requeue=requeue), delivery_tag)

    def _settle(self, settle: Callable[[], None], tag: str) -> None:
        try:
            settle()
        except RedisRefusalError:
            self._unsettled.append(partial(self._settle, settle, tag))
        else:
            self._unwritten.discard(tag)

    def _settle_again(self) -> None:
        """Repeat the acknowledgements and rejections that Redis refused."""
        for _ in range(len(self._unsettled)):
            self._unsettled.popleft()()

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Requeue a message, from Redis or from this process."""
        if tag not in self._unwritten:
            super().restore_by_tag(tag, client, leftmost)
            return
        self._requeue(tag, self._delivered[tag], client, leftmost=leftmost)
        self._unwritten.discard(tag)

    def _requeue(self, tag: str, message: Any, client: Any = None, *, leftmost: bool = False) -> None:
        """Put a message that only this process holds into its queue."""
        source = message.delivery_info
        with self.pipe_or_acquire(client=client) as pipe:
            self._remove_from_indices(tag, pipe)
            self.channel._do_restore_message(message._raw, source["exchange"], source["routing_key"], pipe, leftmost)
            pipe.execute()

    def restore_unacked(self, client: Any = None) -> None:
        """Requeue all held messages; with a dead channel, later."""
        try:
            super().restore_unacked(client)
        except DEAD:
            unwritten = self._unwritten
            _orphans.extend((tag, message if tag in unwritten else None) for tag, message in self._delivered.items())
            self._delivered.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Restore messages that were not acknowledged in time, orphans first; kombu calls it regularly."""
        if _orphans:
            log.info("requeueing %d messages that were held when the connection was lost", len(_orphans))
        while _orphans:
            tag, message = _orphans[0]
            if message is None:
                self.restore_by_tag(tag)
            else:
                self._requeue(tag, message)
            _orphans.popleft()
        self._settle_again()
        super().restore_visible(*args, **kwargs)
