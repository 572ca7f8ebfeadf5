"""The route that enqueues many jobs in one request: rows stream in, their results stream out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from voicequeue import VoiceQueue, VoiceQueueError
from voicequeue.auth import api_keys
from workers.gateway import problems
from workers.gateway.api import schemas
from workers.gateway.api.row_intake import ClientDisconnectedError, RowIntake
from workers.gateway.api.upload_budget import UPLOAD_TIMEOUT_S, WINDOW_S
from workers.gateway.openapi import problems as described_problems
from workers.gateway.response_spool import ResponseSpool
from workers.gateway.security.access import AccessControl, acting
from workers.gateway.server import bodies
from workers.gateway.server.concurrency import ConcurrencyLimit
from workers.gateway.server.connections import ServerLimits
from workers.gateway.server.limit_log import log

#: Concurrent uploads per process, each with its own thread; never more than a quarter of all concurrent requests.
MAX_UPLOADS = 8

#: A key may start another upload while it has fewer than this share of the free slots: alone it gets half of all.
UPLOAD_SHARE = 1.0

MEDIA_TYPE = "application/x-ndjson"
ROW_TYPES = (MEDIA_TYPE, "application/ndjson", "application/jsonl", "text/csv")

_ROWS = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": '{"audio_url": "https://example.com/ana.wav", "name": "Ana"}\n'
                '{"audio_url": "https://example.com/bo.wav", "name": "Bo"}\n',
            },
            "text/csv": {
                "schema": {"type": "string"},
                "example": "audio_url,name\nhttps://example.com/ana.wav,Ana\nhttps://example.com/bo.wav,Bo\n",
            },
        },
    }
}
_OUTCOMES = (
    '{"line": 1, "outcome": "new", "id": "k5v2yj3q7m6xw4ra"}\n'
    '{"line": 2, "outcome": "rejected", "code": "invalid", "errors": [{"field": "audio_url", '
    '"message": "must be an http:// or https:// URL"}]}\n'
    '{"summary": {"complete": true, "new": 1, "existing": 0, "rejected": 1, "credits": 4}}\n'
)


class OutcomeFilter(StrEnum):
    """The rows to report."""

    ALL = "all"
    REJECTED = "rejected"


def router(queue: VoiceQueue, access: AccessControl, bounds: ServerLimits) -> APIRouter:
    """Return the route of row uploads."""
    routes = APIRouter(tags=["Batches"], dependencies=access.require(api_keys.Scope.ENQUEUE))
    at_once = bounds.share_of(MAX_UPLOADS)
    threads = ThreadPoolExecutor(at_once, thread_name_prefix="rows")
    places = ConcurrencyLimit(at_once, share=UPLOAD_SHARE, what="uploads")

    @routes.post(
        "/v1/batches/{name}/jobs",
        status_code=200,
        response_class=RowUpload,
        responses={
            200: {
                "description": "One line of JSON per row, as rows are enqueued, and a summary at the end.",
                "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _OUTCOMES}},
            },
            **described_problems(401, 403, 408, 415, 422, 429, 503),
        },
        openapi_extra=_ROWS,
    )
    async def create_jobs(
        request: Request,
        name: Annotated[schemas.BatchName, Path(description="Name of the batch that the rows belong to.")],
        outcomes: Annotated[OutcomeFilter, Query(description="The rows to report.")] = OutcomeFilter.ALL,
    ) -> Response:
        """Create many jobs.

        The body is JSON Lines, or CSV with a header. Sending rows again adds nothing: a row without a key gets one made
        from its batch and content. The response starts while rows are still received. If it ends without a summary, or
        the summary is not complete, some rows were not enqueued: send all of them again.
        """
        bodies.require_content_type(request, *ROW_TYPES)
        all_told = outcomes is OutcomeFilter.ALL
        return RowUpload(acting(queue, request), name, threads, places, report_all=all_told)

    return routes


class RowUpload(Response):
    """A response that enqueues the rows of its request while it is sent."""

    media_type = MEDIA_TYPE

    def __init__(
        self, queue: VoiceQueue, batch: str, threads: ThreadPoolExecutor, limit: ConcurrencyLimit, *, report_all: bool
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._queue, self._batch, self._reports_all = queue, batch, report_all
        self._threads, self._places = threads, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read rows and send their results, both at once. Raises ProblemError."""
        caller, admission = scope["state"]["caller"], scope["state"]["admission"]
        self._places.acquire(caller)
        outbox = ResponseSpool()
        queue, batch = self._queue, self._batch
        intake = RowIntake(queue, batch, receive, outbox, admission=admission, report_all=self._reports_all)
        running = asyncio.get_running_loop().run_in_executor(self._threads, intake.run)
        try:
            async with asyncio.timeout(UPLOAD_TIMEOUT_S + WINDOW_S):
                await self._send_results(outbox, running, scope, receive, send)
        except TimeoutError:
            log.warning("results of an upload were not read within %g s: connection closed", UPLOAD_TIMEOUT_S)
        except ClientDisconnectedError:
            pass  # the client has disconnected
        finally:
            intake.stop()
            running.add_done_callback(partial(self._release, outbox, caller))

    async def _send_results(
        self, outbox: ResponseSpool, running: asyncio.Future[None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        pieces = outbox.chunks()
        first = await anext(pieces, None)
        if first is None:
            try:
                await running
            except (VoiceQueueError, problems.ProblemError) as error:
                await problems.response(problems.from_exception(error))(scope, receive, send)
                return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in _chain(first, pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await running
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _release(self, outbox: ResponseSpool, caller: str, running: asyncio.Future[None]) -> None:
        self._places.release(caller)
        outbox.close()
        if not running.cancelled():
            running.exception()  # reported already, or the client has disconnected


async def _chain(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for piece in rest:
        yield piece
