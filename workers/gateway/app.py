"""The gateway's process: `uvicorn workers.gateway.app:app`."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from kombu.exceptions import OperationalError

from config.settings import Settings, settings
from tasks.celery_tasks import poll_name
from voicequeue.stage import Stage
from voicequeue.store import Store, connect
from workers.app import app as celery
from workers.gateway import health, hooks
from workers.services import limits

log = logging.getLogger("voicequeue.gateway")

#: How long (seconds) a webhook waits while Redis is away: nobody knows whether upstream sends it again.
HOOK_WAIT_S = 5.0


def build(chosen: Settings) -> FastAPI:
    """The gateway as the settings say."""
    gateway = FastAPI(title="voicequeue", openapi_url=None)
    # A webhook may be the first to tell that an order was taken, from which the pace follows.
    patient = Store(connect(chosen.redis_url, wait_s=HOOK_WAIT_S), chosen.prefix, limits=limits(chosen))
    gateway.include_router(hooks.router(patient, chosen.secret.get_secret_value(), _poll_now))
    gateway.include_router(health.router(Store(connect(chosen.redis_url), chosen.prefix)))
    return gateway


def _poll_now(stage: Stage, job_id: str) -> None:
    try:
        celery.send_task(poll_name(stage), args=([job_id],), retry=False)
    except OperationalError:
        log.warning("job %s: no message could be sent; the pulse finds it overdue", job_id)


app = build(settings())
