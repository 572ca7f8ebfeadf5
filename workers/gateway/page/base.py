"""The common parts of all pages: layout, access control, forms, and error pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from voicequeue import Clip, InvalidJobError, State, StoreUnavailableError, VoiceQueue, VoiceQueueError
from voicequeue.auth import signatures
from voicequeue.auth.api_keys import Scope
from voicequeue.domain.namespaces import ALL
from voicequeue.storage.sessions import SESSION_S
from voicequeue.version import VERSION
from workers.gateway import problems
from workers.gateway.page import error_pages, filters
from workers.gateway.page.forms import FormState, refused
from workers.gateway.page.links import UrlPolicy
from workers.gateway.page.namespaces import context_of, limit_page, path_in
from workers.gateway.problems import ProblemError
from workers.gateway.security.access import AccessControl, reading, require_operator
from workers.gateway.security.sessions import SessionManager, SessionUser
from workers.gateway.server import bodies

HERE = Path(__file__).parent

#: The largest form (bytes); more than any of the pages' forms has.
MAX_FORM_BYTES = 8_192

#: Pages load only their own files; the page of a job also its songs and covers.
HEADERS = {
    "Content-Security-Policy": UrlPolicy("").policy([], []),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Form = dict[str, str]

#: The values of `Sec-Fetch-Site` of requests that pages of other sites cause.
_OTHER_SITES = ("cross-site", "same-site")


class Redirected(Exception):
    """Raised instead of rendering a page; `response` redirects to another one."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class DoneRedirect(RedirectResponse):
    """Redirects to another page, which shows a notice of what was done."""

    def __init__(self, path: str, notice: str) -> None:
        super().__init__(path, 303, headers=HEADERS)
        self.notice = notice


class PageRenderer:
    """Renders the pages of one queue and checks access to them. `cookie` is the name of the session cookie."""

    def __init__(self, queue: VoiceQueue, access: AccessControl, sessions: SessionManager, *, cookie: str) -> None:
        self._queue = queue
        self._access = access
        self._sessions = sessions
        self._cookie = cookie

    # ── access ────────────────────────────────────────────────────────────────────────────────────

    async def require_login(self, request: Request) -> None:
        """Set the user of the session as `request.state.user`.

        Raises Redirected, ProblemError, StoreUnavailableError.
        """
        await run_in_threadpool(self._access.check_source, request)
        if request.method == "GET" and "token" in request.query_params:
            raise Redirected(await run_in_threadpool(self.log_in_with_link, request, _next_path(request)))
        token = self.session_token(request)
        user = await run_in_threadpool(self._sessions.user_of, token)
        if user is None:
            raise Redirected(self._without_session(request))
        request.state.user = user
        # Checked again each time: a session ends at once, for every gateway.
        await self._access.admit(request, user.key, partial(self._sessions.key_of, token), valid_s=0.0)
        limit_page(request)

    async def require_read(self, request: Request) -> None:
        """Require a session and the scope `read`.

        Raises Redirected, ProblemError, StoreUnavailableError.
        """
        await self.require_login(request)
        _require(request.state.user, Scope.READ)

    async def require_operate(self, request: Request) -> None:
        """Require the scope `operate` too. Raises Redirected, ProblemError, StoreUnavailableError."""
        await self.require_read(request)
        _require(request.state.user, Scope.OPERATE)

    async def require_review(self, request: Request) -> None:
        """Require the scope `review` besides `read`. Raises Redirected, ProblemError, StoreUnavailableError."""
        await self.require_read(request)
        _require(request.state.user, Scope.REVIEW)

    async def require_admin(self, request: Request) -> None:
        """Require the scope `admin` besides `read`, and the namespace `*`.

        Raises Redirected, ProblemError, NotOperatorError, StoreUnavailableError.
        """
        await self.require_read(request)
        _require(request.state.user, Scope.ADMIN)
        require_operator(request, "managing API keys")

    async def form(self, request: Request) -> Form:
        """Return the fields of a form of this session.

        Raises ProblemError if its CSRF token is wrong; InvalidJobError.
        """
        fields = await bodies.read_form(request, MAX_FORM_BYTES)
        if not signatures.equals_constant_time(request.state.user.csrf_token, fields.get("token", "")):
            raise ProblemError(403, "This form is not of your present login.", code=error_pages.EXPIRED_FORM)
        return {name: value.strip() for name, value in fields.items()}

    def session_token(self, request: Request) -> str:
        """Return the token of the browser's session; '' if it has none."""
        return request.cookies.get(self._cookie, "")

    def log_in_with_link(self, request: Request, next_path: str) -> Response:
        """Log in with the local token in the URL, and redirect to the URL without it."""
        token = self._sessions.log_in_with_link(
            request.query_params["token"], previous_token=self.session_token(request)
        )
        return _to_login(next_path, by="link") if token is None else self.start_session(request, token, next_path)

    def start_session(self, request: Request, token: str, next_path: str) -> Response:
        """Redirect, with the session's token in a cookie that scripts cannot read and other sites cannot send."""
        response = RedirectResponse(next_path, 303, headers=HEADERS)
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(self._cookie, token, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return response

    def end_session(self, request: Request, *, everywhere: bool) -> Response:
        """End the session, or all sessions of its key, and redirect to the login."""
        self._sessions.log_out(request.state.user, everywhere=everywhere)
        response = RedirectResponse("/login", 303, headers=HEADERS)
        response.delete_cookie(self._cookie)
        return response

    def _without_session(self, request: Request) -> Response:
        """Return the response to a browser that sent no valid session."""
        if request.method != "GET":
            return _to_login(_referring_path(request), by="form")
        if request.headers.get("sec-fetch-site") in _OTHER_SITES:
            # The browser withholds the cookie when a page of another site links here: it sends it from this page.
            return self.render(request, "reopen.html", {"path": _next_path(request)})
        return _to_login(_next_path(request))

    def _identify(self, request: Request) -> None:
        """Set the user of the session, if there is one, for an error before its check."""
        with suppress(StoreUnavailableError, ProblemError):
            self._access.check_source(request)
            if user := self._sessions.user_of(self.session_token(request)):
                request.state.user, request.state.namespace = user, user.namespace

    # ── rendering ───────────────────────────────────────────────────────────────────────────────────

    def render(
        self,
        request: Request,
        name: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        clips: Sequence[Clip] = (),
    ) -> Response:
        """Render a page, with the summary if the user may read. Raises StoreUnavailableError.

        `clips` are those whose covers and songs the page loads.
        """
        who: SessionUser | None = getattr(request.state, "user", None)
        is_away = getattr(request.state, "is_away", False)
        reader = who if who is not None and who.has_scope(Scope.READ) and not is_away else None
        summary = reading(self._queue, request).status() if reader else None
        notice = self._sessions.take_notice(reader) if reader else ""
        now = time.time() if summary is None else summary.at
        operates = who is not None and who.has_scope(Scope.OPERATE)
        links = UrlPolicy(request.headers.get("host", ""))
        policy = links.policy((clip.image_url for clip in clips), (clip.audio_url for clip in clips))
        headers = {**HEADERS, "Content-Security-Policy": policy}
        context = {
            "who": who,
            "operates": operates,
            "administers": who is not None and who.has_scope(Scope.ADMIN) and who.namespace == ALL,
            "reviews": who is not None and who.has_scope(Scope.REVIEW),
            "status": summary,
            "states": list(State),
            "now": now,
            "notice": notice,
            "error": "",
            "is_refused": hasattr(request.state, "refused"),
            "page_path": getattr(request.state, "page_path", request.url.path),
            "form": partial(_form_state, getattr(request.state, "refused", None)),
            "links": links,
            "policy": policy,
            **context_of(request, self._namespaces(reader)),
            **(context or {}),
        }
        return _templates().TemplateResponse(request, name, context, status_code=status, headers=headers)

    def _namespaces(self, reader: SessionUser | None) -> list[str]:
        """Return the namespaces that the user may choose from."""
        return [] if reader is None or reader.namespace != ALL else self._queue.namespaces()

    def render_error(self, request: Request, error: Exception) -> Response:
        """Render the error page of an exception."""
        if isinstance(error, VoiceQueueError | HTTPException):
            return self.render_problem(request, problems.from_exception(error), getattr(error, "headers", None))
        return self.render_problem(request, error_pages.INVALID_URL)

    def render_problem(
        self, request: Request, problem: problems.ProblemDetails, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Render an error page: what happened, and what to do."""
        retry_after = problems.retry_after(problem["status"], headers)
        # A summary would cost what there is too little of, or is what failed.
        request.state.is_away = bool(retry_after) or problem["status"] == HTTPStatus.INTERNAL_SERVER_ERROR
        if not hasattr(request.state, "user") and not request.state.is_away:
            self._identify(request)
        try:
            context = error_pages.context_of(problem, request.url.path, retry_after.get("Retry-After"))
            response = self.render(request, "error.html", context, status=problem["status"])
        except StoreUnavailableError as outage:
            return self.render_error(request, outage)
        response.headers.update({**(headers or {}), **retry_after})
        return response

    def refuse(
        self,
        request: Request,
        form: FormState,
        show: Callable[[Request], Response],
        *,
        status: int = 422,
    ) -> Response:
        """Show the page of a form again, with what was entered and its errors."""
        request.state.refused = form
        response = show(request)
        response.status_code = status
        return response

    def resend(
        self,
        request: Request,
        entered: Form,
        error: InvalidJobError,
        show: Callable[[Request], Response],
        *,
        name: str,
        fields: Iterable[str] = (),
    ) -> Response:
        """Show the page of the form `name` again, which has these fields."""
        return self.refuse(request, refused(name, entered, error, {field: field for field in fields}), show)

    def redirect_with_notice(
        self, request: Request, path: str, notice: str, fields: Mapping[str, str] | None = None
    ) -> Response:
        """Redirect to another page in the same namespace, which shows the notice."""
        return DoneRedirect(path_in(request, path, fields), notice)

    def keep_notice(self, user: SessionUser, notice: str) -> None:
        """Keep a notice for the next page, in the session, which other sites cannot write to."""
        with suppress(StoreUnavailableError):  # the change is made nevertheless
            self._sessions.put_notice(user, notice)

    def route_class(self) -> type[APIRoute]:
        """Return the class of page routes, whose errors are pages instead of JSON."""
        renderer = self

        class PageRoute(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                handle = super().get_route_handler()

                async def handle_with_error_page(request: Request) -> Response:
                    try:
                        response = await handle(request)
                    except (VoiceQueueError, HTTPException, RequestValidationError) as error:
                        return await run_in_threadpool(renderer.render_error, request, error)
                    if isinstance(response, DoneRedirect):
                        await run_in_threadpool(renderer.keep_notice, request.state.user, response.notice)
                    return response

                return handle_with_error_page

        return PageRoute


@cache
def _templates() -> Jinja2Templates:
    """Return the templates, which are compiled once in a process."""
    environment = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(filters.FILTERS)
    environment.globals["VERSION"] = VERSION
    return Jinja2Templates(env=environment)


def on_redirect(_: Request, error: Exception) -> Response:
    """Return the response of a Redirected exception."""
    assert isinstance(error, Redirected)  # noqa: S101  the type that it is registered for
    return error.response


def _to_login(next_path: str, **more: str) -> Response:
    return RedirectResponse(f"/login?{urlencode({'next': next_path, **more})}", 303, headers=HEADERS)


def _next_path(request: Request) -> str:
    """Return the path and query of this page without the token that a link may carry."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
    return filters.safe_path(f"{request.url.path}?{query}".rstrip("?"))


def _referring_path(request: Request) -> str:
    """Return the path of the page with the form that was sent; `/` if the browser does not say."""
    referer = urlsplit(request.headers.get("referer", ""))
    is_own = referer.netloc == request.headers.get("host")
    # The pages that forms lead to have no address of their own.
    is_page = not referer.path.startswith("/do/") and not referer.path.endswith("/plan")
    return filters.safe_path(f"{referer.path}?{referer.query}".rstrip("?")) if is_own and is_page else "/"


def _require(user: SessionUser, scope: Scope) -> None:
    if not user.has_scope(scope):
        raise ProblemError(403, f"Your API key needs the scope {scope}.")


def _form_state(refused_form: FormState | None, name: str) -> FormState:
    """Return the form of that name as it was refused; else one that was not sent."""
    return refused_form if refused_form is not None and refused_form.name == name else FormState(name)
