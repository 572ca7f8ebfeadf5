"""Routes to review unsure orders: what is known about them, and the decision."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import schemas as domain_schemas
from workers.gateway.api.jobs import Cursor, JobId
from workers.gateway.api.list_schemas import ChargeReviewList, page_end
from workers.gateway.api.schemas import BatchName, ChangeReason, ReviewRequest
from workers.gateway.decisions import decide
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading
from workers.gateway.server import bodies
from workers.gateway.server.large_responses import LargeResponses

_EXAMPLES = {
    "It was charged": {"decision": "confirm", "attempt": 1, "task_id": "5f0c7a52-7d0f-4d8b-9d2c-0a4a6f0c8d11"},
    "It was not charged": {"decision": "resubmit", "attempt": 1},
    "It is no longer needed": {"decision": "abandon", "attempt": 1},
}


def router(queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(tags=["Reviews"])
    _add_reading_routes(routes, queue, access, large)

    @routes.post(
        "/v1/jobs/{job_id}/review",
        dependencies=access.require(Scope.REVIEW),
        responses={
            200: response_of(domain_schemas.Job, "The job as it is now."),
            **problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body("ReviewRequest", _EXAMPLES),
    )
    async def decide_review(request: Request, job_id: JobId, reason: ChangeReason = "") -> JSONResponse:
        """Decide about the unsure order of a job.

        `attempt` is the number of the order in the review that was read: the decision applies to no later one, so the
        same request can be sent again, and changes nothing more. `resubmit` pays a second time if the order was charged
        after all.
        """
        review = bodies.validate(ReviewRequest, await bodies.read_json(request))
        job = await run_in_threadpool(decide, acting(queue, request, reason), job_id, review)
        return JSONResponse(job.as_dict())

    return routes


def _add_reading_routes(routes: APIRouter, queue: VoiceQueue, access: AccessControl, large: LargeResponses) -> None:
    @routes.get(
        "/v1/reviews",
        dependencies=access.require(Scope.READ),
        responses={
            200: response_of(ChargeReviewList, "A page of unsure jobs."),
            **problems(401, 403, 404, 422, 429, 503),
        },
    )
    async def list_reviews(
        request: Request,
        batch: Annotated[BatchName | None, Query(description="Only jobs of this batch.")] = None,
        limit: Annotated[int, Query(ge=1, le=100, description="The most items to return.")] = 50,
        cursor: Cursor = None,
    ) -> Response:
        """List the unsure jobs, whose order may have been charged, with the evidence, the latest first.

        A key of one namespace sees no balances, because others use the account, too.
        """

        def read() -> ChargeReviewList:
            page = reading(queue, request).list_charge_reviews(batch=batch, limit=limit, cursor=cursor)
            return {"data": [review.as_dict() for review in page.items], **page_end(page.cursor)}

        return await large.respond(request, read)

    @routes.get(
        "/v1/jobs/{job_id}/review",
        dependencies=access.require(Scope.READ),
        responses={
            200: response_of(domain_schemas.ChargeReview, "The job and the evidence."),
            **problems(401, 403, 404, 409, 422, 503),
        },
    )
    async def get_review(request: Request, job_id: JobId) -> JSONResponse:
        """Get the evidence on whether the order of an unsure job was charged."""
        return JSONResponse((await run_in_threadpool(reading(queue, request).charge_review, job_id)).as_dict())
