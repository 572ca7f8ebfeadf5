"""The gateway's ASGI app, built from the settings; `workers/gateway/__main__.py` serves it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from config.settings import BadSettings, Settings
from tasks.celery_tasks import poll_name
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import ApiKey
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store
from workers import local_token
from workers.app import app as celery
from workers.dependencies import limits
from workers.gateway import openapi, problems
from workers.gateway.api import (
    batches,
    docs,
    events,
    health,
    jobs,
    metrics,
    operations,
    row_uploads,
    status,
    webhooks,
)
from workers.gateway.heartbeat import heartbeats
from workers.gateway.page import base
from workers.gateway.page import routes as pages
from workers.gateway.security.access import Access
from workers.gateway.security.browser_policy import Guarded, OwnPagesOnly
from workers.gateway.security.local_access import LocalOnly
from workers.gateway.security.logins import Logins
from workers.gateway.server.connections import Bounds
from workers.gateway.server.large_responses import Large
from workers.gateway.server.request_log import RequestLog
from workers.private_files import UnsafeFileError
from workers.process_info import facts

log = logging.getLogger("voicequeue.gateway")

#: Seconds that a webhook waits for Redis: MusicAPI does not promise to send it again.
HOOK_WAIT_S = 5.0


def build(settings: Settings, bounds: Bounds | None = None) -> FastAPI:
    """Return the gateway for these settings and the bounds of its server."""
    bounds = bounds or Bounds()
    queue, access = VoiceQueue(settings.redis_url, prefix=settings.prefix), access_to(settings)
    store = Store(connect(settings.redis_url), settings.prefix, limits=limits(settings))
    beating = partial(heartbeats, store.pulses["gateway"], store.clock, facts(settings, "gateway"))
    app = Guarded(
        title="voicequeue",
        version=version("voicequeue"),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(queue, access, beating),
        generate_unique_id_function=openapi.operation_id,
    )
    app.add_middleware(OwnPagesOnly)
    app.add_middleware(RequestLog)
    problems.install(app)
    openapi.install(app)
    docs.install(app)
    tail = events.Tail(queue, bounds)
    _add_api(app, queue, access, bounds, tail)
    # A webhook may be the first sign that MusicAPI accepted an order, which the in-flight limit depends on.
    patient = Store(connect(settings.redis_url, wait_s=HOOK_WAIT_S), settings.prefix, limits=limits(settings))
    hooks = webhooks.router(patient, settings.secret.get_secret_value(), _poll_now)
    app.include_router(hooks, include_in_schema=False)
    app.include_router(health.router(store))
    app.include_router(metrics.router(store, access))
    # Browsers share cookies between all ports of a host, so each queue needs its own cookie name.
    app.include_router(pages.router(queue, access, Logins(access, store), tail, cookie=settings.prefix))
    app.mount("/static", pages.files())
    app.add_exception_handler(base.Redirected, base.redirected)
    return app


def _add_api(app: FastAPI, queue: VoiceQueue, access: Access, bounds: Bounds, tail: events.Tail) -> None:
    large = Large()
    app.include_router(jobs.router(queue, access, large))
    app.include_router(operations.router(queue, access))
    app.include_router(batches.router(queue, access))
    app.include_router(row_uploads.router(queue, access, bounds))
    app.include_router(status.router(queue, access, large))
    app.include_router(events.router(queue, access, tail))


def access_to(settings: Settings) -> Access:
    """Return who may use the gateway: the configured keys or, without any, the local token. Raises BadSettings."""
    configured, file = keys(settings), settings.local_token_file
    if configured:
        return Access(configured)
    try:
        tokens = [local_token.key(file)] if file else []
    except UnsafeFileError as error:
        raise BadSettings(f"VOICEQUEUE_LOCAL_TOKEN_FILE: {error}") from None
    local = LocalOnly(address=settings.web_address, public_url=settings.public_url, has_token=bool(tokens))
    return Access(tokens, local)


def keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Return the configured API keys. Raises BadSettings."""
    try:
        return api_keys.parse(settings.api_keys.get_secret_value())
    except ValueError as error:
        raise BadSettings(f"VOICEQUEUE_API_KEYS: {error}") from None


def _lifespan(
    queue: VoiceQueue, access: Access, beating: Callable[[], AbstractAsyncContextManager[None]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if access.local is not None:
            usual = "VOICEQUEUE_API_KEYS is not set: only requests from this machine with the local token are accepted"
            log.warning("%s (see docs/http.md)", access.local.reason or usual)
        with queue:
            async with beating():
                yield

    return lifespan


def _poll_now(stage: Stage, job_id: str) -> None:
    try:
        celery.send_task(poll_name(stage), args=([job_id],), retry=False)
    except (OperationalError, RedisError):
        log.warning("the poll could not be sent; maintenance polls the job when it is overdue", extra={"job": job_id})
