"""The pages that change something: each shows how many jobs are affected and what it costs, and asks to confirm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import cast

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import BulkAction, InvalidJobError, Job, Problem, Stage, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain import transitions
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.stage import PRICES
from voicequeue.domain.stop_loss import BatchLimitChanges, parse_fraction
from voicequeue.texts import parse_float, parse_int
from workers.gateway.api.schemas import ReviewRequest
from workers.gateway.decisions import decide
from workers.gateway.page.base import Form, PageRenderer
from workers.gateway.page.forms import read_fields, selected, selection
from workers.gateway.page.views import FILTERS, to_filter
from workers.gateway.security.access import acting, may_review, reading, require_also
from workers.gateway.server import bodies

_LIMITS = ("in_flight", "submit_rate", "min_balance")
_BATCH_LIMITS = ("max_credits", "max_in_flight", "stop_after", "stop_min")

_CANCELLING = "it is cancelled once the outcome of its request is known; no further stage is submitted."


class Actions:
    """Asks for confirmation, applies a change, and redirects to a page that shows what was done."""

    def __init__(self, queue: VoiceQueue, renderer: PageRenderer, show_batch: Callable[..., Response]) -> None:
        """Create them. `show_batch` renders the page of the `batch` of that name."""
        self._queue = queue
        self._renderer = renderer
        self._show_batch = show_batch

    def _acting(self, request: Request, form: Form) -> VoiceQueue:
        """Return the queue on behalf of the user, with the reason in the form."""
        return acting(self._queue, request, form.get("reason", "")[:200])

    # ── one job ────────────────────────────────────────────────────────────────────────────────

    def confirm(self, request: Request, job_id: str, action: BulkAction) -> Response:
        """Ask whether to retry or cancel this job. Raises JobNotFoundError, InvalidStateError."""
        job = reading(self._queue, request).get(job_id)
        if action is BulkAction.CANCEL:
            transitions.require_cancellable(job)
            return self._renderer.render(request, "cancel.html", {"job": job})
        transitions.retry(job, 0.0)
        context = {
            "job": job,
            "credits": transitions.retry_cost(job),
            "pays_again": transitions.pays_again(job),
            "has_order": job.may_have_late_result,
            "resubmit_credits": transitions.retry_cost(job, resubmit=True),
            "price": PRICES[job.stage],
            "is_correctable": transitions.is_correctable(job),
        }
        return self._renderer.render(request, "retry.html", context)

    def apply(self, request: Request, form: Form, job_id: str, action: BulkAction) -> Response:
        """Retry or cancel this job. Raises InvalidJobError, JobNotFoundError, InvalidStateError, ProblemError."""
        queue = self._acting(request, form)
        if action is BulkAction.CANCEL:
            job = queue.cancel(job_id)
        else:
            if "resubmit" in form:
                require_also(request, Scope.REVIEW)
            # The version that the form showed, with its cost; without one it is refused.
            version = parse_int(form.get("version", ""), at_most=2**53)
            try:
                job = queue.retry(
                    job_id,
                    resubmit="resubmit" in form,
                    audio_url=form.get("audio_url"),
                    version=-1 if version is None else version,
                )
            except InvalidJobError as error:
                show = partial(self.confirm, job_id=job_id, action=action)
                return self._renderer.resend(request, form, error, show, name="recording", fields=["audio_url"])
        if job.is_cancelling:
            return self._show_job(request, job, f"The job is {job.state}: {_CANCELLING}")
        return self._show_job(request, job, f"The job is now {job.state}.")

    def confirm_review(self, request: Request, job_id: str) -> Response:
        """Ask whether an unsure job was charged. Raises JobNotFoundError, InvalidStateError."""
        return self._renderer.render(
            request, "review.html", {"unsure": reading(self._queue, request).charge_review(job_id)}
        )

    def review(self, request: Request, form: Form, job_id: str) -> Response:
        """Decide about the order that the page showed. Raises JobNotFoundError, InvalidStateError."""
        try:
            job = decide(self._acting(request, form), job_id, _decision(form))
        except InvalidJobError as error:
            show = partial(self.confirm_review, job_id=job_id)
            return self._renderer.resend(request, form, error, show, name="confirm", fields=["task_id"])
        return self._show_job(request, job, f"The job is now {job.state}.")

    def redeliver(self, request: Request, form: Form, job_id: str) -> Response:
        """Deliver the job's pending or undelivered callback now. Raises JobNotFoundError."""
        job = reading(self._queue, request).get(job_id)
        count = self._acting(request, form).redeliver_callbacks([job.callback_id] if job.callback_id else [])
        return self._show_job(
            request, job, "The callback is being delivered." if count else "There is no callback to deliver."
        )

    def _show_job(self, request: Request, job: Job, notice: str) -> Response:
        return self._renderer.redirect_with_notice(request, f"/job/{job.id}", notice)

    # ── many jobs ──────────────────────────────────────────────────────────────────────────────

    def plan(self, request: Request, form: Form) -> Response:
        """Plan a retry or cancellation, and ask for confirmation.

        Raises InvalidJobError, BatchNotFoundError, ProblemError.
        """
        if "resubmit" in form:
            require_also(request, Scope.REVIEW)
        queue, action, resubmit = reading(self._queue, request), _action(form), "resubmit" in form
        fields = {name: form.get(name, "") for name in FILTERS}
        if "selected" in form:
            plan = queue.plan_jobs(action, selected(form), resubmit=resubmit)
        else:
            plan = queue.plan_bulk(action, to_filter(fields), resubmit=resubmit)
        context = {
            "plan": plan,
            "filters": {name: value for name, value in fields.items() if value},
            "selection": selection(form),
        }
        return self._renderer.render(request, "plan.html", context)

    def execute(self, request: Request, form: Form) -> Response:
        """Execute a plan. Raises InvalidJobError, PlanNotFoundError."""
        action = _action(form)
        queue = self._acting(request, form)
        result = queue.execute_plan(action, form.get("plan", ""), may_resubmit=may_review(request))
        notice = f"{_PAST[action]} {result.changed:,} of {_jobs(result.count)}."
        if result.cancelling:
            notice += f" {result.cancelling:,} will be cancelled once the outcome of their requests is known."
        if result.skipped:
            notice += f" {result.skipped:,} changed meanwhile and were left unchanged."
        filters = {name: form[name] for name in ("batch",) if form.get(name)}
        return self._renderer.redirect_with_notice(request, "/", notice, filters)

    # ── the queue ──────────────────────────────────────────────────────────────────────────────

    def controls(self, request: Request) -> Response:
        """Show holds, switches to pause and resume, and limits."""
        request.state.page_path = "/controls"  # the request may be a form that was refused
        queue, is_operator = reading(self._queue, request), request.state.namespace == ALL
        context = {
            "stages": list(Stage),
            "limits": queue.limits() if is_operator else None,
            "credits": queue.status().account.queued_credits,
        }
        return self._renderer.render(request, "controls.html", context)

    def pause(self, request: Request, form: Form) -> Response:
        """Pause the queue, a stage or a batch. Raises InvalidJobError, BatchNotFoundError."""
        stage, batch = _stage(form), form.get("batch") or None
        reason = " by ".join(filter(None, [form.get("reason", "")[:200], request.state.user.name]))
        changed = self._acting(request, form).pause(stage=stage, batch=batch, reason=reason)
        return self._show_controls(request, batch, f"{_target(stage, batch)} is {'' if changed else 'already '}paused.")

    def resume(self, request: Request, form: Form) -> Response:
        """Resume the queue, a stage or a batch. Raises InvalidJobError, BatchNotFoundError."""
        stage, batch = _stage(form), form.get("batch") or None
        changed = self._acting(request, form).resume(stage=stage, batch=batch)
        notice = f"{_target(stage, batch)} is {'resumed' if changed else 'not paused'}."
        return self._show_controls(request, batch, notice)

    def set_limits(self, request: Request, form: Form) -> Response:
        """Set the limits of all workers."""
        current = reading(self._queue, request).limits().as_text()
        try:
            values = read_fields({name: partial(_number, name, form[name]) for name in _LIMITS if name in form})
            # An unchanged limit is not set: it continues to follow the settings, if it does.
            changes = {name: value for name, value in values.items() if value is None or value != float(current[name])}
            _set_limits(self._acting(request, form), changes)
        except InvalidJobError as error:
            return self._renderer.resend(request, form, error, self.controls, name="limits", fields=_LIMITS)
        return self._show_controls(request, None, "The limits are saved.")

    def set_batch_limits(self, request: Request, form: Form) -> Response:
        """Set the limits of one batch; an empty field removes a limit. Raises BatchNotFoundError."""
        batch = form.get("batch", "")
        reading(self._queue, request).batch(batch)
        try:
            self._acting(request, form).set_batch_limits(batch, **_batch_limits(form))
        except InvalidJobError as error:
            show = partial(self._show_batch, batch=batch)
            return self._renderer.resend(request, form, error, show, name="batch", fields=_BATCH_LIMITS)
        return self._show_controls(request, batch, "The limits of the batch are saved.")

    def _show_controls(self, request: Request, batch: str | None, notice: str) -> Response:
        path, fields = ("/", {"batch": batch}) if batch else ("/controls", {})
        return self._renderer.redirect_with_notice(request, path, notice, fields)


def _decision(form: Form) -> ReviewRequest:
    """Return the decision about an unsure order. Raises InvalidJobError."""
    fields: dict[str, object] = {name: form[name] for name in ("decision", "task_id") if form.get(name)}
    attempt = parse_int(form.get("attempt", ""), at_most=2**31 - 1)
    return bodies.validate(ReviewRequest, {**fields, "attempt": attempt})


def _set_limits(queue: VoiceQueue, changes: Mapping[str, float | None]) -> None:
    """Set limits of all workers. Raises InvalidJobError."""
    try:
        queue.set_limits(**changes)
    except ValueError as error:
        name, _, message = str(error).partition(": ")
        raise InvalidJobError([Problem(name, message)]) from None


def _batch_limits(form: Form) -> BatchLimitChanges:
    """Return the limits in the form of a batch. Raises InvalidJobError with every invalid field."""
    readers: Mapping[str, Callable[[], float]] = {
        "max_credits": partial(_limit, form, "max_credits", 0),
        "max_in_flight": partial(_limit, form, "max_in_flight", 1),
        "stop_after": partial(_stop_after, form),
        "stop_min": partial(_limit, form, "stop_min", 1),
    }
    return cast(BatchLimitChanges, read_fields(readers))


_PAST = {BulkAction.RETRY: "Retried", BulkAction.CANCEL: "Cancelled"}


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


def _action(form: Form) -> BulkAction:
    try:
        return BulkAction(form.get("action", ""))
    except ValueError:
        raise InvalidJobError([Problem("action", f"must be {' or '.join(BulkAction)}")]) from None


def _stage(form: Form) -> Stage | None:
    try:
        return Stage(form["stage"]) if form.get("stage") else None
    except ValueError:
        raise InvalidJobError([Problem("stage", f"must be {' or '.join(Stage)}")]) from None


def _target(stage: Stage | None, batch: str | None) -> str:
    if batch is not None:
        return f"Batch {batch}"
    return "The queue" if stage is None else f"The {stage} stage"


def _number(name: str, text: str) -> float | None:
    """Return the number in a field, None if it is empty. Raises InvalidJobError."""
    if not text:
        return None
    if (number := parse_float(text)) is None:
        raise InvalidJobError([Problem(name, "must be a number")])
    return number


def _limit(form: Form, name: str, least: int) -> float:
    number = _number(name, form.get(name, ""))
    if number is None:
        return inf
    if not (least <= number <= 10**12 and number == int(number)):
        raise InvalidJobError([Problem(name, f"must be a whole number of {least} or more, or empty for no limit")])
    return number


def _stop_after(form: Form) -> float:
    """Return the limit of failed jobs, which the form takes as a percentage. Raises InvalidJobError."""
    text = form.get("stop_after", "").strip().removesuffix("%")
    try:
        return parse_fraction(f"{text}%") if text else inf
    except ValueError:
        message = "must be a percentage above 0 and at most 100, or empty for no limit"
        raise InvalidJobError([Problem("stop_after", message)]) from None


def router(queue: VoiceQueue, renderer: PageRenderer, show_batch: Callable[..., Response]) -> APIRouter:
    """Return the routes that need the scope `operate` or `review`, and the controls, which need `read`."""
    actions = Actions(queue, renderer, show_batch)
    routes = APIRouter()
    routes.include_router(_review_routes(actions, renderer))
    routes.include_router(_job_routes(actions, renderer))
    routes.include_router(_queue_routes(actions, renderer))

    readable = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @readable.get("/controls")
    def controls(request: Request) -> Response:
        return actions.controls(request)

    routes.include_router(readable)
    return routes


def _review_routes(actions: Actions, renderer: PageRenderer) -> APIRouter:
    routes = APIRouter(
        prefix="/job/{job_id}", dependencies=[Depends(renderer.require_review)], route_class=renderer.route_class()
    )

    @routes.get("/review")
    def confirm_review(request: Request, job_id: str) -> Response:
        return actions.confirm_review(request, job_id)

    @routes.post("/review")
    async def review(request: Request, job_id: str) -> Response:
        return await run_in_threadpool(actions.review, request, await renderer.form(request), job_id)

    return routes


def _job_routes(actions: Actions, renderer: PageRenderer) -> APIRouter:
    routes = APIRouter(
        prefix="/job/{job_id}", dependencies=[Depends(renderer.require_operate)], route_class=renderer.route_class()
    )

    @routes.post("/redeliver")
    async def redeliver(request: Request, job_id: str) -> Response:
        return await run_in_threadpool(actions.redeliver, request, await renderer.form(request), job_id)

    @routes.get("/{action}")
    def confirm(request: Request, job_id: str, action: BulkAction) -> Response:
        return actions.confirm(request, job_id, action)

    @routes.post("/{action}")
    async def apply(request: Request, job_id: str, action: BulkAction) -> Response:
        return await run_in_threadpool(actions.apply, request, await renderer.form(request), job_id, action)

    return routes


def _queue_routes(actions: Actions, renderer: PageRenderer) -> APIRouter:
    routes = APIRouter(
        prefix="/do", dependencies=[Depends(renderer.require_operate)], route_class=renderer.route_class()
    )

    @routes.post("/plan")
    async def plan(request: Request) -> Response:
        return await run_in_threadpool(actions.plan, request, await renderer.form(request))

    @routes.post("/execute")
    async def execute(request: Request) -> Response:
        return await run_in_threadpool(actions.execute, request, await renderer.form(request))

    @routes.post("/pause")
    async def pause(request: Request) -> Response:
        return await run_in_threadpool(actions.pause, request, await renderer.form(request))

    @routes.post("/resume")
    async def resume(request: Request) -> Response:
        return await run_in_threadpool(actions.resume, request, await renderer.form(request))

    @routes.post("/limits")
    async def limits(request: Request) -> Response:
        return await run_in_threadpool(actions.set_limits, request, await renderer.form(request))

    @routes.post("/batch")
    async def batch(request: Request) -> Response:
        return await run_in_threadpool(actions.set_batch_limits, request, await renderer.form(request))

    return routes
