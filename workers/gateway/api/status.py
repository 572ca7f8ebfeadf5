"""Routes for the status of the queue and for rejected messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.schemas import Status
from workers.gateway.api import schemas
from workers.gateway.api.jobs import Cursor, Limit
from workers.gateway.api.list_schemas import RejectedMessageList, page_end
from workers.gateway.openapi import problems, response_of
from workers.gateway.security.access import AccessControl, reading
from workers.gateway.server.large_responses import LargeResponses


def router(queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> APIRouter:
    """Return the routes of the status and of rejected messages."""
    routes = APIRouter(tags=["Queue"], dependencies=access.require(Scope.READ))

    @routes.get(
        "/v1/status",
        responses={200: response_of(Status, "The status."), **problems(401, 403, 404, 422, 503)},
    )
    async def get_status(
        request: Request,
        batch: Annotated[schemas.BatchName | None, Query(description="Only this batch.")] = None,
    ) -> JSONResponse:
        """Get the status of the queue or of one batch."""
        return JSONResponse((await run_in_threadpool(reading(queue, request).status, batch)).as_dict(batch))

    @routes.get(
        "/v1/rejected-messages",
        responses={
            200: response_of(RejectedMessageList, "A page of rejected messages."),
            **problems(401, 403, 422, 429, 503),
        },
    )
    async def list_rejected_messages(
        request: Request,
        message_id: Annotated[
            str | None, Query(max_length=1_000, description="Only the message with this Celery id.")
        ] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """List rejected messages, newest first.

        These are messages of Celery clients that could not be enqueued.
        """

        def read() -> RejectedMessageList:
            reader = reading(queue, request)
            page = reader.list_rejected_messages(message_id=message_id, limit=limit, cursor=cursor)
            return {"data": [message.as_dict() for message in page.items], **page_end(page.cursor)}

        return await large.respond(request, read)

    return routes
