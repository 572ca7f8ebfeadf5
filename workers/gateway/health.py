"""Whether the gateway lives, and whether the queue behind it does."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from workers.gateway.openapi import problems


def router(store: Store) -> APIRouter:
    """The routes that load balancers ask."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", responses=problems(503))
    def readyz() -> dict[str, int | str]:
        """Redis answers, and a worker's pulse was heard lately."""
        with reachable():
            workers = len(store.pulses["worker"].alive(store.clock()))
        if not workers:
            raise HTTPException(503, "no worker's pulse was heard lately")
        return {"status": "ok", "workers": workers}

    return routes
