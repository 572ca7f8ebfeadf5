"""Routes to list, get and configure batches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Batch, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.schemas import Batch as BatchSchema
from workers.gateway.api import schemas
from workers.gateway.api.jobs import Cursor, Limit
from workers.gateway.api.list_schemas import BatchList, page_end
from workers.gateway.api.schemas import ChangeReason
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading
from workers.gateway.server import bodies

_NAME = Path(description="Name of the batch.")


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the routes of batches."""
    routes = APIRouter(tags=["Batches"])

    @routes.get(
        "/v1/batches",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(BatchList, "A page of batches."), **problems(401, 403, 422, 503)},
    )
    async def list_batches(request: Request, limit: Limit = 100, cursor: Cursor = None) -> JSONResponse:
        """List batches, newest first."""
        page = await run_in_threadpool(reading(queue, request).list_batches, limit=limit, cursor=cursor)
        batches: BatchList = {"data": [_batch(batch) for batch in page.items], **page_end(page.cursor)}
        return JSONResponse(batches)

    @routes.get(
        "/v1/batches/{name}",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(BatchSchema, "The batch."), **problems(401, 403, 404, 422, 503)},
    )
    async def get_batch(request: Request, name: Annotated[str, _NAME]) -> JSONResponse:
        """Get a batch with its progress, credits and limits."""
        return JSONResponse(_batch(await run_in_threadpool(reading(queue, request).batch, name)))

    @routes.patch(
        "/v1/batches/{name}",
        dependencies=access.require(Scope.ENQUEUE),
        responses={
            200: response_of(BatchSchema, "The changed batch."),
            **problems(400, 401, 403, 408, 413, 415, 422, 503),
        },
        openapi_extra=json_body(
            "BatchUpdate",
            {
                "Callback and credit limit": {"callback_url": "https://shop.example/callbacks", "max_credits": 500},
                "Stop when 20 % fail": {"stop_after": 0.2, "stop_min": 50},
            },
        ),
    )
    async def update_batch(
        request: Request, name: Annotated[schemas.BatchName, _NAME], reason: ChangeReason = ""
    ) -> JSONResponse:
        """Set the callback URL and the limits of a batch.

        The batch need not have jobs yet. Omitted fields keep their value; null removes a setting.
        """
        settings = bodies.validate(schemas.BatchUpdate, await bodies.read_json(request))
        return JSONResponse(_batch(await run_in_threadpool(_update, acting(queue, request, reason), name, settings)))

    return routes


def _batch(batch: Batch) -> BatchSchema:
    return batch.full_dict()


def _update(queue: VoiceQueue, name: str, settings: schemas.BatchUpdate) -> Batch:
    queue.set_batch_limits(name, **settings.limits())
    if "callback_url" in settings.model_fields_set:
        queue.set_batch_callback(name, settings.callback_url)
    return queue.batch(name, or_empty=True)
