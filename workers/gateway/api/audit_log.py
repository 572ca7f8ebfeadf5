"""The route of the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from workers.gateway.api import schemas
from workers.gateway.api.jobs import Cursor, Limit
from workers.gateway.api.list_schemas import AuditEntryList, page_end
from workers.gateway.openapi import problems, response_of
from workers.gateway.security.access import AccessControl, reading


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the route of the audit log."""
    routes = APIRouter(tags=["Queue"], dependencies=access.require(Scope.OPERATE))

    @routes.get(
        "/v1/audit-log",
        responses={200: response_of(AuditEntryList, "A page of the audit log."), **problems(401, 403, 422, 503)},
    )
    async def list_audit_entries(
        request: Request,
        since: Annotated[
            schemas.Since | None, Query(description="Only changes at this time or later; ISO 8601.")
        ] = None,
        actor: Annotated[
            str | None,
            Query(max_length=200, description="Only changes by this actor, or by all of its kind, such as `page`."),
        ] = None,
        action: Annotated[str | None, Query(max_length=50, description="Only this action, such as `pause`.")] = None,
        batch: Annotated[schemas.BatchName | None, Query(description="Only changes of this batch.")] = None,
        job_id: Annotated[
            str | None,
            Query(max_length=100, description="Only changes of this job, alone or among selected ones."),
        ] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> JSONResponse:
        """List the changes that people and programs made, the latest first.

        A page may have fewer than `limit` entries, even none, while `has_more` is true.
        """
        page = await run_in_threadpool(
            reading(queue, request).audit_log,
            since=None if since is None else since.timestamp(),
            actor=actor,
            action=action,
            batch=batch,
            job_id=job_id,
            limit=limit,
            cursor=cursor,
        )
        entries: AuditEntryList = {"data": [entry.as_dict() for entry in page.items], **page_end(page.cursor)}
        return JSONResponse(entries)

    return routes
