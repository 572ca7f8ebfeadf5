"""Routes of budgets, and of reports of spending."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import Budget, VoiceQueue
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.spending import SpendingGroup
from workers.gateway.api import schemas
from workers.gateway.api.checked import checked
from workers.gateway.api.list_schemas import BudgetList, SpendingReport, page_end
from workers.gateway.api.schemas import ChangeReason
from workers.gateway.openapi import json_body, problems, response_of
from workers.gateway.security.access import AccessControl, acting, reading, require_operator
from workers.gateway.server import bodies

_Owner = Annotated[
    str,
    Path(
        pattern=r"^(account|(namespace|key)/.{0,64})$",
        description="`account`, `namespace/NAME` (`namespace/` is the default one), or `key/NAME`.",
    ),
]
_GROUP = "|".join(SpendingGroup)
_By = Annotated[
    str,
    Query(
        pattern=f"^({_GROUP})(,({_GROUP}))*$",
        description=f"Columns, separated by commas: {', '.join(SpendingGroup)}. `key` cannot be combined with "
        "`namespace` or `batch`.",
    ),
]
_Since = Annotated[
    schemas.Day | None, Query(description="Only charges on this day (UTC) or later. Days are counted for 400 days.")
]


def router(queue: VoiceQueue, access: AccessControl) -> APIRouter:
    """Return the routes of budgets and spending."""
    routes = APIRouter(tags=["Spending"])
    _add_budget_routes(routes, queue, access)

    @routes.get(
        "/v1/spend",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(SpendingReport, "The report."), **problems(401, 403, 422, 503)},
    )
    async def get_spending(request: Request, by: _By = "month", since: _Since = None) -> JSONResponse:
        """Report the credits that were charged.

        All reports of the same jobs have the same sum. A key of one namespace sees what its namespace spent.
        """

        def read() -> SpendingReport:
            rows = reading(queue, request).spending(by.split(","), since=since)
            data, credits = [row.as_dict() for row in rows], sum(row.credits for row in rows)
            return {"data": data, "credits": credits, **page_end()}

        return JSONResponse(await run_in_threadpool(checked, read, "by"))

    return routes


def _add_budget_routes(routes: APIRouter, queue: VoiceQueue, access: AccessControl) -> None:
    @routes.get(
        "/v1/budgets",
        dependencies=access.require(Scope.READ),
        responses={200: response_of(BudgetList, "The budgets."), **problems(401, 403, 422, 503)},
    )
    async def list_budgets(request: Request) -> JSONResponse:
        """List the budgets, with what was spent and what is left.

        A key of one namespace sees the budgets of its namespace, and of the API keys in Redis that belong to it.
        """
        return _listed(await run_in_threadpool(reading(queue, request).budgets))

    @routes.put(
        "/v1/budgets/{owner:path}",
        dependencies=access.require(Scope.OPERATE),
        responses={
            200: response_of(BudgetList, "The budgets of the owner as they are now."),
            **problems(400, 401, 403, 408, 409, 413, 415, 422, 503),
        },
        openapi_extra=json_body("BudgetLimits", {"A day and a month": {"day": 500, "month": 9000}}),
    )
    async def set_budget(request: Request, owner: _Owner, reason: ChangeReason = "") -> JSONResponse:
        """Set what an owner may spend, for keys of namespace `*`.

        It replaces the whole budget, in force at once: a period that is not sent, or null, has no limit. An API key in
        Redis has its budget in its own limits (`/v1/keys`).
        """
        require_operator(request, "set_budget")
        limits = bodies.validate(schemas.BudgetLimits, await bodies.read_json(request))
        caller = acting(queue, request, reason)

        def change() -> list[Budget]:
            caller.set_budget(owner, day=limits.day, month=limits.month, hard=limits.hard)
            if "callback_url" in limits.model_fields_set:
                caller.set_budget_callback(owner, limits.callback_url)
            return [budget for budget in caller.budgets() if budget.owner == owner]

        return _listed(await run_in_threadpool(checked, change, field="owner"))


def _listed(budgets: list[Budget]) -> JSONResponse:
    body: BudgetList = {"data": [budget.as_dict() for budget in budgets], **page_end()}
    return JSONResponse(body)
