"""The pages that only show: jobs with filters and search, one job, batches, trends; and the stream of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import fields as fields_of
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import (
    ArchivedFile,
    AuditEntry,
    Clip,
    FailureCode,
    Filter,
    InvalidJobError,
    Job,
    Page,
    Problem,
    RejectedMessage,
    Sort,
    State,
    VoiceQueueError,
    charges,
)
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.stage import PRICES
from voicequeue.domain.transitions import can_be_cancelled
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.monitoring.samples import RESOLUTIONS
from workers.gateway.api.events import HEARTBEAT_S, EventBroadcaster, EventStream
from workers.gateway.page.base import PageRenderer
from workers.gateway.page.chart import PERIODS, Period, draw
from workers.gateway.page.flower_links import tasks_url
from workers.gateway.page.namespaces import batch_name, path_in
from workers.gateway.page.sample_charts import SampleCharts, draw_samples
from workers.gateway.page.services import PageServices
from workers.gateway.security.access import reading

#: Changes within this many seconds are reported together.
COALESCE_S = 1.0

#: Changes by people and programs on the page of a job.
DECISIONS_MAX = 20

#: Jobs or batches per page.
PAGE_SIZE = 50

Cursor = Annotated[str | None, Query(max_length=500)]

Choice = TypeVar("Choice", bound=StrEnum)

#: Fields of the list's URL, and of forms, that select jobs.
FILTERS = ("state", "batch", "code", "q")


class Views:
    """Renders the pages that only show."""

    def __init__(self, services: PageServices) -> None:
        self._queue = services.queue
        self._store = services.store
        self._renderer = services.renderer
        self._flower_url = services.flower_url

    def jobs(self, request: Request, fields: Mapping[str, str], order: str, cursor: str | None) -> Response:
        """Render a page of jobs, the newest first. A search for a job's id or a batch's name redirects there."""
        if fields["q"] and cursor is None and (path := self._exact_match(request, fields["q"])):
            return RedirectResponse(path, 303)
        filter_ = to_filter(fields)
        batch, error, page, rejected = None, "", None, None
        sort = _sort(order, Sort.of(filter_))
        try:
            page = reading(self._queue, request).search(filter_, limit=PAGE_SIZE, cursor=cursor, sort=sort)
            batch = reading(self._queue, request).batch(filter_.batch) if filter_.batch else None
            if fields["q"] and page.cursor is None and not page.items:
                rejected = self._rejected_message(request, fields["q"])
        except VoiceQueueError as raised:
            error = str(raised)
        filters = {name: value for name, value in fields.items() if value}
        context = {
            "jobs": page.items if page else (),
            "batch": batch,
            "fields": fields,
            "filters": filters,
            "codes": list(FailureCode),
            "error": error,
            "rejected": rejected,
            **_list_links(request, filters, sort, cursor, page),
        }
        return self._renderer.render(request, "jobs.html", context)

    def batch(self, request: Request, batch: str) -> Response:
        """Render the page of a batch. Raises BatchNotFoundError."""
        reading(self._queue, request).batch(batch)
        request.state.page_path = "/"  # the request may be a form that was refused
        return self.jobs(request, {**dict.fromkeys(FILTERS, ""), "batch": batch}, "", None)

    def _rejected_message(self, request: Request, message_id: str) -> RejectedMessage | None:
        """Return the latest rejected message with this id."""
        messages = reading(self._queue, request).rejected_messages(1, message_id=message_id.strip())
        return messages[0] if messages else None

    def _exact_match(self, request: Request, text: str) -> str | None:
        try:
            return path_in(request, f"/job/{reading(self._queue, request).get(text).id}")
        except VoiceQueueError:
            pass
        try:
            batch = reading(self._queue, request).batch(text)
            return path_in(request, "/", {"batch": batch_name(request, batch.namespace, batch.name)})
        except VoiceQueueError:
            return None

    def job(self, request: Request, job_id: str) -> Response:
        """Render one job: timeline, charges, voice, songs, callback. Raises JobNotFoundError."""
        queue = reading(self._queue, request)
        job, timeline = queue.get(job_id), queue.timeline(job_id)
        context = {
            "job": job,
            "timeline": timeline,
            "charges": charges(timeline),
            "prices": PRICES,
            "holds": queue.job_holds(job_id),
            "callback": queue.callback(job.callback_id) if job.callback_id else None,
            "is_cancellable": can_be_cancelled(job),
            "more_fields": more_fields,
            "decisions": self._decisions(request, job),
            "flower": self._flower_url and tasks_url(self._flower_url, request.headers.get("host", ""), job.id),
        }
        return self._renderer.render(request, "job.html", context, clips=job.clips)

    def _decisions(self, request: Request, job: Job) -> Page[AuditEntry] | None:
        """Return the latest changes of a job by people and programs; None for users who may not read the audit log."""
        if not request.state.user.has_scope(Scope.OPERATE):
            return None
        return reading(self._queue, request).audit_log(since=job.created_at, job_id=job.id, limit=DECISIONS_MAX)

    def batches(self, request: Request, order: str, cursor: str | None) -> Response:
        """Render a page of batches, the newest first. Raises InvalidCursorError."""
        sort = _sort(order, Sort.of_batches())
        page = reading(self._queue, request).list_batches(limit=PAGE_SIZE, cursor=cursor, sort=sort)
        links = _list_links(request, {}, sort, cursor, page)
        return self._renderer.render(request, "batches.html", {"batches": page.items, **links})

    def trends(self, request: Request, over: str) -> Response:
        """Render charts of finished jobs and of their durations."""
        span = PERIODS.get(over, PERIODS["hour"])
        chart = draw(reading(self._queue, request).throughput(span_s=span.seconds, buckets=span.buckets))
        context = {"chart": chart, "span": span, "spans": PERIODS, "sampled": self._samples(request, span)}
        return self._renderer.render(request, "trends.html", context)

    def _samples(self, request: Request, span: Period) -> SampleCharts | None:
        """Return the charts of the whole queue; None in one namespace, which shares slots and credits with others."""
        if request.state.namespace != ALL:
            return None
        resolution = next(it for it in RESOLUTIONS if it.name == span.name)
        with translated_errors():
            now = self._store.clock()
            return draw_samples(self._store.samples.read(resolution.name, now - span.seconds), resolution, now)


def _sort(order: str, orders: tuple[Sort, Sort]) -> Sort:
    """Return the order in the URL if the list has it, otherwise the newest first."""
    return next((sort for sort in orders if sort == order), orders[0])


def _list_links(
    request: Request, filters: Mapping[str, str], sort: Sort, cursor: str | None, page: Page[Any] | None
) -> dict[str, Any]:
    """Return the order of a list, and the links to the opposite order and to the next page."""
    reverse = Sort(sort.lstrip("-") if sort.is_descending else f"-{sort}")
    next_cursor = page.cursor if page else None
    return {
        "is_first_page": cursor is None,
        "sort": sort.value,
        "kept_sort": {} if sort.is_descending else {"sort": sort.value},
        "sort_path": path_in(request, "", {**filters, "sort": reverse.value}),
        "next_page": next_cursor and path_in(request, "", {**filters, "sort": sort.value, "cursor": next_cursor}),
    }


#: Fields of a song that the page of its job shows by themselves.
_SHOWN_CLIP_FIELDS = frozenset(
    ("title", "duration", "audio_url", "video_url", "tags", "mv", "created_at", "gpt_description_prompt", "lyrics")
)


def more_fields(clip: Clip) -> dict[str, str]:
    """Return all other fields of a song that have a value, by name, so that a page shows everything about it."""
    names = (field.name for field in fields_of(Clip) if field.name not in _SHOWN_CLIP_FIELDS)
    values = {name: value for name in names if (value := getattr(clip, name)) is not None}
    return {name: _file(value) if isinstance(value, ArchivedFile) else str(value) for name, value in values.items()}


def _file(file: ArchivedFile) -> str:
    return f"{file.url} ({file.size:,} bytes, SHA-256 {file.sha256})"


def to_filter(fields: Mapping[str, str]) -> Filter:
    """Return the filter of a URL or form: `q` is a search text, or NAME=VALUE of the metadata.

    Raises InvalidJobError for an unknown state or code: a filter must not become one of all jobs.
    """
    name, equals, value = fields.get("q", "").partition("=")
    return Filter(
        state=_member(State, "state", fields.get("state")),
        batch=fields.get("batch") or None,
        code=_member(FailureCode, "code", fields.get("code")),
        metadata={name.strip(): value.strip()} if equals else {},
        text=name.strip() if name.strip() and not equals else None,
    )


def _member(kind: type[Choice], field: str, text: str | None) -> Choice | None:
    """Return the member that a field names; None if it is empty. Raises InvalidJobError."""
    try:
        return kind(text) if text else None
    except ValueError:
        raise InvalidJobError([Problem(field, f"{text!r} is not one of {', '.join(kind)}")]) from None


async def _changes(broadcaster: EventBroadcaster, namespace: str) -> AsyncIterator[str]:
    """Yield an event for the changes of each second; the page then reloads its content."""
    yield ": connected\n\n"
    async with broadcaster.watch():
        changed = broadcaster.next_change(namespace)
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), HEARTBEAT_S)
            if not changed.is_set():
                yield ": nothing new\n\n"
                continue
            changed = broadcaster.next_change(namespace)
            yield "event: changed\ndata: {}\n\n"
            await asyncio.sleep(COALESCE_S)


def router(views: Views, renderer: PageRenderer, broadcaster: EventBroadcaster) -> APIRouter:
    """Return the routes that need the scope `read`."""
    routes = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @routes.get("/")
    async def jobs(
        request: Request,
        state: str = "",
        batch: str = "",
        code: str = "",
        q: str = "",
        sort: str = "",
        cursor: Cursor = None,
    ) -> Response:
        fields = {
            "state": state if state in set(State) else "",
            "batch": batch,
            "code": code if code in set(FailureCode) else "",
            "q": q.strip()[:500],
        }
        return await run_in_threadpool(views.jobs, request, fields, sort, cursor)

    @routes.get("/live", response_class=EventStream)
    async def live(request: Request) -> EventStream:
        return EventStream(_changes(broadcaster, request.state.namespace), broadcaster.streams)

    @routes.get("/job/{job_id}")
    def job(request: Request, job_id: str) -> Response:
        return views.job(request, job_id)

    @routes.get("/batches")
    def batches(request: Request, sort: str = "", cursor: Cursor = None) -> Response:
        return views.batches(request, sort, cursor)

    @routes.get("/trends")
    def trends(request: Request, over: str = "hour") -> Response:
        return views.trends(request, over)

    return routes
