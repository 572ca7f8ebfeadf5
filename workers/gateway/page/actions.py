"""The pages that do: each shows how many jobs and what it costs before it does anything."""

from __future__ import annotations

from math import inf
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import Action, InvalidJob, Job, Problem, Stage, VoiceQueue
from voicequeue.domain import transitions
from voicequeue.domain.stage import PRICES
from voicequeue.texts import real_number
from workers.gateway.page.base import Form, Frame
from workers.gateway.page.views import asked_for

#: What of a form says which jobs are meant.
_FILTER = ("state", "batch", "code", "q")

_LIMITS = ("in_flight", "submit_rate", "credit_floor")


class Doing:
    """Asks first, then does it, then tells what was done on the page where one goes on."""

    def __init__(self, queue: VoiceQueue, frame: Frame) -> None:
        self._queue = queue
        self._frame = frame

    # ── one job ────────────────────────────────────────────────────────────────────────────────

    def ask(self, request: Request, job_id: str, action: Action) -> Response:
        """Whether to retry or cancel this job. Raises UnknownJob, NotAllowed."""
        job = self._queue.get(job_id)
        if action is Action.CANCEL:
            transitions.not_over(job)
            return self._frame.rendered(request, "cancel.html", {"job": job})
        transitions.retry(job, 0.0)
        orders_anew = job.may_still_come
        about = {
            "credits": transitions.cost(job),
            "pays_again": transitions.pays_again(job),
            "orders_anew": orders_anew,
        }
        anew = {"credits_anew": transitions.cost(job, resubmit=True), "price": PRICES[job.stage]}
        return self._frame.rendered(request, "retry.html", {"job": job, **about, **anew})

    def do(self, form: Form, job_id: str, action: Action) -> Response:
        """Retry or cancel it. Raises UnknownJob, NotAllowed."""
        if action is Action.CANCEL:
            job = self._queue.cancel(job_id)
        else:
            job = self._queue.retry(job_id, resubmit="resubmit" in form)
        if job.cancelling:
            return self._on_to(job, f"The job is {job.state.value}. No further stage is ordered for it.")
        return self._on_to(job, f"The job is {job.state.value} now.")

    def ask_review(self, request: Request, job_id: str) -> Response:
        """What to make of an unsure job. Raises UnknownJob, NotAllowed."""
        return self._frame.rendered(request, "review.html", {"unsure": self._queue.review(job_id)})

    def review(self, form: Form, job_id: str) -> Response:
        """Settle an unsure job. Raises InvalidJob, UnknownJob, NotAllowed."""
        match form.get("verdict"):
            case "charged":
                if not form.get("task_id"):
                    raise InvalidJob([Problem("task_id", "is needed: upstream's id of the task")])
                job = self._queue.take_up(job_id, form["task_id"])
            case "again":
                job = self._queue.order_again(job_id)
            case "abandon":
                job = self._queue.abandon(job_id)
            case _:
                raise InvalidJob([Problem("verdict", "must be charged, again or abandon")])
        return self._on_to(job, f"The job is {job.state.value} now.")

    def redeliver(self, job_id: str) -> Response:
        """Send what was not delivered again. Raises UnknownJob."""
        job = self._queue.get(job_id)
        found = self._queue.redeliver([job.callback_id] if job.callback_id else [])
        return self._on_to(job, "The callback is sent again now." if found else "There was nothing to deliver.")

    def _on_to(self, job: Job, told: str) -> Response:
        return self._frame.done(f"/job/{job.id}", told)

    # ── many jobs ──────────────────────────────────────────────────────────────────────────────

    def plan(self, request: Request, form: Form) -> Response:
        """Freeze the list of what would be retried or cancelled, and ask. Raises InvalidJob, UnknownBatch."""
        wanted = {name: form.get(name, "") for name in _FILTER}
        plan = self._queue.plan(_action(form), asked_for(wanted), resubmit="resubmit" in form)
        given = {name: value for name, value in wanted.items() if value}
        return self._frame.rendered(request, "plan.html", {"plan": plan, "given": given})

    def carry_out(self, form: Form) -> Response:
        """Do what was planned. Raises InvalidJob, UnknownPlan."""
        action = _action(form)
        done = self._queue.carry_out(action, form.get("plan", ""))
        told = f"{done.changed:,} of {done.found:,} jobs {_PAST[action]}."
        if done.marked:
            told += f" {done.marked:,} are being charged or unsure: no further stage is ordered for them."
        if done.moved_on:
            told += f" {done.moved_on:,} had moved on meanwhile, and were left alone."
        given = {name: form[name] for name in ("batch",) if form.get(name)}
        return self._frame.done(f"/?{urlencode(given)}" if given else "/", told)

    # ── the whole ──────────────────────────────────────────────────────────────────────────────

    def controls(self, request: Request) -> Response:
        """What holds charges back, and the limits."""
        about = {"limits": self._queue.limits(), "credits": self._queue.status().backlog_credits}
        return self._frame.rendered(request, "controls.html", {"stages": list(Stage), **about})

    def pause(self, request: Request, form: Form) -> Response:
        """Charge nothing more. Raises InvalidJob, UnknownBatch."""
        stage, batch = _stage(form), form.get("batch") or None
        said = " by ".join(filter(None, [form.get("why", "")[:200], request.state.visitor.name]))
        changed = self._queue.pause(stage=stage, batch=batch, by=said)
        return self._back(batch, f"{_what(stage, batch)} is paused{'' if changed else ' already'}.")

    def resume(self, form: Form) -> Response:
        """Go on. Raises InvalidJob, UnknownBatch."""
        stage, batch = _stage(form), form.get("batch") or None
        changed = self._queue.resume(stage=stage, batch=batch)
        return self._back(batch, f"{_what(stage, batch)} goes on{'' if changed else ' already'}.")

    def limit(self, form: Form) -> Response:
        """Set the limits of all workers. Raises InvalidJob."""
        now = self._queue.limits().as_text()
        given = {name: _number(name, form[name]) for name in _LIMITS if name in form}
        # What was left as it is goes on following the settings, if it does.
        wanted = {name: value for name, value in given.items() if value is None or value != float(now[name])}
        try:
            self._queue.set_limits(**wanted)
        except ValueError as error:
            name, _, message = str(error).partition(": ")
            raise InvalidJob([Problem(name, message)]) from None
        return self._back(None, "The limits are set.")

    def limit_batch(self, form: Form) -> Response:
        """Set the limits of one batch; what is empty is none. Raises InvalidJob, UnknownBatch."""
        batch = self._queue.batch(form.get("batch", "")).name
        credits, in_flight = (_least(form, name, least) for name, least in (("max_credits", 0), ("max_in_flight", 1)))
        self._queue.limit_batch(batch, max_credits=credits, max_in_flight=in_flight)
        return self._back(batch, "The limits of the batch are set.")

    def _back(self, batch: str | None, told: str) -> Response:
        return self._frame.done(f"/?{urlencode({'batch': batch})}" if batch else "/controls", told)


_PAST = {Action.RETRY: "are retried", Action.CANCEL: "are cancelled"}


def _action(form: Form) -> Action:
    try:
        return Action(form.get("action", ""))
    except ValueError:
        raise InvalidJob([Problem("action", f"must be {' or '.join(Action)}")]) from None


def _stage(form: Form) -> Stage | None:
    try:
        return Stage(form["stage"]) if form.get("stage") else None
    except ValueError:
        raise InvalidJob([Problem("stage", f"must be {' or '.join(Stage)}")]) from None


def _what(stage: Stage | None, batch: str | None) -> str:
    if batch is not None:
        return f"Batch {batch}"
    return "Everything" if stage is None else f"The {stage} stage"


def _number(name: str, given: str) -> float | None:
    """None where nothing stands there."""
    if not given:
        return None
    if (found := real_number(given)) is None:
        raise InvalidJob([Problem(name, "must be a number")])
    return found


def _least(form: Form, name: str, least: int) -> float:
    found = _number(name, form.get(name, ""))
    if found is None:
        return inf
    if not (least <= found <= 10**12 and found == int(found)):
        raise InvalidJob([Problem(name, f"must be a whole number from {least} on, or nothing")])
    return found


def router(queue: VoiceQueue, frame: Frame) -> APIRouter:
    """What those do who may operate; the controls are shown to all who may read."""
    doing = Doing(queue, frame)
    routes = APIRouter()
    routes.include_router(_of_one(doing, frame))
    routes.include_router(_of_many(doing, frame))

    shown = APIRouter(dependencies=[Depends(frame.admit)], route_class=frame.route())

    @shown.get("/controls")
    def controls(request: Request) -> Response:
        return doing.controls(request)

    routes.include_router(shown)
    return routes


def _of_one(doing: Doing, frame: Frame) -> APIRouter:
    routes = APIRouter(prefix="/job/{job_id}", dependencies=[Depends(frame.operator)], route_class=frame.route())

    @routes.get("/review")
    def ask_review(request: Request, job_id: str) -> Response:
        return doing.ask_review(request, job_id)

    @routes.post("/review")
    async def review(request: Request, job_id: str) -> Response:
        return await run_in_threadpool(doing.review, await frame.form(request), job_id)

    @routes.post("/redeliver")
    async def redeliver(request: Request, job_id: str) -> Response:
        await frame.form(request)
        return await run_in_threadpool(doing.redeliver, job_id)

    @routes.get("/{action}")
    def ask(request: Request, job_id: str, action: Action) -> Response:
        return doing.ask(request, job_id, action)

    @routes.post("/{action}")
    async def do(request: Request, job_id: str, action: Action) -> Response:
        return await run_in_threadpool(doing.do, await frame.form(request), job_id, action)

    return routes


def _of_many(doing: Doing, frame: Frame) -> APIRouter:
    routes = APIRouter(prefix="/do", dependencies=[Depends(frame.operator)], route_class=frame.route())

    @routes.post("/plan")
    async def plan(request: Request) -> Response:
        return await run_in_threadpool(doing.plan, request, await frame.form(request))

    @routes.post("/carry-out")
    async def carry_out(request: Request) -> Response:
        return await run_in_threadpool(doing.carry_out, await frame.form(request))

    @routes.post("/pause")
    async def pause(request: Request) -> Response:
        return await run_in_threadpool(doing.pause, request, await frame.form(request))

    @routes.post("/resume")
    async def resume(request: Request) -> Response:
        return await run_in_threadpool(doing.resume, await frame.form(request))

    @routes.post("/limits")
    async def limits(request: Request) -> Response:
        return await run_in_threadpool(doing.limit, await frame.form(request))

    @routes.post("/batch")
    async def batch(request: Request) -> Response:
        return await run_in_threadpool(doing.limit_batch, await frame.form(request))

    return routes
