"""The pages that show: jobs with filters and search, one job, batches, how it went over time; and what moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Code, Filter, State, StoreUnreachable, VoiceQueue, VoiceQueueError, charges
from voicequeue.domain.stage import PRICES
from voicequeue.domain.transitions import can_be_cancelled
from workers.gateway.events import HEARTBEAT_S, EventStream, Tail
from workers.gateway.page.base import Frame
from workers.gateway.page.chart import SPANS, drawn

#: What moves within so many seconds is shown at once.
TOGETHER_S = 1.0

#: Jobs and batches on one page.
ROWS = 50

Cursor = Annotated[str | None, Query(max_length=500)]


class Reading:
    """The pages that show what is."""

    def __init__(self, queue: VoiceQueue, frame: Frame) -> None:
        self._queue = queue
        self._frame = frame

    def jobs(self, request: Request, wanted: Mapping[str, str], cursor: str | None) -> Response:
        """A page of jobs; a search that names one job, or one batch, leads there."""
        if wanted["q"] and cursor is None and (place := self._place(wanted["q"])):
            return RedirectResponse(place, 303)
        asked = asked_for(wanted)
        batch, trouble, page = None, "", None
        try:
            page = self._queue.find(asked, limit=ROWS, cursor=cursor)
            batch = self._queue.batch(asked.batch) if asked.batch else None
        except VoiceQueueError as error:
            trouble = str(error)
        # States are read one after the other: a job that moves meanwhile is met twice, the second time further on.
        shown = list({job.id: job for job in page.items}.values()) if page else []
        given = {name: value for name, value in wanted.items() if value}
        onward = page and page.cursor and "?" + urlencode({**given, "cursor": page.cursor})
        about = {"wanted": wanted, "given": given, "codes": list(Code), "trouble": trouble}
        return self._frame.rendered(request, "jobs.html", {"shown": shown, "batch": batch, "onward": onward, **about})

    def _place(self, sought: str) -> str | None:
        try:
            return f"/job/{self._queue.get(sought).id}"
        except VoiceQueueError:
            pass
        try:
            return f"/?{urlencode({'batch': self._queue.batch(sought).name})}"
        except VoiceQueueError:
            return None

    def job(self, request: Request, job_id: str) -> Response:
        """One job: its timeline, what it cost, its voice and songs, whom it tells. Raises UnknownJob."""
        job, timeline = self._queue.get(job_id), self._queue.timeline(job_id)
        callback = self._queue.callback(job.callback_id) if job.callback_id else None
        about = {"maker": self._queue.waits_for(job), "callback": callback, "cancellable": can_be_cancelled(job)}
        paid = {"charges": charges(timeline), "prices": PRICES}
        shown = {"job": job, "timeline": timeline, **about, **paid}
        return self._frame.rendered(request, "job.html", shown, clips=job.clips)

    def batches(self, request: Request, cursor: str | None) -> Response:
        """The batches, the newest first, and how far each is. Raises BadCursor."""
        page = self._queue.find_batches(limit=ROWS, cursor=cursor)
        onward = page.cursor and "?" + urlencode({"cursor": page.cursor})
        return self._frame.rendered(request, "batches.html", {"page": page, "onward": onward})

    def trend(self, request: Request, over: str) -> Response:
        """How many jobs were finished over time, and how long they took."""
        span = SPANS.get(over, SPANS["hour"])
        picture = drawn(self._queue.trend(span_s=span.seconds, stretches=span.stretches))
        return self._frame.rendered(request, "trend.html", {"picture": picture, "span": span, "spans": SPANS})


def asked_for(wanted: Mapping[str, str]) -> Filter:
    """What the address, or a form, asks for: `q` is a name, or NAME=VALUE of the metadata."""
    name, equals, value = wanted.get("q", "").partition("=")
    state = wanted.get("state", "")
    code = wanted.get("code", "")
    return Filter(
        state=State(state) if state in set(State) else None,
        batch=wanted.get("batch") or None,
        code=Code(code) if code in set(Code) else None,
        metadata={name.strip(): value.strip()} if equals else {},
        called=name.strip() if name.strip() and not equals else None,
    )


async def _moves(tail: Tail, may_still: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
    """That something has moved, once for all that moved in a while; the page asks what.

    It ends when the visitor may not look any more, and says nothing while that cannot be known.
    """
    yield ": it is told when something moves\n\n"
    async with tail.followed():
        moved = tail.next_move()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), HEARTBEAT_S)
            try:
                if not await may_still():
                    return
            except StoreUnreachable:
                yield ": nothing is known\n\n"
                await asyncio.sleep(TOGETHER_S)
                continue
            if not moved.is_set():
                yield ": nothing new\n\n"
                continue
            moved = tail.next_move()
            yield "event: moved\ndata: {}\n\n"
            await asyncio.sleep(TOGETHER_S)


def router(queue: VoiceQueue, frame: Frame, tail: Tail) -> APIRouter:
    """What those see who may read."""
    pages = Reading(queue, frame)
    routes = APIRouter(dependencies=[Depends(frame.admit)], route_class=frame.route())

    @routes.get("/")
    async def jobs(
        request: Request, state: str = "", batch: str = "", code: str = "", q: str = "", cursor: Cursor = None
    ) -> Response:
        wanted = {
            "state": state if state in set(State) else "",
            "batch": batch,
            "code": code if code in set(Code) else "",
            "q": q.strip()[:500],
        }
        return await run_in_threadpool(pages.jobs, request, wanted, cursor)

    @routes.get("/live", response_class=EventStream)
    async def live(request: Request) -> EventStream:
        return EventStream(_moves(tail, partial(frame.may_still_look, request)), tail.places)

    @routes.get("/job/{job_id}")
    def job(request: Request, job_id: str) -> Response:
        return pages.job(request, job_id)

    @routes.get("/batches")
    def batches(request: Request, cursor: Cursor = None) -> Response:
        return pages.batches(request, cursor)

    @routes.get("/trend")
    def trend(request: Request, over: str = "hour") -> Response:
        return pages.trend(request, over)

    return routes
