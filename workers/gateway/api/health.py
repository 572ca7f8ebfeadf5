"""Health checks for load balancers and orchestrators."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException

from voicequeue.storage.celery_queues import consumed_by
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.monitoring.consumption import unconsumed_queues
from workers.gateway.api.schemas import Health, Readiness
from workers.gateway.openapi import problems

#: A worker counts as running if its last heartbeat is at most this old (seconds).
HEARTBEAT_MAX_AGE_S = 15.0


def router(store: JobStore) -> APIRouter:
    """Return the routes of health checks."""
    routes = APIRouter(tags=["Monitoring"])

    @routes.get("/healthz", response_description="The process answers.")
    def get_health() -> Health:
        """Check that this process answers."""
        return {"status": "ok"}

    @routes.get("/readyz", response_description="Jobs are processed.", responses=problems(503))
    def get_readiness() -> Readiness:
        """Check that Redis answers, and that running workers consume the queues of the jobs."""
        with translated_errors():
            workers = store.heartbeats["worker"].since(store.clock() - HEARTBEAT_MAX_AGE_S)
            messages = store.count_messages(consumed_by("worker"))
            if not workers:
                store.check_writable()  # otherwise no heartbeat can arrive
        if not workers:
            raise HTTPException(503, f"No worker has sent a heartbeat in the last {HEARTBEAT_MAX_AGE_S:g} s.")
        if queues := unconsumed_queues(workers, messages):
            raise HTTPException(503, f"No running worker consumes these queues: {', '.join(queues)}.")
        return {"status": "ok", "workers": len(workers)}

    return routes
