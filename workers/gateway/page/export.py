"""Downloads of the jobs that a filter shows: the same columns as `voicequeue export`, read while they are sent."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from io import StringIO
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Job, VoiceQueue
from voicequeue.ingest.export_columns import CSV_COLUMNS, csv_cells, json_record
from voicequeue.texts import terminal_safe_json
from workers.gateway.page.base import HEADERS, PageRenderer
from workers.gateway.page.views import to_filter
from workers.gateway.security.access import reading
from workers.gateway.security.admission import Admission

#: Jobs per read and per piece of a download.
CHUNK = 500

Text = Annotated[str, Query(max_length=500)]


class DownloadFormat(StrEnum):
    """The format of a download."""

    CSV = "csv"
    JSONL = "jsonl"


_MEDIA_TYPES = {DownloadFormat.CSV: "text/csv", DownloadFormat.JSONL: "application/x-ndjson"}


def chunks_of(queue: VoiceQueue, fields: dict[str, str], admission: Admission) -> Iterator[list[Job]]:
    """Yield the jobs that a filter shows, each once even if it changes meanwhile; while the key of the user is valid.

    Raises ProblemError, BatchNotFoundError, StoreUnavailableError.
    """
    yielded_ids: set[str] = set()
    cursor: str | None = None
    while True:
        page = queue.search(to_filter(fields), limit=CHUNK, cursor=cursor)
        yield [job for job in page.items if job.id not in yielded_ids]
        yielded_ids.update(job.id for job in page.items)
        if (cursor := page.cursor) is None:
            return
        admission.check()


def _csv_text(rows: Iterable[Iterable[Any]]) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _csv(jobs: list[Job]) -> str:
    return _csv_text(map(csv_cells, jobs))


def _json_lines(jobs: list[Job]) -> str:
    return "".join(f"{terminal_safe_json(json_record(job))}\n" for job in jobs)


_WRITERS: dict[DownloadFormat, tuple[Callable[[], str], Callable[[list[Job]], str]]] = {
    DownloadFormat.CSV: (partial(_csv_text, [CSV_COLUMNS]), _csv),
    DownloadFormat.JSONL: (str, _json_lines),
}


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the route, which needs the scope `read`."""
    routes = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @routes.get("/jobs.{kind}")
    async def download(
        request: Request, kind: DownloadFormat, state: str = "", batch: Text = "", code: str = "", q: Text = ""
    ) -> Response:
        fields = {"state": state, "batch": batch, "code": code, "q": q.strip()}
        chunks = chunks_of(reading(queue, request), fields, request.state.admission)
        # Read before the response begins, so that an unreachable Redis is an error page.
        first: list[Job] = await run_in_threadpool(next, chunks)
        header, write = _WRITERS[kind]
        pieces = chain([header()], map(write, chain([first], chunks)))
        name = f"{batch.rpartition('/')[2] or 'jobs'}.{kind}"
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(pieces, media_type=f"{_MEDIA_TYPES[kind]}; charset=utf-8", headers=headers)

    return routes
