"""The page of the audit log: who changed what, with filters and an export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import AuditEntry, InvalidJobError, Problem, VoiceQueue
from voicequeue.ingest.cells import csv_lines
from workers.gateway.page.base import HEADERS, PageRenderer
from workers.gateway.page.namespaces import path_in
from workers.gateway.security.access import reading

#: Entries per page, and per read of an export.
PAGE_SIZE = 50
EXPORT_CHUNK = 500

Text = Annotated[str, Query(max_length=200)]


def _fields(
    since: Text = "", actor: Text = "", action: Text = "", batch: Text = "", job_id: Text = ""
) -> dict[str, str]:
    values = {"since": since, "actor": actor, "action": action, "batch": batch, "job_id": job_id}
    return {name: value.strip() for name, value in values.items()}


Fields = Annotated[dict[str, str], Depends(_fields)]
Cursor = Annotated[str | None, Query(max_length=50)]


def _filters(fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the filters of `VoiceQueue.audit_log` for the fields of the form. Raises InvalidJobError."""
    filters: dict[str, Any] = {name: value for name, value in fields.items() if value}
    if "since" in filters:
        try:
            filters["since"] = datetime.fromisoformat(filters["since"]).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise InvalidJobError([Problem("since", "must be a date, for example 2026-03-01")]) from None
    return filters


def _exported(queue: VoiceQueue, filters: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    yield AuditEntry.COLUMNS
    cursor: str | None = None
    while True:
        page = queue.audit_log(**filters, limit=EXPORT_CHUNK, cursor=cursor)
        yield from (entry.cells() for entry in page.items)
        if (cursor := page.cursor) is None:
            return


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the routes, which need the scope `operate`."""
    routes = APIRouter(dependencies=[Depends(renderer.require_operate)], route_class=renderer.route_class())

    @routes.get("/audit-log")
    def audit_log(request: Request, form: Fields, cursor: Cursor = None) -> Response:
        try:
            page = reading(queue, request).audit_log(**_filters(form), limit=PAGE_SIZE, cursor=cursor)
        except InvalidJobError as error:
            show = partial(audit_log, form=dict.fromkeys(form, ""), cursor=None)
            return renderer.resend(request, form, error, show, name="filter", fields=form)
        query = {name: value for name, value in form.items() if value}
        next_page = page.cursor and path_in(request, "", {**query, "cursor": page.cursor})
        context = {"page": page, "fields": form, "query": query, "next_page": next_page}
        return renderer.render(request, "audit_log.html", context)

    @routes.get("/audit-log.csv")
    async def export(request: Request, form: Fields) -> Response:
        lines = csv_lines(_exported(reading(queue, request), _filters(form)))
        # Read before the response begins, so that an unreachable Redis is an error page.
        first = [await run_in_threadpool(partial(next, lines)), await run_in_threadpool(partial(next, lines, ""))]
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="audit-log.csv"'}
        return StreamingResponse(_joined(first, lines), media_type="text/csv; charset=utf-8", headers=headers)

    return routes


def _joined(first: list[str], rest: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from rest
