"""Server-sent events: every move of every job, from where somebody was cut off."""

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

from voicequeue import Event, InvalidJob, Problem, StoreUnreachable, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.texts import whole_number
from workers.gateway import schemas
from workers.gateway.auth import Access
from workers.gateway.connections import Bounds
from workers.gateway.openapi import problems
from workers.gateway.places import Places

#: A line at least this often (seconds), so that nobody between takes the connection for dead.
HEARTBEAT_S = 15.0

#: Followers of one process at once; at most a quarter of all places. A key that holds fewer than this share of the free
#: ones gets another: alone it gets 50.
FOLLOWERS_MAX = 200
SHARE = 1 / 3

#: One look for events waits so long (seconds), and so much lies between two: in a burst they come by the hundred.
_LISTEN_S = 2.0
_PAUSE_S = 0.05

#: The largest number in an event's id.
_PART_MAX = 2**64 - 1

_NO_ID = "must be an event's id, such as 1760000000000-0"

_EXAMPLE = (
    "id: 1760000000000-0\nevent: job\n"
    'data: {"at": "2026-03-01T09:30:00.000Z", "job_id": "k5v2yj3q7m6xw4ra", "batch": "spring", '
    '"state": "succeeded", "stage": "music", "reason": ""}\n\n'
)


class EventStream(StreamingResponse):
    """Server-sent events, which no proxy may keep, in one of the places that followers have."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], places: Places) -> None:
        super().__init__(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._places = places

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """Send them while there is a place. Raises Refusal."""
        with self._places.held(scope.get("state", {}).get("who", "")):
            await super().__call__(scope, receive, send)


class Tail:
    """Tells all followers of this process when something has happened, with one connection to Redis."""

    def __init__(self, queue: VoiceQueue, bounds: Bounds) -> None:
        self._queue = queue
        self._moved = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._followers = 0
        self.places = Places(bounds.part(FOLLOWERS_MAX), share=SHARE, what="event streams")

    def next_move(self) -> asyncio.Event:
        """Set as soon as there is something new; to be asked for before one looks what there is."""
        return self._moved

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Somebody follows meanwhile."""
        self._followers += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    async def _look(self) -> None:
        told = last = ""
        while True:
            try:
                if last:
                    found = await run_in_threadpool(self._queue.events, last, wait_s=_LISTEN_S)
                    last = found[-1].id if found else last
                else:
                    last = await run_in_threadpool(self._queue.last_event)
            except StoreUnreachable:
                await asyncio.sleep(1)
            if last != told:
                told = last
                self._moved.set()
                self._moved = asyncio.Event()
            await asyncio.sleep(_PAUSE_S)


def router(queue: VoiceQueue, access: Access, tail: Tail, *, heartbeat_s: float = HEARTBEAT_S) -> APIRouter:
    """The route that tells what happens."""
    routes = APIRouter(tags=["events"], dependencies=access.needs(Scope.READ))

    @routes.get(
        "/v1/events",
        status_code=200,
        response_class=EventStream,
        responses={
            200: {
                "description": "Events `job`, and `gap` where some are not kept any more.",
                "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
            },
            **problems(401, 403, 422, 429, 503),
        },
    )
    async def events(
        request: Request,
        last_event_id: Annotated[str | None, Header(description="the id of the last event that came")] = None,
        batch: Annotated[schemas.BatchName | None, Query(description="only of this batch")] = None,
        job: Annotated[str | None, Query(max_length=100, description="only of this job")] = None,
    ) -> EventStream:
        """What happens from now on, or after Last-Event-ID, as server-sent events.

        Enqueueing is told once for many jobs, with `job_id` null. A comment comes when nothing happens for
        a while. An event `gap` says that some were missed: ask for the jobs themselves.
        """
        tail.places.check(getattr(request.state, "who", ""))
        after, gap = await run_in_threadpool(_start, queue, last_event_id)
        told = _told(queue, tail, after, gap, heartbeat_s=heartbeat_s, batch=batch, job=job)
        return EventStream(told, tail.places)

    return routes


def _start(queue: VoiceQueue, last: str | None) -> tuple[str, bool]:
    """After which event to begin, and whether some before it may have been missed."""
    newest = queue.last_event()
    if last is None:
        return newest, False
    try:
        wanted = place(last)
    except ValueError as error:
        raise InvalidJob([Problem("Last-Event-ID", str(error))]) from None
    if wanted > place(newest):  # of another Redis, or of one that was emptied
        return newest, True
    return last, place("0-0") < wanted < place(queue.first_event())


def place(event_id: str) -> tuple[int, int]:
    """An event's place among all, to be compared. Raises ValueError for what is no event's id."""
    at, _, place_then = event_id.partition("-")
    found = whole_number(at, at_most=_PART_MAX), whole_number(place_then, at_most=_PART_MAX)
    if found[0] is None or found[1] is None:
        raise ValueError(_NO_ID)
    return found[0], found[1]


async def _told(
    queue: VoiceQueue, tail: Tail, after: str, gap: bool, *, heartbeat_s: float, batch: str | None, job: str | None
) -> AsyncIterator[str]:
    yield f": from {after} on\n\n" if not gap else f"id: {after}\nevent: gap\ndata: {{}}\n\n"
    async with tail.followed():
        spoke = time.monotonic()
        while True:
            moved = tail.next_move()
            found = await _after(queue, after)
            if text := "".join(map(_text, (each for each in found if _is_asked_for(each, batch, job)))):
                yield text
                spoke = time.monotonic()
            if found:
                after = found[-1].id
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), max(0.01, spoke + heartbeat_s - time.monotonic()))
            if time.monotonic() - spoke >= heartbeat_s:
                # With an id, so that whoever is cut off need not be told again what was not for them.
                yield f"id: {after}\n: nothing new\n\n"
                spoke = time.monotonic()


async def _after(queue: VoiceQueue, after: str) -> list[Event]:
    try:
        return await run_in_threadpool(queue.events, after)
    except StoreUnreachable:
        return []  # the heart beats on; Redis is asked again then


def _is_asked_for(event: Event, batch: str | None, job: str | None) -> bool:
    return batch in (None, event.batch) and job in (None, event.job_id)


def _text(event: Event) -> str:
    return f"id: {event.id}\nevent: job\ndata: {json.dumps(event.as_dict(), ensure_ascii=False)}\n\n"
