"""Routes of callbacks that were not delivered yet, or were given up."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Callback, InvalidJobError, Problem, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import operator_schemas
from voicequeue.domain.namespaces import Scope as Namespaces
from workers.gateway.api import schemas
from workers.gateway.api.jobs import Cursor, Limit
from workers.gateway.api.list_schemas import CallbackList, page_end
from workers.gateway.api.schemas import BatchName, ChangeReason, RedeliveryRequest
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.problems import ProblemError
from workers.gateway.security.access import AccessControl, acting, reading
from workers.gateway.server import bodies
from workers.gateway.server.large_responses import LargeResponses

_Id = Annotated[str, Path(max_length=100, description="Id of the callback.")]
_EXAMPLES = {"One batch": {"batch": "spring"}, "All": {}}


class CallbackState(StrEnum):
    """State of a callback that was not delivered."""

    PENDING = "pending"
    UNDELIVERED = "undelivered"


def router(queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> APIRouter:
    """Return the routes of callbacks."""
    routes = APIRouter(tags=["Callbacks"])
    _add_reading_routes(routes, queue, access, large)

    @routes.post(
        "/v1/redeliver",
        dependencies=access.require(Scope.OPERATE),
        responses={
            200: response_of(schemas.RedeliveryResult, "The number of callbacks."),
            **problems(400, 401, 403, 408, 413, 415, 422, 503),
        },
        openapi_extra=json_body("RedeliveryRequest", _EXAMPLES),
    )
    async def redeliver_callbacks(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Deliver callbacks now: those with these ids, or all undelivered ones, perhaps of one batch."""
        body = bodies.validate(RedeliveryRequest, await bodies.read_json(request))
        if body.callback_ids is not None and body.batch is not None:
            wrong = partial(Problem, message="send either callback_ids or a batch")
            raise InvalidJobError([wrong("callback_ids"), wrong("batch")])
        return JSONResponse(await run_in_threadpool(_redeliver, acting(queue, request, reason), body))

    @routes.post(
        "/v1/callbacks/{callback_id}/redeliver",
        dependencies=access.require(Scope.OPERATE),
        responses={
            200: response_of(operator_schemas.Callback, "The callback, which is due now."),
            **problems(401, 403, 404, 422, 503),
        },
    )
    async def redeliver_callback(request: Request, callback_id: _Id, reason: ChangeReason = "") -> JSONResponse:
        """Deliver a callback now, pending or undelivered."""
        caller = acting(queue, request, reason)
        callback = await run_in_threadpool(_existing, caller, callback_id)
        await run_in_threadpool(caller.redeliver_callbacks, [callback_id])
        return JSONResponse(((await run_in_threadpool(caller.callback, callback_id)) or callback).as_dict())

    return routes


def _add_reading_routes(routes: APIRouter, queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> None:
    @routes.get(
        "/v1/callbacks",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(CallbackList, "A page of callbacks."), **problems(401, 403, 422, 429, 503)},
    )
    async def list_callbacks(
        request: Request,
        state: Annotated[
            CallbackState, Query(description="Those that were given up, or those that are still attempted.")
        ] = CallbackState.UNDELIVERED,
        batch: Annotated[BatchName | None, Query(description="Only callbacks of this batch, and of its jobs.")] = None,
        search: Annotated[
            str | None,
            Query(max_length=500, description="Only callbacks with this text in their id, type, job id or last error."),
        ] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """List the callbacks that were not delivered.

        Undelivered ones are listed the oldest failure first, pending ones by the time they are due. A page may have
        fewer than `limit` callbacks, even none, while `has_more` is true.
        """

        def read() -> CallbackList:
            page = reading(queue, request).list_callbacks(
                undelivered=state is CallbackState.UNDELIVERED, batch=batch, search=search, limit=limit, cursor=cursor
            )
            return {"data": [callback.as_dict() for callback in page.items], **page_end(page.cursor)}

        return await large.respond(request, read)

    @routes.get(
        "/v1/callbacks/{callback_id}",
        dependencies=access.require(Scope.READ),
        responses={
            200: response_of(operator_schemas.Callback, "The callback."),
            **problems(401, 403, 404, 422, 503),
        },
    )
    async def get_callback(request: Request, callback_id: _Id) -> JSONResponse:
        """Get a callback that was not delivered."""
        callback = await run_in_threadpool(_existing, reading(queue, request), callback_id)
        return JSONResponse(callback.as_dict())


def _existing(queue: VoiceQueue, callback_id: str) -> Callback:
    """Return a callback. Raises ProblemError if it was delivered, or never existed."""
    if (callback := queue.callback(callback_id)) is None:
        raise ProblemError(404, "No callback that was not delivered has this id.", code="callback_not_found")
    return callback


def _redeliver(queue: VoiceQueue, request: RedeliveryRequest) -> schemas.RedeliveryResult:
    if request.callback_ids is not None:
        count = queue.redeliver_callbacks(request.callback_ids)
        return {"redelivered": count, "missing": len(request.callback_ids) - count}
    batch = None if request.batch is None else Namespaces(queue.namespace).qualify(request.batch)
    # The list is read first: a callback that fails again meanwhile is not redelivered twice.
    ids = [it.id for it in queue.callbacks(undelivered=True) if batch in (None, it.qualified_batch)]
    return {"redelivered": queue.redeliver_callbacks(ids), "missing": 0}
