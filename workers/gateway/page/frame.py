"""What all pages have in common: their frame, who may see them, forms, and troubles told as pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from voicequeue import State, StoreUnreachable, VoiceQueue, VoiceQueueError, signing
from voicequeue.apikeys import Scope
from workers.gateway import bodies, problems
from workers.gateway.access import Access
from workers.gateway.page import words
from workers.gateway.problems import Refusal
from workers.gateway.session import Visitor

HERE = Path(__file__).parent

#: More than any form has (bytes).
FORM_MAX = 8_192

#: How long (seconds) is remembered, for the next page, what was done.
TOLD_S = 60

#: Nothing but the page's own files runs or is shown in it; songs and covers come from wherever they lie.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src http: https:; img-src 'self' http: https:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Form = dict[str, str]


class LoginNeeded(Exception):
    """Nobody known looks at the page; where the way to it leads on to afterwards."""

    def __init__(self, onward: str) -> None:
        super().__init__(onward)
        self.onward = onward


class Frame:
    """Renders the pages of one queue."""

    def __init__(self, queue: VoiceQueue, access: Access) -> None:
        self._queue = queue
        self._access = access
        self._told = f"{access.cookie}_told"
        found = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
        found.filters.update(words.FILTERS)
        self._templates = Jinja2Templates(env=found)

    # ── who ────────────────────────────────────────────────────────────────────────────────────

    async def admit(self, request: Request) -> None:
        """Note who looks, as `request.state.visitor`. Raises LoginNeeded, Refusal."""
        found = self._access.visitor(request, request.cookies.get(self._access.cookie, ""))
        if found is None:
            raise LoginNeeded(f"{request.url.path}?{request.url.query}".rstrip("?") if request.method == "GET" else "/")
        request.state.who = found.name
        request.state.visitor = found
        _must_have(found, Scope.READ)

    async def operator(self, request: Request) -> None:
        """The same for somebody who may change things. Raises LoginNeeded, Refusal."""
        await self.admit(request)
        _must_have(request.state.visitor, Scope.OPERATE)

    async def form(self, request: Request) -> Form:
        """What was filled in, by the one to whom we gave the form. Raises Refusal, InvalidJob."""
        given = await bodies.read_form(request, FORM_MAX)
        if not signing.holds(request.state.visitor.form, given.get("token", "")):
            raise Refusal(403, "this form is not (any more) one of yours: load its page again")
        return {name: value.strip() for name, value in given.items()}

    # ── what ───────────────────────────────────────────────────────────────────────────────────

    def rendered(
        self, request: Request, name: str, more: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> Response:
        """A page; whoever may see it also gets the summary that all of them have. Raises StoreUnreachable."""
        who: Visitor | None = getattr(request.state, "visitor", None)
        may_read = who is not None and who.may(Scope.READ)
        summary = self._queue.status() if may_read and not getattr(request.state, "is_away", False) else None
        told = unquote(request.cookies.get(self._told, ""))
        now = time.time() if summary is None else summary.at
        about = {"who": who, "status": summary, "states": list(State), "now": now, "told": told, "trouble": ""}
        may = {"operates": who is not None and who.may(Scope.OPERATE)}
        answer: Response = self._templates.TemplateResponse(
            request, name, {**about, **may, **(more or {})}, status_code=status, headers=HEADERS
        )
        if told:
            answer.delete_cookie(self._told)
        return answer

    def trouble(self, request: Request, error: Exception) -> Response:
        """What went wrong, as a page."""
        about = _problem(error)
        text = "; ".join(
            [about["detail"], *(f"{each['field']}: {each['message']}" for each in about.get("errors", []))]
        )
        request.state.is_away = isinstance(error, StoreUnreachable)
        try:
            shown = {"trouble": text, "title": about["title"]}
            return self.rendered(request, "trouble.html", shown, status=about["status"])
        except StoreUnreachable as away:
            return self.trouble(request, away)

    def done(self, place: str, told: str) -> Response:
        """On to another page, which tells what was done."""
        answer = RedirectResponse(place, 303, headers=HEADERS)
        answer.set_cookie(self._told, quote(told[:1_000]), max_age=TOLD_S, httponly=True, samesite="strict")
        return answer

    def route(self) -> type[APIRoute]:
        """Routes of pages: what goes wrong there is told to a person, not to a program."""
        frame = self

        class Told(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                answered = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    try:
                        return await answered(request)
                    except (VoiceQueueError, HTTPException, RequestValidationError) as error:
                        return await run_in_threadpool(frame.trouble, request, error)

                return handler

        return Told


def _must_have(who: Visitor, scope: Scope) -> None:
    if not who.may(scope):
        raise Refusal(403, f"this needs a key with the scope {scope}")


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, VoiceQueueError):
        return problems.told(error)
    if isinstance(error, HTTPException):
        return problems.content(error.status_code, error.detail, "")
    return problems.content(422, "this address has something that is not allowed so", "")
