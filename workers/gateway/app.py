"""The gateway's ASGI app, built from the settings; `workers/gateway/serving.py` serves it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from config.settings import Settings, SettingsError
from tasks.celery_tasks import poll_name
from voicequeue import VoiceQueue
from voicequeue.auth import api_keys
from voicequeue.auth.api_keys import ApiKey
from voicequeue.client.queue import with_audio_hosts, without_actor
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.stage import Stage
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from voicequeue.version import VERSION
from workers import local_token
from workers.app import app as celery
from workers.dependencies import build_limits
from workers.dependencies import callback_secrets as root_secrets
from workers.gateway import openapi, problems
from workers.gateway.api import (
    audit_log,
    batches,
    callback_secrets,
    callbacks,
    docs,
    erasure,
    events,
    health,
    jobs,
    keys,
    limits,
    metrics,
    operations,
    personas,
    reviews,
    row_uploads,
    spending,
    status,
    webhooks,
)
from workers.gateway.heartbeat import send_heartbeats
from workers.gateway.page import base
from workers.gateway.page import routes as pages
from workers.gateway.page.services import PageServices
from workers.gateway.security.access import AccessControl
from workers.gateway.security.browser_policy import SameOriginMiddleware, SecureApp
from workers.gateway.security.key_registry import KeyRegistry
from workers.gateway.security.local_access import LocalAccess
from workers.gateway.security.sessions import SessionManager
from workers.gateway.server.connections import ServerLimits
from workers.gateway.server.head_requests import HeadMiddleware
from workers.gateway.server.large_responses import LargeResponses
from workers.gateway.server.request_log import RequestLogMiddleware
from workers.private_files import UnsafeFileError
from workers.process_info import process_facts

log = logging.getLogger("voicequeue.gateway")

#: Seconds that a webhook waits for Redis: MusicAPI does not promise to send it again.
WEBHOOK_REDIS_WAIT_S = 5.0


def create_app(settings: Settings, bounds: ServerLimits | None = None) -> FastAPI:
    """Return the gateway for these settings and the bounds of its server."""
    bounds = bounds or ServerLimits()
    connected = VoiceQueue(
        settings.redis_url, prefix=settings.prefix, namespace=ALL, replicas_ack=settings.replicas_ack
    )
    # Each change needs the caller that asks for it: `acting` in workers/gateway/security/access.py.
    queue = without_actor(with_audio_hosts(connected, settings.audio_allowed_hosts))
    store = JobStore(
        connect(settings.redis_url, prefix=settings.prefix), settings.prefix, limits=build_limits(settings)
    )
    access = create_access(settings).with_registry(KeyRegistry(store.api_keys, store.clock))
    beating = partial(send_heartbeats, store.heartbeats["gateway"], store.clock, process_facts(settings, "gateway"))
    app = SecureApp(
        title="voicequeue",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(queue, access, beating),
        generate_unique_id_function=openapi.operation_id,
        servers=openapi.servers(settings.public_url),
    )
    app.add_middleware(HeadMiddleware)
    app.add_middleware(SameOriginMiddleware)
    app.add_middleware(RequestLogMiddleware)
    problems.install(app)
    openapi.install(app)
    docs.install(app)
    broadcaster = events.EventBroadcaster(queue, bounds)
    _add_api(app, queue, access, bounds, broadcaster)
    app.include_router(callback_secrets.router(queue, access, root_secrets(settings)))
    # A webhook may be the first sign that MusicAPI accepted an order, which the in-flight limit depends on.
    patient = JobStore(
        connect(settings.redis_url, wait_s=WEBHOOK_REDIS_WAIT_S, prefix=settings.prefix),
        settings.prefix,
        limits=build_limits(settings),
        replicas_ack=settings.replicas_ack,
    )
    hooks = webhooks.router(patient, settings.secrets, _poll_now)
    app.include_router(hooks, include_in_schema=False)
    app.include_router(health.router(store))
    app.include_router(metrics.router(store, access))
    # Browsers share cookies between all ports of a host, so each queue needs its own cookie name.
    sessions = SessionManager(access, store, settings.secrets)
    renderer = base.PageRenderer(queue, access, sessions, cookie=settings.prefix)
    app.state.error_page = renderer.render_problem
    app.include_router(
        pages.router(PageServices(queue, store, access, sessions, broadcaster, renderer, settings.flower_url))
    )
    app.mount("/static", pages.files())
    app.add_exception_handler(base.Redirected, base.on_redirect)
    return app


def _add_api(
    app: FastAPI, queue: VoiceQueue, access: AccessControl, bounds: ServerLimits, broadcaster: events.EventBroadcaster
) -> None:
    large = LargeResponses()
    app.include_router(jobs.router(queue, access, large))
    app.include_router(operations.router(queue, access))
    app.include_router(reviews.router(queue, access, large))
    app.include_router(limits.router(queue, access))
    app.include_router(callbacks.router(queue, access, large))
    app.include_router(personas.router(queue, access, large))
    app.include_router(audit_log.router(queue, access))
    app.include_router(keys.router(queue, access))
    app.include_router(erasure.router(queue, access))
    app.include_router(batches.router(queue, access))
    app.include_router(row_uploads.router(queue, access, bounds))
    app.include_router(status.router(queue, access, large))
    app.include_router(spending.router(queue, access))
    app.include_router(events.router(queue, access, broadcaster))


def create_access(settings: Settings) -> AccessControl:
    """Return who may use the gateway: the configured keys or, without any, the local token. Raises SettingsError."""
    configured, file = configured_keys(settings), settings.local_token_file
    if configured:
        return AccessControl(configured)
    try:
        tokens = [local_token.key(file)] if file else []
    except UnsafeFileError as error:
        raise SettingsError(f"VOICEQUEUE_LOCAL_TOKEN_FILE: {error}") from None
    local = LocalAccess(address=settings.web_address, public_url=settings.public_url, has_token=bool(tokens))
    return AccessControl(tokens, local)


def configured_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Return the configured API keys. Raises SettingsError."""
    try:
        return api_keys.parse_keys(settings.api_keys.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"VOICEQUEUE_API_KEYS: {error}") from None


def _lifespan(
    queue: VoiceQueue, access: AccessControl, beating: Callable[[], AbstractAsyncContextManager[None]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(access.refresh)
        if access.local is not None:
            usual = "there is no API key: only requests from this machine with the local token are accepted"
            log.warning("%s (see docs/guides/http.md)", access.local.closed_reason or usual)
        with queue:
            async with beating():
                yield

    return lifespan


def _poll_now(stage: Stage, job_id: str) -> None:
    try:
        celery.send_task(poll_name(stage), args=([job_id],), retry=False)
    except (OperationalError, RedisError):
        log.warning("the poll could not be sent; maintenance polls the job when it is overdue", extra={"job": job_id})
