"""Let the queues that an app creates use the Redis of a test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from voicequeue.client.async_queue import AsyncVoiceQueue
from voicequeue.client.events import EventMethods
from voicequeue.client.queue import VoiceQueue
from voicequeue.client.waiting import Awaited
from voicequeue.domain.job import Event
from voicequeue.testing.queue import InMemoryRedis, advance_or_time_out, advanced_events


def use_in_memory(redis: InMemoryRedis, setattr: Callable[[object, str, object], None]) -> None:
    """Connect every `VoiceQueue` and `AsyncVoiceQueue` to this Redis, with a `setattr` that the test undoes."""
    read_events = EventMethods._read_events

    def connect(_: VoiceQueue, __: str, **___: float) -> Any:
        return redis.connect()

    def await_event(self: VoiceQueue, awaited: Awaited[object], after: str, _: float | None) -> str:
        advance_or_time_out(self, redis.worker(self._prefix), awaited)
        return after

    def read(self: VoiceQueue, after: str, *, wait_s: float) -> tuple[list[Event], str]:
        return advanced_events(redis.worker(self._prefix), partial(read_events, self, after, wait_s=0.0), wait_s)

    async def await_event_async(self: AsyncVoiceQueue, awaited: Awaited[object], _: object) -> None:
        await self._run(partial(advance_or_time_out, self._queue, redis.worker(self._queue._prefix), awaited))

    async def need_no_listener(_: AsyncVoiceQueue) -> None: ...

    setattr(VoiceQueue, "_connect", connect)
    setattr(VoiceQueue, "_await_event", await_event)
    setattr(VoiceQueue, "_read_events", read)
    setattr(AsyncVoiceQueue, "_await_event", await_event_async)
    setattr(AsyncVoiceQueue, "_ensure_listener", need_no_listener)
