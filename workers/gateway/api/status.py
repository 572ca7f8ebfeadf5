"""Routes for the status of the queue and for rejected messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.schemas import Status
from voicequeue.storage.rejected_messages import KEPT
from workers.gateway.api import schemas
from workers.gateway.openapi import described, problems
from workers.gateway.security.access import Access
from workers.gateway.server.large_responses import Large


def router(queue: VoiceQueue, access: Access, large: Large) -> APIRouter:
    """Return the routes of the status and of rejected messages."""
    routes = APIRouter(tags=["Queue"], dependencies=access.needs(Scope.READ))

    @routes.get(
        "/v1/status",
        responses={200: described(Status, "The status."), **problems(401, 403, 404, 422, 503)},
    )
    async def get_status(
        batch: Annotated[schemas.BatchName | None, Query(description="Only this batch.")] = None,
    ) -> JSONResponse:
        """Get the status of the queue or of one batch."""
        return JSONResponse((await run_in_threadpool(queue.status, batch)).as_dict(batch))

    @routes.get(
        "/v1/rejects",
        responses={
            200: described(schemas.RejectedMessages, "The newest rejected messages."),
            **problems(401, 403, 422, 429, 503),
        },
    )
    async def list_rejects(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=KEPT, description="The most messages to return.")] = 100,
    ) -> Response:
        """List rejected messages, newest first.

        These are messages of Celery clients that could not be enqueued.
        """

        def read() -> schemas.RejectedMessages:
            return {"rejects": [message.as_dict() for message in queue.rejects(limit)]}

        return await large.answer(request, read)

    return routes
