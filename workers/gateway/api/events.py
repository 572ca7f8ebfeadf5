"""The route that streams every state transition as server-sent events, resumable after a disconnect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Send
from starlette.types import Scope as HttpScope

from voicequeue import Event, InvalidJobError, Problem, StoreUnavailableError, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.namespaces import Scope as Namespaces
from voicequeue.texts import parse_int
from workers.gateway.api import schemas
from workers.gateway.openapi import problems
from workers.gateway.security.access import AccessControl, reading
from workers.gateway.security.admission import while_admitted
from workers.gateway.server.concurrency import ConcurrencyLimit
from workers.gateway.server.connections import ServerLimits

#: Seconds between two lines at the most, so that no proxy closes the connection as idle.
HEARTBEAT_S = 15.0

#: Concurrent streams per process; never more than a quarter of all concurrent requests. A key may open another one
#: while it has fewer than this share of the free slots: alone it gets 50.
MAX_STREAMS = 200
STREAM_SHARE = 1 / 3

#: Seconds that one read waits for events, and between two reads: in a burst, events arrive by the hundred.
_READ_WAIT_S = 2.0
_READ_INTERVAL_S = 0.05

#: The largest number in an event id.
_PART_MAX = 2**64 - 1

_NO_ID = "must be an event id, for example 1760000000000-0"

_EXAMPLE = (
    "id: 1760000000000-0\nevent: job\n"
    'data: {"at": "2026-03-01T09:30:00.000Z", "job_id": "k5v2yj3q7m6xw4ra", "batch": "spring", '
    '"state": "succeeded", "stage": "music", "reason": ""}\n\n'
)


class EventStream(StreamingResponse):
    """A response of server-sent events, until the admission of its request ends.

    It takes one of the slots for streams, and no proxy may buffer it.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], limit: ConcurrencyLimit) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events, self._places = events, limit

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """Send the events. Raises ProblemError if no slot is free."""
        self.body_iterator = while_admitted(self._events, scope["state"]["admission"])
        with self._places.slot(scope["state"]["caller"]):
            await super().__call__(scope, receive, send)


class EventBroadcaster:
    """Notifies all streams of this process of new events, with one connection to Redis."""

    def __init__(self, queue: VoiceQueue, bounds: ServerLimits) -> None:
        self._queue = queue
        self._last_id = ""
        self._changed: dict[str, asyncio.Event] = {}  # by namespace
        self._watcher: asyncio.Task[None] | None = None
        self._streams = 0
        self.streams = ConcurrencyLimit(bounds.share_of(MAX_STREAMS), share=STREAM_SHARE, what="event streams")

    def next_change(self, namespace: str) -> asyncio.Event:
        """Return an event that is set when there is something new in the namespace (`*`: in any).

        Get it before reading, to miss nothing.
        """
        return self._changed.setdefault(namespace, asyncio.Event())

    @property
    def last_id(self) -> str:
        """The id of the last event of any namespace that the watcher has read; `0-0` before the first."""
        return self._last_id or "0-0"

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[None]:
        """Watch for new events in the body; the last stream stops the watcher."""
        self._streams += 1
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams and self._watcher is not None:
                self._watcher.cancel()
                self._watcher = None
                self._changed.clear()

    async def _watch(self) -> None:
        self._last_id = ""
        while True:
            try:
                if self._last_id:
                    events = await run_in_threadpool(self._queue.events, self._last_id, wait_s=_READ_WAIT_S)
                    self._last_id = events[-1].id if events else self._last_id
                    self._notify({event.namespace for event in events})
                else:
                    self._last_id = await run_in_threadpool(self._queue.last_event_id)
                    self._notify(set(self._changed))
            except StoreUnavailableError:
                await asyncio.sleep(1)
            await asyncio.sleep(_READ_INTERVAL_S)

    def _notify(self, namespaces: set[str]) -> None:
        """Wake the streams of these namespaces, and those of all namespaces."""
        for namespace in {*namespaces, ALL} if namespaces else ():
            if changed := self._changed.pop(namespace, None):
                changed.set()


def router(
    queue: VoiceQueue, access: AccessControl, broadcaster: EventBroadcaster, *, heartbeat_s: float = HEARTBEAT_S
) -> APIRouter:
    """Return the route of the event stream."""
    routes = APIRouter(tags=["Events"], dependencies=access.require(Scope.READ))

    @routes.get(
        "/v1/events",
        status_code=200,
        response_class=EventStream,
        responses={
            200: {
                "description": "Events `job`, each with an `Event` as data; `gap` if events were missed.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            **problems(401, 403, 422, 429, 503),
        },
    )
    async def stream_events(
        request: Request,
        last_event_id: Annotated[str | None, Header(description="Id of the last event received.")] = None,
        batch: Annotated[schemas.BatchName | None, Query(description="Only events of this batch.")] = None,
        job: Annotated[str | None, Query(max_length=100, description="Only events of this job.")] = None,
    ) -> EventStream:
        """Stream events as server-sent events.

        The stream starts now, or after `Last-Event-ID`. Many jobs enqueued together are one event, with `job_id` null.
        A comment is sent when nothing happens for a while. The event `gap` means that events were missed: get the jobs
        themselves.
        """
        broadcaster.streams.check(request.state.caller)
        own = reading(queue, request)
        after, has_gap = await run_in_threadpool(_start, own, last_event_id)
        events = _stream(own, broadcaster, after, has_gap, heartbeat_s=heartbeat_s, batch=batch, job_id=job)
        return EventStream(events, broadcaster.streams)

    return routes


def _start(queue: VoiceQueue, last_event_id: str | None) -> tuple[str, bool]:
    """Return the id of the event to start after, and whether events before it may have been missed."""
    newest = queue.last_event_id()
    if last_event_id is None:
        return newest, False
    try:
        position = parse_event_id(last_event_id)
    except ValueError as error:
        raise InvalidJobError([Problem("Last-Event-ID", str(error))]) from None
    if position > parse_event_id(newest):  # an id of another Redis, or of one that was emptied
        return newest, True
    return last_event_id, parse_event_id("0-0") < position < parse_event_id(queue.first_event_id())


def parse_event_id(event_id: str) -> tuple[int, int]:
    """Return an event's position among all events, for comparison. Raises ValueError if it is not an event id."""
    milliseconds, _, sequence = event_id.partition("-")
    parts = parse_int(milliseconds, at_most=_PART_MAX), parse_int(sequence, at_most=_PART_MAX)
    if parts[0] is None or parts[1] is None:
        raise ValueError(_NO_ID)
    return parts[0], parts[1]


async def _stream(
    queue: VoiceQueue,
    broadcaster: EventBroadcaster,
    after: str,
    has_gap: bool,
    *,
    heartbeat_s: float,
    batch: str | None,
    job_id: str | None,
) -> AsyncIterator[str]:
    named = None if batch is None else Namespaces(queue.namespace).qualify(batch)
    yield f"id: {after}\nevent: gap\ndata: {{}}\n\n" if has_gap else f": after {after}\n\n"
    async with broadcaster.watch():
        last_sent_at = time.monotonic()
        while True:
            changed = broadcaster.next_change(queue.namespace)
            events, after = await _read(queue, after, broadcaster.last_id)
            if text := "".join(map(_format, (event for event in events if _matches(event, named, job_id)))):
                yield text
                last_sent_at = time.monotonic()
            if events:
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), max(0.01, last_sent_at + heartbeat_s - time.monotonic()))
            if time.monotonic() - last_sent_at >= heartbeat_s:
                # With an id: after a disconnect, the client need not receive the skipped events again.
                yield f"id: {after}\n: nothing new\n\n"
                last_sent_at = time.monotonic()


async def _read(queue: VoiceQueue, after: str, newest: str) -> tuple[list[Event], str]:
    """Return the next events of the namespace, and the id to read on from.

    Without any, all events until `newest` were of other namespaces. If Redis is unavailable, they are read after the
    next heartbeat.
    """
    try:
        events = await run_in_threadpool(queue.events, after)
    except StoreUnavailableError:
        return [], after
    return events, events[-1].id if events else max(after, newest, key=parse_event_id)


def _matches(event: Event, batch: str | None, job_id: str | None) -> bool:
    return batch in (None, event.qualified_batch) and job_id in (None, event.job_id)


def _format(event: Event) -> str:
    return f"id: {event.id}\nevent: job\ndata: {json.dumps(event.as_dict(), ensure_ascii=False)}\n\n"
