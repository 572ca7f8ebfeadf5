"""Routes of the limits of the whole queue."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import operator_schemas
from workers.gateway.api.checked import checked
from workers.gateway.api.schemas import ChangeReason, LimitsUpdate
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading, require_operator
from workers.gateway.server import bodies

_LIMITS: dict[int | str, dict[str, Any]] = {
    200: response_of(operator_schemas.Limits, "The limits that apply now."),
    **problems(401, 403, 422, 503),
}


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the routes of limits."""
    routes = APIRouter(tags=["Queue"])

    @routes.get("/v1/limits", dependencies=access.require(Scope.READ), responses=_LIMITS)
    async def get_limits(request: Request) -> JSONResponse:
        """Get the limits of the whole queue, for keys of namespace `*`.

        Those that were not set are the settings of the workers. A batch has limits of its own, an API key, too.
        """
        require_operator(request, "limits")
        return JSONResponse((await run_in_threadpool(reading(queue, request).limits)).as_dict())

    @routes.patch(
        "/v1/limits",
        dependencies=access.require(Scope.OPERATE),
        responses=_LIMITS | problems(400, 408, 413, 415),
        openapi_extra=json_body("LimitsUpdate", {"Slower": {"in_flight": 20, "submit_rate": 30}}),
    )
    async def update_limits(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Set limits of the whole queue, for keys of namespace `*`. They are in force at once, for all workers."""
        require_operator(request, "set_limits")
        update = bodies.validate(LimitsUpdate, await bodies.read_json(request))
        changes = update.model_dump(exclude_unset=True)
        caller = acting(queue, request, reason)
        limits = await run_in_threadpool(checked, lambda: caller.set_limits(**changes) if changes else caller.limits())
        return JSONResponse(limits.as_dict())

    return routes
