"""The route that receives MusicAPI's webhooks.

Cheap checks come first: a forged token is rejected before the body is read, a forged signature before Redis is queried.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from tasks import webhooks
from tasks.musicapi import responses
from tasks.webhooks import WebhookEffect
from voicequeue import StoreUnavailableError
from voicequeue.auth import signatures
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.job_store import JobStore
from workers.gateway.problems import ProblemError
from workers.gateway.server import bodies

log = logging.getLogger("voicequeue.gateway")

#: The largest body (bytes); more than any webhook has.
MAX_BODY_BYTES = 256 * 1024

#: Sends the message for an immediate poll.
PollNow = Callable[[Stage, str], None]


def router(store: JobStore, secrets: Sequence[str], poll_now: PollNow) -> APIRouter:
    """Return the route of webhooks; `secrets` are those that their URLs may have been signed with."""
    routes = APIRouter()

    @routes.post("/hooks/musicapi/{job_id}/{stage}")
    async def musicapi(
        request: Request,
        job_id: str,
        stage: Stage,
        attempt: int = 0,
        token: str = "",
        x_webhook_timestamp: Annotated[str, Header()] = "",
        x_webhook_signature: Annotated[str, Header()] = "",
    ) -> dict[str, str]:
        """Poll the job of this order at once: MusicAPI reports that it has finished."""
        secret = signatures.find_webhook_secret(secrets, token, job_id=job_id, stage=stage, attempt=attempt)
        if secret is None:
            raise HTTPException(401, "The token does not belong to this order.")
        body = await bodies.read(request, MAX_BODY_BYTES)
        if not signatures.verify_upstream_signature(
            signatures.webhook_secret(secret, job_id),
            timestamp=x_webhook_timestamp,
            signature=x_webhook_signature,
            body=body,
            now=time.time(),
        ):
            raise HTTPException(401, "The signature is invalid.")
        try:
            hint = await run_in_threadpool(_accept, store, poll_now, job_id, stage, attempt, _task_id(body))
        except StoreUnavailableError as error:
            raise HTTPException(503, str(error), {"Retry-After": "60"}) from None
        fields = {"job": job_id, "stage": str(stage), "attempt": attempt, "action": hint.value}
        log.info("webhook", extra=fields)
        if hint is WebhookEffect.UNKNOWN:
            raise ProblemError(404, "No such job.", code="job_not_found")
        return {"hint": hint.value}

    return routes


def _accept(
    store: JobStore, poll_now: PollNow, job_id: str, stage: Stage, attempt: int, task_id: str | None
) -> WebhookEffect:
    with translated_errors():
        hint = webhooks.process_webhook(store, job_id, stage, attempt, task_id)
    if hint is WebhookEffect.POLL:
        poll_now(stage, job_id)
    return hint


def _task_id(body: bytes) -> str | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return responses.find_task_id(document)
