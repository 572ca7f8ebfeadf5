"""Cancel and retry: one job at once, many by a plan. Pause and resume."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Action, Done, InvalidJob, Plan, Problem, Stage, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.job import iso
from workers.gateway import bodies, schemas
from workers.gateway.auth import Access
from workers.gateway.openapi import described, json_body, problems
from workers.gateway.schemas import Order, RetryOrder

_FIRST_AND_THEN = {
    "first: which jobs": {"filter": {"batch": "spring", "code": "deadline"}},
    "then: exactly those": {"token": "c2Vla3JpdC10b2tlbi0wMQ"},
}
_ERRORS = problems(400, 401, 403, 404, 408, 413, 415, 422, 503)
_OF_ONE = {200: described(schemas.Job, "The job as it stands now."), **problems(401, 403, 404, 409, 422, 503)}
_OF_PAUSE = {200: described(schemas.Changed, "It is so now."), **problems(401, 403, 404, 422, 503)}
_OF_MANY: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Plan | schemas.Done, "description": "For a filter a plan, for a token what became of it."},
    **_ERRORS,
}

PausedStage = Annotated[Stage | None, Query(description="only this stage")]
PausedBatch = Annotated[schemas.BatchName | None, Query(description="only this batch")]
Why = Annotated[str, Query(max_length=200, description="told to whoever asks")]


def router(queue: VoiceQueue, access: Access) -> APIRouter:
    """The routes that change what becomes of jobs."""
    routes = APIRouter(tags=["operate"], dependencies=access.needs(Scope.OPERATE))

    @routes.post("/v1/jobs/{job_id}/cancel", responses=_OF_ONE)
    async def cancel(job_id: str) -> JSONResponse:
        """Cancel a job. What upstream already works on stays paid; if its result comes, the job keeps it.

        A job that is charging or unsure is marked (`cancelling`): it is cancelled as soon as it is known what became of
        its order, and no further stage is ordered.
        """
        return JSONResponse((await run_in_threadpool(queue.cancel, job_id)).as_dict())

    @routes.post("/v1/jobs/{job_id}/retry", responses=_OF_ONE)
    async def retry(job_id: str, resubmit: bool = False) -> JSONResponse:
        """Let a failed job go on at the first stage that has no result.

        What was paid and may still come is asked for again, free; `resubmit` orders and pays it anew.
        """
        return JSONResponse((await run_in_threadpool(queue.retry, job_id, resubmit=resubmit)).as_dict())

    @routes.post("/v1/cancel", responses=_OF_MANY, openapi_extra=json_body("Order", _FIRST_AND_THEN))
    async def cancel_many(request: Request) -> JSONResponse:
        """Cancel many jobs: a filter gives a plan, its token carries it out, for exactly the jobs it listed.

        Those that are charging or unsure are marked, as `/v1/jobs/{job_id}/cancel` does.
        """
        order = bodies.checked(Order, await bodies.read_json(request))
        return JSONResponse(await run_in_threadpool(_followed, queue, Action.CANCEL, order))

    @routes.post("/v1/retry", responses=_OF_MANY, openapi_extra=json_body("RetryOrder", _FIRST_AND_THEN))
    async def retry_many(request: Request) -> JSONResponse:
        """Retry many failed jobs: a filter gives a plan and what it costs, its token carries it out."""
        order = bodies.checked(RetryOrder, await bodies.read_json(request))
        return JSONResponse(await run_in_threadpool(_followed, queue, Action.RETRY, order, order.resubmit))

    @routes.post("/v1/pause", responses=_OF_PAUSE)
    async def pause(stage: PausedStage = None, batch: PausedBatch = None, why: Why = "") -> JSONResponse:
        """Charge nothing more till it is resumed: of anything, of one stage, or of one batch."""
        _one_of(stage, batch)
        changed = await run_in_threadpool(queue.pause, stage=stage, batch=batch, by=why)
        return JSONResponse({"changed": changed})

    @routes.post("/v1/resume", responses=_OF_PAUSE)
    async def resume(stage: PausedStage = None, batch: PausedBatch = None) -> JSONResponse:
        """Go on with what was paused, and try at once what is held back for other reasons."""
        _one_of(stage, batch)
        return JSONResponse({"changed": await run_in_threadpool(queue.resume, stage=stage, batch=batch)})

    return routes


def _one_of(stage: Stage | None, batch: str | None) -> None:
    if stage is not None and batch is not None:
        wrong = partial(Problem, message="give a stage or a batch, not both")
        raise InvalidJob([wrong("stage"), wrong("batch")])


def _followed(queue: VoiceQueue, action: Action, order: Order, resubmit: bool = False) -> dict[str, Any]:
    if order.filter is not None and order.token is None:
        return _plan(queue.plan(action, order.filter.filter(), resubmit=resubmit))
    if order.token is not None and order.filter is None and not resubmit:
        return _done(queue.carry_out(action, order.token))
    wrong = partial(Problem, message="give either a filter (and resubmit), or the token of a plan")
    raise InvalidJob([wrong("filter"), wrong("token")])


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "token": plan.token,
        "action": plan.action.value,
        "resubmit": plan.resubmit,
        "found": plan.found,
        "credits": plan.credits,
        "again": plan.again,
        "paid": plan.paid,
        "under_way": plan.under_way,
        "expires_at": iso(plan.expires_at),
        "complete": plan.complete,
    }


def _done(done: Done) -> dict[str, Any]:
    counts = {"found": done.found, "changed": done.changed, "marked": done.marked, "moved_on": done.moved_on}
    return {"action": done.action.value, **counts}
