"""One job in; jobs and their timelines out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Code, Filter, InvalidJob, Job, Placed, Problem, Stage, State, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.client.queue import entered_by
from workers.gateway import bodies, schemas
from workers.gateway.auth import Access
from workers.gateway.large import Large
from workers.gateway.openapi import described, json_body, problems
from workers.gateway.origin import origin

log = logging.getLogger("voicequeue.gateway")

_METADATA = "metadata."

Limit = Annotated[int, Query(ge=1, le=500, description="how many at most")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before")]


def router(queue: VoiceQueue, access: Access, large: Large) -> APIRouter:
    """The routes of jobs."""
    routes = APIRouter(tags=["jobs"])

    @routes.post(
        "/v1/jobs",
        status_code=202,
        dependencies=access.needs(Scope.ENQUEUE),
        responses={
            202: described(schemas.Placed, "It is in the queue now."),
            200: described(
                schemas.Placed | schemas.Known,
                "The key stands for this very job already; nothing was added. A caller without the scope `read` is "
                "told no more than that of a job that it did not bring.",
            ),
            **problems(400, 401, 403, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body("VoiceJob", {"a voice and a song": schemas.EXAMPLE_ORDER}),
    )
    async def enqueue(
        request: Request,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=200, description="the job's `key`, as it is, without quotes")
        ] = None,
    ) -> JSONResponse:
        """Put one job into the queue. With an Idempotency-Key (or `key`), sending it again adds nothing."""
        given = _keyed(await bodies.read_json(request), idempotency_key)
        placed = await run_in_threadpool(entered_by(queue, origin(request)).place, given)
        if placed.new:
            about = {"job": placed.job.id, "batch": placed.job.spec.batch, "door": "http"}
            log.info("queued", extra={**about, "at": placed.job.created_at})
        headers = {"Location": f"/v1/jobs/{placed.job.id}"}
        if not _may_be_read(placed, request):
            return JSONResponse(_known(placed), 200, headers)
        return JSONResponse(_placed(placed), 202 if placed.new else 200, headers | {"ETag": etag(placed.job)})

    @routes.get(
        "/v1/jobs",
        dependencies=access.needs(Scope.READ),
        responses={200: described(schemas.Jobs, "A page."), **problems(401, 403, 404, 422, 429, 503)},
        openapi_extra={"x-free-query": [_METADATA]},
    )
    async def jobs(
        request: Request,
        state: State | None = None,
        stage: Stage | None = None,
        batch: Annotated[schemas.BatchName | None, Query()] = None,
        code: Annotated[Code | None, Query(description="why it failed")] = None,
        since: Annotated[schemas.Since | None, Query(description="its last move was then or later")] = None,
        called: Annotated[str | None, Query(max_length=500, description=schemas.CALLED)] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """Jobs, a page at a time. `metadata.NAME=VALUE` filters by metadata.

        A batch comes in the order it was enqueued, a state by the latest to enter it, the backlog by
        priority, batch and age, all jobs state by state. A page may hold fewer than `limit`, even none,
        while `next` is there; a job that moves meanwhile may be told twice.
        """
        at = None if since is None else since.timestamp()
        wanted = Filter(state, stage, batch, code, at, _metadata(request.query_params), called)

        def page() -> dict[str, Any]:
            found = queue.find(wanted, limit=limit, cursor=cursor)
            return {"jobs": [job.as_dict() for job in found.items], "next": found.cursor}

        return await large.answer(request, page)

    @routes.get(
        "/v1/jobs/{job_id}",
        dependencies=access.needs(Scope.READ),
        responses={
            200: described(schemas.Told, "The job, and every move it made."),
            304: {"description": "It is still as If-None-Match says."},
            **problems(401, 403, 404, 422, 503),
        },
    )
    async def job(
        job_id: str, if_none_match: Annotated[str | None, Header(description="the ETag of an answer before")] = None
    ) -> Response:
        """A job as it stands, with its timeline."""
        found = await run_in_threadpool(queue.get, job_id)
        headers = {"ETag": etag(found), "Cache-Control": "private, no-cache"}
        if if_none_match is not None and _is_same(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        # The timeline after the job: it may know more than the tag tells, never less.
        steps = await run_in_threadpool(queue.timeline, job_id)
        return JSONResponse({**found.as_dict(), "timeline": [step.as_dict() for step in steps]}, headers=headers)

    return routes


def etag(job: Job) -> str:
    """Return a tag that changes with each move and each charge, and when cancelling is asked for; and for another job
    of the same id."""
    marked = "-cancelling" if job.cancelling else ""
    return f'"{round(job.created_at * 1e6):x}-{job.version}-{len(job.orders)}{marked}"'


def _is_same(tag: str, header: str) -> bool:
    given = {each.strip().removeprefix("W/") for each in header.split(",")}
    return bool({tag, "*"} & given)


def _placed(placed: Placed) -> dict[str, Any]:
    return {
        **placed.job.as_dict(),
        "further": list(placed.further),
        "estimated_credits": placed.credits,
        "position": placed.position,
    }


def _may_be_read(placed: Placed, request: Request) -> bool:
    """Whether all of it is the caller's to see: a key may stand for another one's job."""
    return placed.new or placed.job.origin == origin(request) or Scope.READ in request.state.scopes


def _known(placed: Placed) -> dict[str, Any]:
    told = placed.job.as_dict()
    return {name: told[name] for name in ("id", "key", "state", "created_at")} | {"further": list(placed.further)}


def _keyed(given: Any, key: str | None) -> Any:
    """The job with the key from the header, which must not say otherwise than the body."""
    if key is None or not isinstance(given, dict):
        return given
    if given.get("key") not in (None, key):
        raise InvalidJob([Problem("key", "is not the Idempotency-Key of the header; give one of them")])
    return {**given, "key": key}


def _metadata(query: Mapping[str, str]) -> dict[str, str]:
    """What `metadata.NAME=VALUE` asks for."""
    return {name.removeprefix(_METADATA): value for name, value in query.items() if name.startswith(_METADATA)}
