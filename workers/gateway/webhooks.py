"""Webhooks of upstream, checked before anything is believed.

What costs nothing is checked first: a forged token is refused before the body is read, a forged
signature before Redis is asked.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from tasks import webhooks
from tasks.musicapi import responses
from tasks.webhooks import Hint
from voicequeue import StoreUnreachable
from voicequeue.auth import signatures
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from workers.gateway import bodies

log = logging.getLogger("voicequeue.gateway")

#: Larger than anything that the contract knows (bytes).
BODY_MAX = 256 * 1024

#: Publishes one immediate poll.
PollNow = Callable[[Stage, str], None]


def router(store: Store, secret: str, poll_now: PollNow) -> APIRouter:
    """The routes that upstream calls; `secret` is the one that the URLs were made with."""
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
        """A hint that an order has settled: its job is asked about at once."""
        if not (secret and signatures.holds(signatures.webhook_token(secret, job_id, stage, attempt), token)):
            raise HTTPException(401, "the token is not of this order")
        body = await bodies.read(request, BODY_MAX)
        if not signatures.upstream_signed(
            signatures.webhook_secret(secret, job_id),
            timestamp=x_webhook_timestamp,
            signature=x_webhook_signature,
            body=body,
            now=time.time(),
        ):
            raise HTTPException(401, "the signature does not hold")
        try:
            hint = await run_in_threadpool(_take, store, poll_now, job_id, stage, attempt, _task_id(body))
        except StoreUnreachable as error:
            raise HTTPException(503, str(error), {"Retry-After": "60"}) from None
        about = {"job": job_id, "stage": str(stage), "attempt": attempt, "hint": hint.value}
        log.info("webhook", extra=about)
        if hint is Hint.UNKNOWN:
            raise HTTPException(404, "no such job")
        return {"hint": hint.value}

    return routes


def _take(store: Store, poll_now: PollNow, job_id: str, stage: Stage, attempt: int, task_id: str | None) -> Hint:
    with reachable():
        hint = webhooks.take(store, job_id, stage, attempt, task_id)
    if hint is Hint.POLL:
        poll_now(stage, job_id)
    return hint


def _task_id(body: bytes) -> str | None:
    try:
        told: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return responses.task_id(told)
