"""Routes to cancel and retry jobs, singly or in bulk, and to pause and resume the queue."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import BulkAction, BulkPlan, BulkResult, InvalidJobError, Problem, Stage, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.schemas import Job
from workers.gateway.api import schemas
from workers.gateway.api.jobs import JobId
from workers.gateway.api.schemas import BulkRequest, BulkRetryRequest, ChangeReason, RetryRequest
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, may_review, require_also
from workers.gateway.server import bodies

_EXAMPLES = {
    "Plan": {"filter": {"batch": "spring", "code": "deadline"}},
    "Execute": {"token": "c2Vla3JpdC10b2tlbi0wMQ"},
}
_JOB = {200: response_of(Job, "The job as it is now."), **problems(401, 403, 404, 409, 422, 503)}
_RETRY = _JOB | problems(400, 408, 410, 413, 415)
_CORRECTION = {"Corrected recording": {"audio_url": "https://recordings.example.com/ana.wav"}}
_PAUSE = {200: response_of(schemas.PauseResult, "The pause is set, or lifted."), **problems(401, 403, 404, 422, 503)}
_BULK: dict[int | str, dict[str, Any]] = {
    200: response_of(schemas.BulkPlan | schemas.BulkResult, "The plan for a filter, or the result for a token."),
    **problems(400, 401, 403, 404, 408, 413, 415, 422, 503),
}

PausedStage = Annotated[Stage | None, Query(description="Only this stage.")]
PausedBatch = Annotated[schemas.BatchName | None, Query(description="Only this batch.")]
Reason = Annotated[str, Query(max_length=200, description="Reason, shown in the status and on the job page.")]


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the routes that change jobs and the queue."""
    routes = APIRouter(dependencies=access.require(Scope.OPERATE))
    _add_job_routes(routes, queue)
    _add_bulk_routes(routes, queue)
    _add_pause_routes(routes, queue)
    return routes


def _add_job_routes(routes: APIRouter, queue: VoiceQueue) -> None:
    @routes.post("/v1/jobs/{job_id}/cancel", tags=["Jobs"], responses=_JOB)
    async def cancel_job(request: Request, job_id: JobId, reason: ChangeReason = "") -> JSONResponse:
        """Cancel a job.

        An order that MusicAPI is working on stays paid; its result is kept on the job if it arrives. A job that is
        `charging` or `unsure` gets `"cancelling": true`: no further stage is submitted, and it is cancelled once the
        outcome of its request is known.
        """
        return JSONResponse((await run_in_threadpool(acting(queue, request, reason).cancel, job_id)).as_dict())

    @routes.post(
        "/v1/jobs/{job_id}/retry",
        tags=["Jobs"],
        responses=_RETRY,
        openapi_extra=json_body("RetryRequest", _CORRECTION, is_required=False),
    )
    async def retry_job(
        request: Request,
        job_id: JobId,
        resubmit: Annotated[
            bool, Query(description="Submit, and pay for, the stage again, even if its result may still arrive.")
        ] = False,
        reason: ChangeReason = "",
    ) -> JSONResponse:
        """Retry a failed job.

        The job continues with the first stage that has no result. If the stage was paid and its result may still
        arrive, MusicAPI is polled again, which is free. With an `audio_url` the job gets another recording; its key
        stays, and the job is still found by it. `resubmit` needs the scope `review` too.
        """
        if resubmit:
            require_also(request, Scope.REVIEW)
        retry = bodies.validate(RetryRequest, await bodies.read_optional_json(request))
        caller = acting(queue, request, reason)
        job = await run_in_threadpool(caller.retry, job_id, resubmit=resubmit, audio_url=retry.audio_url)
        return JSONResponse(job.as_dict())


def _add_bulk_routes(routes: APIRouter, queue: VoiceQueue) -> None:
    @routes.post("/v1/cancel", tags=["Jobs"], responses=_BULK, openapi_extra=json_body("BulkRequest", _EXAMPLES))
    async def cancel_jobs(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Plan and execute a bulk cancellation.

        A filter returns a plan and changes nothing. The plan's token then cancels exactly the jobs of the plan, unless
        they are in a final state. Jobs that are `charging` or `unsure` are cancelled later, as by
        `/v1/jobs/{job_id}/cancel`.
        """
        bulk_request = bodies.validate(BulkRequest, await bodies.read_json(request))
        caller = acting(queue, request, reason)
        return JSONResponse(await run_in_threadpool(_plan_or_execute, caller, BulkAction.CANCEL, bulk_request))

    @routes.post("/v1/retry", tags=["Jobs"], responses=_BULK, openapi_extra=json_body("BulkRetryRequest", _EXAMPLES))
    async def retry_jobs(request: Request, reason: ChangeReason = "") -> JSONResponse:
        """Plan and execute a bulk retry.

        A filter returns a plan with its cost and changes nothing. The plan's token then retries exactly the jobs of the
        plan, unless they changed meanwhile. A plan with `resubmit` needs the scope `review` too.
        """
        retry = bodies.validate(BulkRetryRequest, await bodies.read_json(request))
        if retry.resubmit:
            require_also(request, Scope.REVIEW)
        caller, is_reviewer = acting(queue, request, reason), may_review(request)
        run = partial(_plan_or_execute, resubmit=retry.resubmit, may_resubmit=is_reviewer)
        return JSONResponse(await run_in_threadpool(run, caller, BulkAction.RETRY, retry))


def _add_pause_routes(routes: APIRouter, queue: VoiceQueue) -> None:
    @routes.post("/v1/pause", tags=["Queue"], responses=_PAUSE)
    async def pause_queue(
        request: Request, stage: PausedStage = None, batch: PausedBatch = None, reason: Reason = ""
    ) -> JSONResponse:
        """Pause the queue, one stage, or one batch.

        Nothing more is charged until it is resumed; jobs in flight are still polled.
        """
        _reject_both(stage, batch)
        change = partial(acting(queue, request).pause, stage=stage, batch=batch, reason=reason)
        result: schemas.PauseResult = {"changed": await run_in_threadpool(change)}
        return JSONResponse(result)

    @routes.post("/v1/resume", tags=["Queue"], responses=_PAUSE)
    async def resume_queue(
        request: Request, stage: PausedStage = None, batch: PausedBatch = None, reason: ChangeReason = ""
    ) -> JSONResponse:
        """Resume the queue, one stage, or one batch.

        Holds for other reasons are tried again at once.
        """
        _reject_both(stage, batch)
        change = partial(acting(queue, request, reason).resume, stage=stage, batch=batch)
        result: schemas.PauseResult = {"changed": await run_in_threadpool(change)}
        return JSONResponse(result)


def _reject_both(stage: Stage | None, batch: str | None) -> None:
    if stage is not None and batch is not None:
        wrong = partial(Problem, message="send either a stage or a batch")
        raise InvalidJobError([wrong("stage"), wrong("batch")])


def _plan_or_execute(
    queue: VoiceQueue,
    action: BulkAction,
    request: BulkRequest,
    *,
    resubmit: bool = False,
    may_resubmit: bool = True,
) -> schemas.BulkPlan | schemas.BulkResult:
    if request.filter is not None and request.token is None:
        return _plan(queue.plan_bulk(action, request.filter.to_filter(), resubmit=resubmit))
    if request.token is not None and request.filter is None and not resubmit:
        return _result(queue.execute_plan(action, request.token, may_resubmit=may_resubmit))
    wrong = partial(Problem, message="send either a filter (and resubmit) or the token of a plan")
    raise InvalidJobError([wrong("filter"), wrong("token")])


def _plan(plan: BulkPlan) -> schemas.BulkPlan:
    return {
        "token": plan.token,
        "action": plan.action,
        "resubmit": plan.resubmit,
        "count": plan.count,
        "max_credits": plan.max_credits,
        "repeat_credits": plan.repeat_credits,
        "submitted": plan.submitted,
        "uncertain": plan.uncertain,
        "expires_at": to_iso8601(plan.expires_at),
        "complete": plan.is_complete,
    }


def _result(done: BulkResult) -> schemas.BulkResult:
    return {
        "action": done.action,
        "count": done.count,
        "changed": done.changed,
        "cancelling": done.cancelling,
        "skipped": done.skipped,
    }
