"""Batches, and the queue at a glance."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Batch, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.rejected_messages import KEPT
from workers.gateway import schemas
from workers.gateway.auth import Access
from workers.gateway.jobs import Cursor, Limit
from workers.gateway.large import Large
from workers.gateway.openapi import described, problems


def router(queue: VoiceQueue, access: Access, large: Large) -> APIRouter:
    """The routes that count."""
    routes = APIRouter(tags=["batches and status"], dependencies=access.needs(Scope.READ))

    @routes.get(
        "/v1/batches",
        responses={200: described(schemas.Batches, "A page."), **problems(401, 403, 422, 503)},
    )
    async def batches(limit: Limit = 100, cursor: Cursor = None) -> JSONResponse:
        """Batches, the newest first, a page at a time."""
        page = await run_in_threadpool(queue.find_batches, limit=limit, cursor=cursor)
        return JSONResponse({"batches": [_told(batch) for batch in page.items], "next": page.cursor})

    @routes.get(
        "/v1/batches/{name}",
        responses={200: described(schemas.Batch, "The batch."), **problems(401, 403, 404, 422, 503)},
    )
    async def batch(name: str) -> JSONResponse:
        """A batch: how many of its jobs stand where, and what they spent."""
        return JSONResponse(_told(await run_in_threadpool(queue.batch, name)))

    @routes.get(
        "/v1/status",
        responses={200: described(schemas.Status, "The queue."), **problems(401, 403, 404, 422, 503)},
    )
    async def status(
        batch: Annotated[schemas.BatchName | None, Query(description="one batch of it")] = None,
    ) -> JSONResponse:
        """The whole queue at a glance, or one batch of it: states, gate, slots, backlog, credits, workers."""
        return JSONResponse((await run_in_threadpool(queue.status, batch)).as_dict(batch))

    @routes.get(
        "/v1/rejects", responses={200: described(schemas.Rejects, "The newest."), **problems(401, 403, 422, 429, 503)}
    )
    async def rejects(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=KEPT, description="how many at most")] = 100,
    ) -> Response:
        """Messages of Celery clients that became no job, each with the reason."""
        return await large.answer(request, lambda: {"rejects": [each.as_dict() for each in queue.rejects(limit)]})

    return routes


def _told(batch: Batch) -> dict[str, Any]:
    return {**batch.as_dict(), **batch.limits()}
