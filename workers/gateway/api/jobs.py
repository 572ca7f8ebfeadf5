"""Routes to enqueue, list and get jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from zlib import crc32

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import EnqueuedJob, FailureCode, Filter, InvalidJobError, Job, Problem, Sort, Stage, State, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.job_holds import HOLDABLE, JobHold
from workers.gateway.api import schemas
from workers.gateway.api.list_schemas import JobList, page_end
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading, source_of
from workers.gateway.server import bodies
from workers.gateway.server.large_responses import LargeResponses

log = logging.getLogger("voicequeue.gateway")

_METADATA = "metadata."

Limit = Annotated[int, Query(ge=1, le=500, description="The most items to return.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the previous page.")]
JobId = Annotated[str, Path(description="Id of the job.")]


def router(queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> APIRouter:
    """Return the routes of jobs."""
    routes = APIRouter(tags=["Jobs"])

    @routes.post(
        "/v1/jobs",
        status_code=202,
        dependencies=access.require(Scope.ENQUEUE),
        responses={
            202: response_of(schemas.EnqueuedJob, "The job was enqueued."),
            200: response_of(
                schemas.EnqueuedJob | schemas.ExistingJob,
                "A job with this key and content exists; nothing was added.",
            ),
            **problems(400, 401, 402, 403, 408, 409, 410, 413, 415, 422, 503),
        },
        openapi_extra=json_body("NewJob", {"A voice and a song": schemas.EXAMPLE_REQUEST}),
    )
    async def create_job(
        request: Request,
        idempotency_key: Annotated[
            str | None, Header(min_length=1, max_length=200, description="The job's `key`, without quotes.")
        ] = None,
    ) -> JSONResponse:
        """Create a job.

        Repeat the request with the same `Idempotency-Key` (or `key`) and content, and nothing is added.
        """
        body = _with_key(await bodies.read_json(request), idempotency_key)
        own = acting(queue, request)
        job = await run_in_threadpool(own.enqueue, body)
        if job.is_new:
            fields = {"job": job.id, "batch": job.spec.batch, "source": "http"}
            log.info("queued", extra={**fields, "at": job.created_at})
        headers = {"Location": f"/v1/jobs/{job.id}"}
        if not _is_visible(job, request):
            return JSONResponse(_existing_job(job), 200, headers)
        position = await run_in_threadpool(own.position, job)
        return JSONResponse(_enqueued_job(job, position), 202 if job.is_new else 200, headers | {"ETag": etag(job)})

    @routes.get(
        "/v1/jobs",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(JobList, "A page of jobs."), **problems(401, 403, 404, 422, 429, 503)},
        openapi_extra={"x-free-query": [_METADATA]},
    )
    async def list_jobs(
        request: Request,
        page_query: Annotated[_PageQuery, Depends(_read_page_query)],
        state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
        stage: Annotated[Stage | None, Query(description="Only jobs in this stage.")] = None,
        batch: Annotated[schemas.BatchName | None, Query(description="Only jobs of this batch.")] = None,
        code: Annotated[FailureCode | None, Query(description="Only jobs that failed with this code.")] = None,
        since: Annotated[
            schemas.Since | None,
            Query(description="Only jobs whose last transition was at this time or later; ISO 8601."),
        ] = None,
        search: Annotated[str | None, Query(max_length=500, description=schemas.SEARCH_DESCRIPTION)] = None,
    ) -> Response:
        """List jobs.

        Filter by metadata with `metadata.NAME=VALUE`. Without `sort`, jobs of a batch are listed in the order in which
        they were enqueued, jobs of a state latest first, queued jobs by priority, batch and age, all jobs by state. A
        page may have fewer than `limit` jobs, even none, while `has_more` is true. A job that changes state meanwhile
        may be listed twice.
        """
        since_at = None if since is None else since.timestamp()
        job_filter = Filter(state, stage, batch, code, since_at, _metadata(request.query_params), search)

        def read_page() -> JobList:
            page = reading(queue, request).search(job_filter, **page_query._asdict())
            return {"data": [job.as_dict() for job in page.items], **page_end(page.cursor)}

        return await large.respond(request, read_page)

    @routes.get(
        "/v1/jobs/{job_id}",
        dependencies=access.require(Scope.READ),
        responses={
            200: response_of(schemas.JobDetails, "The job and its timeline."),
            304: {"description": "The job has not changed since `If-None-Match`."},
            **problems(401, 403, 404, 422, 503),
        },
    )
    async def get_job(
        request: Request,
        job_id: JobId,
        if_none_match: Annotated[str | None, Header(description="`ETag` of an earlier response.")] = None,
    ) -> Response:
        """Get a job with its timeline."""
        own = reading(queue, request)
        job = await run_in_threadpool(own.get, job_id)
        holds = await run_in_threadpool(own.job_holds, job_id) if job.state in HOLDABLE else []
        headers = {"ETag": etag(job, holds), "Cache-Control": "private, no-cache"}
        if if_none_match is not None and _matches(headers["ETag"], if_none_match):
            return Response(status_code=304, headers=headers)
        # Read after the job: the timeline may be newer than the ETag, never older.
        timeline = await run_in_threadpool(own.timeline, job_id)
        details: schemas.JobDetails = {
            **job.as_dict(),
            "holds": [hold.as_dict() for hold in holds],
            "timeline": [entry.as_dict() for entry in timeline],
        }
        return JSONResponse(details, headers=headers)

    return routes


class _PageQuery(NamedTuple):
    """The page of a list that is asked for."""

    sort: Sort | None
    limit: int
    cursor: str | None


async def _read_page_query(
    sort: Annotated[Sort | None, Query(description=schemas.SORT_DESCRIPTION)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> _PageQuery:
    return _PageQuery(sort, limit, cursor)


def etag(job: Job, holds: Sequence[JobHold] = ()) -> str:
    """Return a tag that changes with each transition, each charge, a request to cancel and the holds of a job, and that
    differs for another job with the same id."""
    cancelling = "-cancelling" if job.is_cancelling else ""
    suffix = f"-{crc32(repr(holds).encode()):x}" if holds else ""
    return f'"{round(job.created_at * 1e6):x}-{job.version}-{len(job.charged_task_ids)}{cancelling}{suffix}"'


def _matches(tag: str, header: str) -> bool:
    tags = {text.strip().removeprefix("W/") for text in header.split(",")}
    return bool({tag, "*"} & tags)


def _enqueued_job(job: EnqueuedJob, position: int | None) -> schemas.EnqueuedJob:
    return {
        **job.as_dict(),
        "further_job_ids": list(job.further_job_ids),
        "estimated_credits": job.price,
        "position": position,
    }


def _is_visible(job: EnqueuedJob, request: Request) -> bool:
    """Return whether the caller may see the whole job: its key may belong to a job of another caller."""
    return job.is_new or job.source == source_of(request) or Scope.READ in request.state.scopes


def _existing_job(job: EnqueuedJob) -> schemas.ExistingJob:
    values = job.as_dict()
    return {
        "id": values["id"],
        "key": values["key"],
        "state": values["state"],
        "created_at": values["created_at"],
        "further_job_ids": list(job.further_job_ids),
    }


def _with_key(body: Any, key: str | None) -> Any:
    """Add the key of the header to the job. Raises InvalidJobError if the body has another one."""
    if key is None or not isinstance(body, dict):
        return body
    if body.get("key") not in (None, key):
        raise InvalidJobError([Problem("key", "differs from the Idempotency-Key header; send one of them")])
    return {**body, "key": key}


def _metadata(query: Mapping[str, str]) -> dict[str, str]:
    """Return the filters `metadata.NAME=VALUE` of a query."""
    return {name.removeprefix(_METADATA): value for name, value in query.items() if name.startswith(_METADATA)}
