"""Many jobs in one request: rows stream in, what became of each streams out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from voicequeue import VoiceQueue, VoiceQueueError
from voicequeue.auth import api_keys
from voicequeue.client.queue import entered_by
from workers.gateway import bodies, problems, schemas
from workers.gateway.auth import Access
from workers.gateway.connections import Bounds
from workers.gateway.intake import Gone, Intake
from workers.gateway.notices import log
from workers.gateway.openapi import json_body
from workers.gateway.openapi import problems as described_problems
from workers.gateway.origin import origin
from workers.gateway.pace import UPLOAD_S, WINDOW_S
from workers.gateway.places import Places
from workers.gateway.response_spool import Outbox

#: Requests of one process that bring rows at once, each with a thread of its own; at most a quarter of all places.
AT_ONCE = 8

#: A key that holds fewer than this share of the free ones gets another: alone it gets half of all.
SHARE = 1.0

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
    '{"line": 2, "outcome": "rejected", "errors": [{"field": "audio_url", "message": "must be an http:// or '
    'https:// URL"}]}\n'
    '{"summary": {"complete": true, "new": 1, "known": 0, "rejected": 1, "credits": 4}}\n'
)


class Outcomes(StrEnum):
    """Which rows are told of."""

    ALL = "all"
    REJECTED = "rejected"


def router(queue: VoiceQueue, access: Access, bounds: Bounds) -> APIRouter:
    """The route that takes rows."""
    routes = APIRouter(tags=["batches and status"], dependencies=access.needs(api_keys.Scope.ENQUEUE))
    at_once = bounds.part(AT_ONCE)
    threads = ThreadPoolExecutor(at_once, thread_name_prefix="rows")
    places = Places(at_once, share=SHARE, what="uploads of rows")

    @routes.post(
        "/v1/batches/{name}/jobs",
        status_code=200,
        response_class=Rows,
        responses={
            200: {
                "description": "A line of JSON for each row, as it is taken, and a summary at the end.",
                "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _OUTCOMES}},
            },
            **described_problems(401, 403, 408, 415, 422, 429, 503),
        },
        openapi_extra=_ROWS,
    )
    async def rows(
        request: Request,
        name: Annotated[schemas.BatchName, Path(description="the batch that the rows belong to")],
        outcomes: Annotated[Outcomes, Query(description="of which rows to tell")] = Outcomes.ALL,
    ) -> Response:
        """Put every row into the queue: JSON Lines, or CSV whose first line names the columns.

        Sending rows again adds nothing: a row without a key gets one of its batch and content. The answer
        begins while rows still come in; one without a summary, or whose summary is not complete, did not
        take all: send the rows again.
        """
        bodies.must_be(request, *ROW_TYPES)
        all_told = outcomes is Outcomes.ALL
        return Rows(entered_by(queue, origin(request)), name, threads, places, all_told=all_told)

    @routes.patch(
        "/v1/batches/{name}",
        status_code=204,
        response_class=Response,
        responses={204: {"description": "So it is now."}, **described_problems(400, 401, 403, 408, 413, 415, 422, 503)},
        openapi_extra=json_body(
            "BatchSettings",
            {"be told, and spend no more than that": {"callback_url": "https://shop.example/told", "max_credits": 500}},
        ),
    )
    async def settings(request: Request, name: Annotated[schemas.BatchName, Path(description="the batch")]) -> Response:
        """Set what holds for a batch, also before it has jobs: who is told when it has settled, and its limits."""
        wanted = bodies.checked(schemas.BatchSettings, await bodies.read_json(request))
        await run_in_threadpool(_set, entered_by(queue, origin(request)), name, wanted)
        return Response(status_code=204)

    return routes


def _set(queue: VoiceQueue, name: str, wanted: schemas.BatchSettings) -> None:
    credits, in_flight = wanted.limit("max_credits"), wanted.limit("max_in_flight")
    queue.limit_batch(name, max_credits=credits, max_in_flight=in_flight)
    if "callback_url" in wanted.model_fields_set:
        queue.call_back_batch(name, wanted.callback_url)


class Rows(Response):
    """Takes the rows of the request that it answers."""

    media_type = MEDIA_TYPE

    def __init__(
        self, queue: VoiceQueue, batch: str, threads: ThreadPoolExecutor, places: Places, *, all_told: bool
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._queue, self._batch, self._all_told = queue, batch, all_told
        self._threads, self._places = threads, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the rows and tell what became of them, both at once. Raises Refusal."""
        caller = scope.get("state", {}).get("who", "")
        self._places.take(caller)
        outbox = Outbox()
        intake = Intake(self._queue, self._batch, receive, outbox, all_told=self._all_told)
        working = asyncio.get_running_loop().run_in_executor(self._threads, intake.run)
        try:
            async with asyncio.timeout(UPLOAD_S + WINDOW_S):
                await self._tell(outbox, working, scope, receive, send)
        except TimeoutError:
            log.warning("outcomes of rows were not read within %g s: cut off", UPLOAD_S)
        except Gone:
            pass  # there is nobody to tell
        finally:
            intake.stop()
            working.add_done_callback(partial(self._free, outbox, caller))

    async def _tell(
        self, outbox: Outbox, working: asyncio.Future[None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        pieces = outbox.pieces()
        first = await anext(pieces, None)
        if first is None:
            try:
                await working
            except VoiceQueueError as error:
                await problems.answer(problems.told(error))(scope, receive, send)
                return
            except problems.Refusal as error:
                await problems.answer(problems.refused(error))(scope, receive, send)
                return
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in _from(first, pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await working
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _free(self, outbox: Outbox, caller: str, working: asyncio.Future[None]) -> None:
        self._places.free(caller)
        outbox.close()
        if not working.cancelled():
            working.exception()  # told already, or there is nobody to tell


async def _from(first: bytes | None, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first is not None:
        yield first
    async for piece in rest:
        yield piece
