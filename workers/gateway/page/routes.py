"""The routes of the job page: login, logout, and those of the other modules."""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from workers.gateway.page import (
    actions,
    audit_log,
    callbacks,
    erasure,
    export,
    keys,
    processes,
    rejected_messages,
    spending,
    views,
    voices,
)
from workers.gateway.page.base import HERE, MAX_FORM_BYTES, Form, PageRenderer
from workers.gateway.page.filters import safe_path
from workers.gateway.page.forms import FormState
from workers.gateway.page.services import PageServices
from workers.gateway.security.access import AccessControl
from workers.gateway.security.browser_policy import SecureStaticFiles
from workers.gateway.security.sessions import SessionManager, TooManyLoginsError
from workers.gateway.server import bodies

#: What the login page says, by how the user came there.
REASONS = {
    "link": "The token in this link is invalid or has expired.",
    "form": "Your login has ended, so the form was not sent and nothing was changed. Log in, and send it again.",
}


class LoginPage:
    """The login page."""

    def __init__(self, renderer: PageRenderer, access: AccessControl, sessions: SessionManager) -> None:
        self._renderer = renderer
        self._access = access
        self._sessions = sessions

    def show(self, request: Request, next_path: str, error: str = "") -> Response:
        """Render the login form. Raises ProblemError."""
        self._access.check_source(request)
        if "token" in request.query_params:
            return self._renderer.log_in_with_link(request, next_path)
        context = {"next": next_path, "error": error, "is_local": self._access.local is not None}
        return self._renderer.render(request, "login.html", context)

    def log_in(self, request: Request, form: Form) -> Response:
        """Create a session. Raises ProblemError, StoreUnavailableError."""
        self._access.check_source(request)
        next_path, address = safe_path(form.get("next", "/")), request.client.host if request.client else ""
        try:
            before = self._renderer.session_token(request)
            token = self._sessions.log_in(form.get("key", ""), address=address, previous_token=before)
        except TooManyLoginsError as error:
            return self._retry_later(request, next_path, ceil(error.wait_s))
        if token is None:
            return self._refuse(request, next_path, "This key is not valid.", status=401)
        return self._renderer.start_session(request, token, next_path)

    def _refuse(self, request: Request, next_path: str, error: str, *, status: int) -> Response:
        """Show the form again, without the key that was entered."""
        form = FormState("login", {}, {"key": error})
        return self._renderer.refuse(request, form, partial(self.show, next_path=next_path), status=status)

    def _retry_later(self, request: Request, next_path: str, wait_s: int) -> Response:
        error = f"Too many failed logins from your address. Try again in {wait_s} seconds."
        response = self._refuse(request, next_path, error, status=429)
        response.headers["Retry-After"] = str(wait_s)
        return response


def router(services: PageServices) -> APIRouter:
    """Return the routes of all pages."""
    queue, renderer, access = services.queue, services.renderer, services.access
    login_page = LoginPage(renderer, access, services.sessions)
    shown = views.Views(services)
    routes = APIRouter(include_in_schema=False, route_class=renderer.route_class())
    routes.include_router(views.router(shown, renderer, services.broadcaster))
    routes.include_router(actions.router(queue, renderer, shown.batch))
    routes.include_router(erasure.router(queue, renderer))
    routes.include_router(audit_log.router(queue, renderer))
    routes.include_router(keys.router(queue, access, renderer))
    routes.include_router(spending.router(queue, renderer))
    routes.include_router(export.router(queue, renderer))
    routes.include_router(callbacks.router(queue, renderer))
    routes.include_router(voices.router(queue, renderer))
    routes.include_router(rejected_messages.router(queue, renderer))
    routes.include_router(processes.router(services))

    @routes.get("/login")
    def login(request: Request, next_path: Annotated[str, Query(alias="next")] = "/", by: str = "") -> Response:
        return login_page.show(request, safe_path(next_path), REASONS.get(by, ""))

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        form = await bodies.read_form(request, MAX_FORM_BYTES)
        return await run_in_threadpool(login_page.log_in, request, form)

    @routes.post("/logout", dependencies=[Depends(renderer.require_login)])
    async def log_out(request: Request) -> Response:
        form = await renderer.form(request)
        return await run_in_threadpool(renderer.end_session, request, everywhere="everywhere" in form)

    return routes


def files() -> SecureStaticFiles:
    """Return the static files of the pages."""
    return SecureStaticFiles(directory=HERE / "static")
