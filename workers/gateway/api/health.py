"""Health checks for load balancers and orchestrators."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from voicequeue.storage.connection.errors import reachable
from voicequeue.storage.job_store import Store
from workers.gateway.openapi import problems

#: A worker counts as running if its last heartbeat is at most this old (seconds).
PULSE_S = 15.0


def router(store: Store) -> APIRouter:
    """Return the routes of health checks."""
    routes = APIRouter(tags=["Monitoring"])

    @routes.get("/healthz", response_description="The process answers.")
    def check_liveness() -> dict[str, str]:
        """Check that this process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", response_description="Jobs are processed.", responses=problems(503))
    def check_readiness() -> dict[str, int | str]:
        """Check that Redis answers and a worker is running."""
        with reachable():
            workers = len(store.pulses["worker"].since(store.clock() - PULSE_S))
        if not workers:
            raise HTTPException(503, f"No worker has sent a heartbeat in the last {PULSE_S:g} s.")
        return {"status": "ok", "workers": workers}

    return routes
