"""The gateway's process: `uvicorn workers.gateway.app:app`."""

from __future__ import annotations

from fastapi import FastAPI

from config.settings import Settings, settings
from tasks.celery_tasks import poll_name
from voicequeue.stage import Stage
from voicequeue.store import Store, connect
from workers.app import app as celery
from workers.gateway import health, hooks


def build(chosen: Settings) -> FastAPI:
    """The gateway as the settings say."""
    gateway = FastAPI(title="voicequeue", openapi_url=None)
    store = Store(connect(chosen.redis_url), chosen.prefix)
    gateway.include_router(hooks.router(store, chosen.secret.get_secret_value(), _poll_now))
    gateway.include_router(health.router(store))
    return gateway


def _poll_now(stage: Stage, job_id: str) -> None:
    # Where the message is lost, the pulse finds the job overdue.
    celery.send_task(poll_name(stage), args=([job_id],), retry=False)


app = build(settings())
