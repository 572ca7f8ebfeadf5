"""The route with which an API key sets its own callback secret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.auth.callback_secrets import new_secret
from voicequeue.client.callback_secrets import shared_roots
from voicequeue.client.queue import in_namespace
from voicequeue.domain.callback_secrets import OVERLAP_DEFAULT_S, OVERLAP_MAX_S
from voicequeue.domain.namespaces import ALL
from workers.gateway.api import schemas
from workers.gateway.api.schemas import ChangeReason
from workers.gateway.openapi import problems, response_of
from workers.gateway.problems import ProblemError
from workers.gateway.security.access import AccessControl, acting


def router(queue: VoiceQueue, access: AccessControl, root_secrets: Sequence[str]) -> APIRouter:
    """Return the route of callback secrets. `root_secrets` are those of the process `callbacks`."""
    routes = APIRouter(tags=["Callbacks"])

    @routes.post(
        "/v1/callback-secret",
        status_code=201,
        dependencies=access.require(Scope.ENQUEUE),
        responses={
            201: response_of(schemas.CallbackSecret, "The new secret; it cannot be read again."),
            **problems(401, 403, 409, 422, 503),
        },
    )
    async def create_callback_secret(
        request: Request,
        overlap_s: Annotated[
            int, Query(ge=0, le=OVERLAP_MAX_S, description="Seconds for which the secret it replaces signs, too.")
        ] = OVERLAP_DEFAULT_S,
        reason: ChangeReason = "",
    ) -> JSONResponse:
        """Create the secret that signs the callbacks of the calling key, or replace it.

        It signs the callbacks of the key's jobs, and those of batches whose URL the key has set, at once. During the
        overlap they have a signature by each secret. At most five secrets are valid at once.
        """
        # Secrets belong to keys, not to namespaces; a caller sets that of its own key only.
        operator = in_namespace(acting(queue, request, reason), ALL)
        caller = request.state.caller
        key = await run_in_threadpool(access.find_by_name, caller)
        namespace = ALL if key is None else key.namespace
        if access.is_configured(caller):
            await run_in_threadpool(_require_no_other, operator, caller, namespace)
        secret = await run_in_threadpool(_set, operator, caller, root_secrets, overlap_s, namespace)
        document: schemas.CallbackSecret = {"name": caller, "secret": secret}
        return JSONResponse(document, status_code=201, headers={"Cache-Control": "no-store"})

    return routes


def _require_no_other(queue: VoiceQueue, key_name: str, namespace: str) -> None:
    """Refuse if a key in Redis has the name and another namespace: both would sign with one secret.

    Raises ProblemError.
    """
    if any(key.name == key_name and key.namespace != namespace for key in queue.api_keys()):
        raise ProblemError(
            409,
            f"A key in Redis has the name {key_name} too, and another namespace. Callback secrets belong to names: "
            "give one of the two keys another name.",
        )


def _set(queue: VoiceQueue, key_name: str, root_secrets: Sequence[str], overlap_s: int, namespace: str) -> str:
    """Store a new secret, and return it. Raises ProblemError."""
    try:
        secret, token = new_secret(shared_roots(queue, root_secrets), key_name)
        queue.set_callback_secret(key_name, token, overlap_s=overlap_s, namespace=namespace)
    except ValueError as error:
        raise ProblemError(409, str(error)) from None
    return secret
