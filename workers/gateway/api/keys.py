"""The routes of API keys, for operators."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import NewApiKey, Problem, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import operator_schemas
from voicequeue.errors import InvalidJobError
from workers.gateway.api import key_schemas, list_schemas
from workers.gateway.api.schemas import ChangeReason
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading, require_operator
from workers.gateway.server import bodies

_Name = Annotated[str, Path(pattern=key_schemas.NAME, description="Name of the key.")]


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the routes of API keys."""
    routes = APIRouter(tags=["Keys"], dependencies=[*access.require(Scope.ADMIN), Depends(_check_operator)])

    @routes.get(
        "/v1/keys",
        responses={200: response_of(list_schemas.ApiKeyList, "The API keys."), **problems(401, 403, 422, 503)},
    )
    async def list_api_keys(request: Request) -> JSONResponse:
        """List the API keys in Redis, without secrets. Keys of the environment are not listed."""
        keys = await run_in_threadpool(reading(queue, request).api_keys)
        page: list_schemas.ApiKeyList = {"data": [key.as_dict() for key in keys], **list_schemas.page_end()}
        return JSONResponse(page)

    @routes.post(
        "/v1/keys",
        status_code=201,
        responses={
            201: response_of(key_schemas.ApiKeyWithSecret, "The key and its secret."),
            **problems(400, 401, 403, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body(
            "NewApiKey", {"An app": {"name": "shop", "scopes": ["enqueue", "read"], "namespace": "shop"}}
        ),
    )
    async def create_api_key(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Create an API key. Its secret is shown only now."""
        body = bodies.validate(key_schemas.NewApiKey, await bodies.read_json(request))
        if access.is_configured(body.name):
            problem = Problem("name", f"{body.name!r} is a key of the gateway's environment (VOICEQUEUE_API_KEYS)")
            raise InvalidJobError([problem])
        created = await run_in_threadpool(
            acting(queue, request, reason).create_api_key,
            body.name,
            body.scopes,
            namespace=body.namespace,
            limits=body.limits(),
        )
        return _shown(created, 201)

    @routes.patch(
        "/v1/keys/{name}",
        responses={
            200: response_of(operator_schemas.ApiKey, "The changed key."),
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body("ApiKeyUpdate", {"Slower": {"requests_per_s": 5}}),
    )
    async def update_api_key(request: Request, name: _Name, reason: ChangeReason = "") -> JSONResponse:
        """Change the scopes and limits of an API key, and end its logins."""
        body = bodies.validate(key_schemas.ApiKeyUpdate, await bodies.read_json(request))
        change = partial(acting(queue, request, reason).edit_api_key, scopes=body.scopes, limits=body.limit_changes())
        return JSONResponse((await run_in_threadpool(change, name)).as_dict())

    @routes.post(
        "/v1/keys/{name}/rotate",
        responses={
            200: response_of(key_schemas.ApiKeyWithSecret, "The key and its new secret."),
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body("ApiKeyRotation", {"An hour": {"overlap_s": 3600}}),
    )
    async def rotate_api_key(request: Request, name: _Name, reason: ChangeReason = "") -> JSONResponse:
        """Give an API key another secret, which is shown only now, and end its logins."""
        body = bodies.validate(key_schemas.ApiKeyRotation, await bodies.read_json(request))
        change = acting(queue, request, reason).rotate_api_key
        return _shown(await run_in_threadpool(change, name, overlap=body.overlap_s), 200)

    @routes.post(
        "/v1/keys/{name}/revoke",
        responses={200: response_of(operator_schemas.ApiKey, "The key."), **problems(401, 403, 404, 422, 503)},
    )
    async def revoke_api_key(request: Request, name: _Name, reason: ChangeReason = "") -> JSONResponse:
        """Revoke an API key permanently, and end its logins."""
        return JSONResponse((await run_in_threadpool(acting(queue, request, reason).revoke_api_key, name)).as_dict())

    return routes


async def _check_operator(request: Request) -> None:
    """Refuse a key of one namespace, before its body is read. Raises NotOperatorError."""
    require_operator(request, "managing API keys")


def _shown(created: NewApiKey, status: int) -> JSONResponse:
    return JSONResponse({"key": created.key.as_dict(), "secret": created.secret}, status, {"Cache-Control": "no-store"})
