"""The route that erases a person: a dry run, then its token."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import InvalidJobError, Problem, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import operator_schemas
from workers.gateway.api import schemas
from workers.gateway.api.schemas import ChangeReason, EraseRequest
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting
from workers.gateway.server import bodies

_EXAMPLES = {
    "Plan": {"metadata": {"subject": "42"}},
    "Execute": {"token": "c2Vla3JpdC10b2tlbi0wMQ"},
}
_ERASE: dict[int | str, dict[str, Any]] = {
    200: response_of(
        operator_schemas.ErasurePlan | schemas.ErasureResult, "The plan for metadata, or the certificate for a token."
    ),
    **problems(400, 401, 403, 404, 408, 413, 415, 422, 503),
}


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["Jobs"], dependencies=access.require(Scope.ADMIN))

    @routes.post("/v1/erase", responses=_ERASE, openapi_extra=json_body("EraseRequest", _EXAMPLES))
    async def erase_person(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Plan and execute the erasure of a person.

        Metadata return a plan and change nothing. The plan's token then erases its jobs with all that names them, and
        returns a certificate. Jobs in flight are cancelled first; those that are `charging` or `unsure` are erased
        later. The same keys and recordings are not ordered again: enqueueing them responds 410.
        """
        body = bodies.validate(EraseRequest, await bodies.read_json(request))
        result = await run_in_threadpool(_plan_or_erase, acting(queue, request, reason), body)
        return JSONResponse(result, headers={"Cache-Control": "no-store"})

    return routes


def _plan_or_erase(queue: VoiceQueue, request: EraseRequest) -> operator_schemas.ErasurePlan | schemas.ErasureResult:
    if request.metadata is not None and request.token is None:
        return queue.plan_erasure(request.metadata).as_dict()
    if request.token is not None and request.metadata is None:
        erased = queue.erase(request.token)
        return {
            "certificate": erased.as_dict(),
            "text": erased.as_text(),
            "upstream_ids": list(erased.upstream_ids),
        }
    wrong = partial(Problem, message="send either metadata or the token of a plan")
    raise InvalidJobError([wrong("metadata"), wrong("token")])
