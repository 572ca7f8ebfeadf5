"""The pages that erase a person: a form, the plan with a confirmation, and the certificate."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import InvalidJobError, Problem, VoiceQueue
from voicequeue.auth.api_keys import Scope
from workers.gateway.page.base import Form, PageRenderer
from workers.gateway.security.access import acting, reading, require_also


class ErasurePages:
    """The pages, for users with the scope `admin`. Each acts in the namespace of the user's key."""

    def __init__(self, queue: VoiceQueue, renderer: PageRenderer) -> None:
        self._queue = queue
        self._renderer = renderer

    async def require(self, request: Request) -> None:
        """Require the scopes `read` and `admin`. Raises Redirected, ProblemError, StoreUnavailableError."""
        await self._renderer.require_read(request)
        require_also(request, Scope.ADMIN)

    def ask(self, request: Request) -> Response:
        """Show the form."""
        return self._renderer.render(request, "erase.html")

    def plan(self, request: Request, form: Form) -> Response:
        """Plan the erasure, and ask for confirmation."""
        try:
            metadata = _metadata(form.get("metadata", ""))
            plan = reading(self._queue, request).plan_erasure(metadata)
        except InvalidJobError as error:
            return self._renderer.resend(request, form, error, self.ask, name="erase", fields=["metadata"])
        return self._renderer.render(request, "erase_plan.html", {"plan": plan, "metadata": metadata})

    def execute(self, request: Request, form: Form) -> Response:
        """Erase, and show the certificate; the same form shows it again. Raises PlanNotFoundError."""
        queue = acting(self._queue, request, form.get("reason", "")[:200])
        return self._renderer.render(request, "erase_done.html", {"erased": queue.erase(form.get("plan", ""))})


def _metadata(text: str) -> dict[str, str]:
    """Return the metadata of the form, one NAME=VALUE per line. Raises InvalidJobError."""
    pairs = [line.strip().partition("=") for line in text.splitlines() if line.strip()]
    if not pairs or not all(name and equals and value for name, equals, value in pairs):
        raise InvalidJobError([Problem("metadata", "must be NAME=VALUE, one per line, such as subject=42")])
    return {name: value for name, _, value in pairs}


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the routes, which need the scope `admin`."""
    pages = ErasurePages(queue, renderer)
    routes = APIRouter(prefix="/erase", dependencies=[Depends(pages.require)], route_class=renderer.route_class())

    @routes.get("")
    def ask(request: Request) -> Response:
        return pages.ask(request)

    @routes.post("/plan")
    async def plan(request: Request) -> Response:
        return await run_in_threadpool(pages.plan, request, await renderer.form(request))

    @routes.post("/execute")
    async def execute(request: Request) -> Response:
        return await run_in_threadpool(pages.execute, request, await renderer.form(request))

    return routes
