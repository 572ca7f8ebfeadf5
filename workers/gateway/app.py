"""The gateway as the settings say; its process is workers/gateway/__main__.py."""

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
from workers.gateway import (
    batches,
    docs,
    events,
    glance,
    health,
    jobs,
    metrics,
    openapi,
    operations,
    problems,
    webhooks,
)
from workers.gateway.alive import alive
from workers.gateway.auth import Access
from workers.gateway.browsers import Guarded, OwnPagesOnly
from workers.gateway.connections import Bounds
from workers.gateway.events import Tail
from workers.gateway.large import Large
from workers.gateway.local import LocalOnly
from workers.gateway.page import base
from workers.gateway.page import routes as pages
from workers.gateway.requests_log import RequestLog
from workers.gateway.session import Logins
from workers.private_files import UnsafeFileError
from workers.process_info import facts

log = logging.getLogger("voicequeue.gateway")

#: How long (seconds) a webhook waits while Redis is away: nobody knows whether upstream sends it again.
HOOK_WAIT_S = 5.0


def build(chosen: Settings, bounds: Bounds | None = None) -> FastAPI:
    """Return the gateway as the settings say, for a server with these bounds."""
    bounds = bounds or Bounds()
    queue, access = VoiceQueue(chosen.redis_url, prefix=chosen.prefix), access_to(chosen)
    store = Store(connect(chosen.redis_url), chosen.prefix, limits=limits(chosen))
    gateway = Guarded(
        title="voicequeue",
        version=version("voicequeue"),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(
            queue, access, partial(alive, store.pulses["gateway"], store.clock, facts(chosen, "gateway"))
        ),
    )
    gateway.add_middleware(OwnPagesOnly)
    gateway.add_middleware(RequestLog)
    problems.install(gateway)
    openapi.install(gateway)
    docs.install(gateway)
    large = Large()
    gateway.include_router(jobs.router(queue, access, large))
    gateway.include_router(batches.router(queue, access, bounds))
    gateway.include_router(glance.router(queue, access, large))
    gateway.include_router(operations.router(queue, access))
    tail = Tail(queue, bounds)
    gateway.include_router(events.router(queue, access, tail))
    # A webhook may be the first to tell that an order was taken, from which the pace follows.
    patient = Store(connect(chosen.redis_url, wait_s=HOOK_WAIT_S), chosen.prefix, limits=limits(chosen))
    gateway.include_router(
        webhooks.router(patient, chosen.secret.get_secret_value(), _poll_now), include_in_schema=False
    )
    gateway.include_router(health.router(store))
    gateway.include_router(metrics.router(store, access))
    # Browsers keep one set of cookies for all ports of a host: each queue needs a name of its own.
    gateway.include_router(pages.router(queue, access, Logins(access, store), tail, cookie=chosen.prefix))
    gateway.mount("/static", pages.files())
    gateway.add_exception_handler(base.Elsewhere, base.elsewhere)
    return gateway


def access_to(chosen: Settings) -> Access:
    """Return what the settings let in: configured keys, or the local token on this machine. Raises BadSettings."""
    configured, file = keys(chosen), chosen.local_token_file
    if configured:
        return Access(configured)
    try:
        tokens = [local_token.key(file)] if file else []
    except UnsafeFileError as error:
        raise BadSettings(f"VOICEQUEUE_LOCAL_TOKEN_FILE: {error}") from None
    local = LocalOnly(address=chosen.web_address, public_url=chosen.public_url, has_token=bool(tokens))
    return Access(tokens, local)


def keys(chosen: Settings) -> tuple[ApiKey, ...]:
    """The API keys that are configured. Raises BadSettings."""
    try:
        return api_keys.parse(chosen.api_keys.get_secret_value())
    except ValueError as error:
        raise BadSettings(f"VOICEQUEUE_API_KEYS: {error}") from None


def _lifespan(
    queue: VoiceQueue, access: Access, living: Callable[[], AbstractAsyncContextManager[None]]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if access.local is not None:
            usual = "VOICEQUEUE_API_KEYS is not set: only this machine is answered, with the local token"
            log.warning("%s (see docs/http.md)", access.local.reason or usual)
        with queue:
            async with living():
                yield

    return lifespan


def _poll_now(stage: Stage, job_id: str) -> None:
    try:
        celery.send_task(poll_name(stage), args=([job_id],), retry=False)
    except (OperationalError, RedisError):
        log.warning("no message could be sent; the pulse finds it overdue", extra={"job": job_id})
