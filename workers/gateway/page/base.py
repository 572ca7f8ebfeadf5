"""What all pages have in common: their frame, who may see them, forms, and troubles told as pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from voicequeue import Clip, State, StoreUnreachable, VoiceQueue, VoiceQueueError
from voicequeue.auth import signatures
from voicequeue.auth.api_keys import Scope
from voicequeue.storage.sessions import SESSION_S
from workers.gateway import bodies, problems
from workers.gateway.auth import Access
from workers.gateway.page import filters
from workers.gateway.page.links import Links
from workers.gateway.problems import Refusal
from workers.gateway.session import Logins, Visitor

HERE = Path(__file__).parent

#: More than any form has (bytes).
FORM_MAX = 8_192

#: Nothing but the page's own files runs or is shown in it; the page of a job names where its songs and covers lie.
HEADERS = {
    "Content-Security-Policy": Links("").policy([], []),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

Form = dict[str, str]


class Elsewhere(Exception):
    """The page is not shown: `answer` leads to another one."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


class Done(RedirectResponse):
    """Leads on to another page, which says what was done."""

    def __init__(self, place: str, notice: str) -> None:
        super().__init__(place, 303, headers=HEADERS)
        self.notice = notice


class Frame:
    """Renders the pages of one queue. `cookie` is the name of the one that holds a session's token."""

    def __init__(self, queue: VoiceQueue, access: Access, logins: Logins, *, cookie: str) -> None:
        self._queue = queue
        self._access = access
        self._logins = logins
        self._cookie = cookie
        found = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
        found.filters.update(filters.FILTERS)
        self._templates = Jinja2Templates(env=found)

    # ── who ────────────────────────────────────────────────────────────────────────────────────

    async def known(self, request: Request) -> None:
        """Note who looks, as `request.state.visitor`. Raises Elsewhere, Refusal, StoreUnreachable."""
        self._access.check_source(request)
        if request.method == "GET" and "token" in request.query_params:
            raise Elsewhere(await run_in_threadpool(self.entered, request, _onward(request)))
        visitor = await run_in_threadpool(self._logins.visitor, self.remembered(request))
        if visitor is None:
            raise Elsewhere(_to_the_login(_onward(request) if request.method == "GET" else "/"))
        request.state.who = visitor.name
        request.state.visitor = visitor

    async def admit(self, request: Request) -> None:
        """The same for a visitor who may look. Raises Elsewhere, Refusal, StoreUnreachable."""
        await self.known(request)
        _must_have(request.state.visitor, Scope.READ)

    async def may_still_look(self, request: Request) -> bool:
        """Return whether the login of this request, which was admitted before, still holds. Raises StoreUnreachable."""
        visitor = await run_in_threadpool(self._logins.visitor, self.remembered(request))
        return visitor is not None and visitor.may(Scope.READ)

    async def operator(self, request: Request) -> None:
        """The same for a visitor who may change things. Raises Elsewhere, Refusal, StoreUnreachable."""
        await self.admit(request)
        _must_have(request.state.visitor, Scope.OPERATE)

    async def form(self, request: Request) -> Form:
        """What was filled in, by the one to whom we gave the form. Raises Refusal, InvalidJob."""
        given = await bodies.read_form(request, FORM_MAX)
        if not signatures.holds(request.state.visitor.form, given.get("token", "")):
            raise Refusal(403, "this form is not (any more) one of yours: load its page again")
        return {name: value.strip() for name, value in given.items()}

    def remembered(self, request: Request) -> str:
        """Return the token of the browser's session; '' where it has none."""
        return request.cookies.get(self._cookie, "")

    def entered(self, request: Request, onward: str) -> Response:
        """Log in with the local token in the address, and lead on to where it is no longer."""
        token = self._logins.enter(request.query_params["token"], before=self.remembered(request))
        return _to_the_login(onward, by="link") if token is None else self.logged_in(request, token, onward)

    def logged_in(self, request: Request, token: str, onward: str) -> Response:
        """Lead on, with the session's token in a cookie that no script reads and no other site has sent."""
        answer = RedirectResponse(onward, 303, headers=HEADERS)
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(self._cookie, token, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return answer

    def logged_out(self, request: Request, *, everywhere: bool) -> Response:
        """End the session, or every one of its key, and lead to the login."""
        self._logins.log_out(request.state.visitor, everywhere=everywhere)
        answer = RedirectResponse("/login", 303, headers=HEADERS)
        answer.delete_cookie(self._cookie)
        return answer

    # ── what ───────────────────────────────────────────────────────────────────────────────────

    def rendered(
        self,
        request: Request,
        name: str,
        more: Mapping[str, Any] | None = None,
        *,
        status: int = 200,
        clips: Sequence[Clip] = (),
    ) -> Response:
        """A page; whoever may see it also gets the summary that all of them have. Raises StoreUnreachable.

        `clips` are those whose covers and songs it loads.
        """
        who: Visitor | None = getattr(request.state, "visitor", None)
        is_away = getattr(request.state, "is_away", False)
        reader = who if who is not None and who.may(Scope.READ) and not is_away else None
        summary = self._queue.status() if reader else None
        told = self._logins.take_notice(reader) if reader else ""
        now = time.time() if summary is None else summary.at
        about = {"who": who, "status": summary, "states": list(State), "now": now, "told": told, "trouble": ""}
        may = {"operates": who is not None and who.may(Scope.OPERATE)}
        links = Links(request.headers.get("host", ""))
        policy = links.policy((clip.image_url for clip in clips), (clip.audio_url for clip in clips))
        headers = {**HEADERS, "Content-Security-Policy": policy}
        seen = {**about, **may, "links": links, "policy": policy, **(more or {})}
        return self._templates.TemplateResponse(request, name, seen, status_code=status, headers=headers)

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
        return Done(place, told)

    def keep_notice(self, visitor: Visitor, notice: str) -> None:
        """Keep what was done in the session, where no other site can write: its next page says so."""
        with suppress(StoreUnreachable):  # it was done all the same
            self._logins.put_notice(visitor, notice)

    def route(self) -> type[APIRoute]:
        """Routes of pages: what goes wrong there is told to a person, not to a program."""
        frame = self

        class Told(APIRoute):
            def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
                answered = super().get_route_handler()

                async def handler(request: Request) -> Response:
                    try:
                        answer = await answered(request)
                    except (VoiceQueueError, HTTPException, RequestValidationError) as error:
                        return await run_in_threadpool(frame.trouble, request, error)
                    if isinstance(answer, Done):
                        await run_in_threadpool(frame.keep_notice, request.state.visitor, answer.notice)
                    return answer

                return handler

        return Told


def elsewhere(_: Request, error: Exception) -> Response:
    """Answer Elsewhere."""
    assert isinstance(error, Elsewhere)  # noqa: S101  what it is installed for
    return error.answer


def _to_the_login(onward: str, **more: str) -> Response:
    return RedirectResponse(f"/login?{urlencode({'onward': onward, **more})}", 303, headers=HEADERS)


def _onward(request: Request) -> str:
    """Return this page's path and query, without the token that a link may carry."""
    query = urlencode([(name, value) for name, value in request.query_params.multi_items() if name != "token"])
    return filters.own_path(f"{request.url.path}?{query}".rstrip("?"))


def _must_have(who: Visitor, scope: Scope) -> None:
    if not who.may(scope):
        raise Refusal(403, f"this needs a key with the scope {scope}")


def _problem(error: Exception) -> dict[str, Any]:
    if isinstance(error, VoiceQueueError):
        return problems.told(error)
    if isinstance(error, HTTPException):
        return problems.content(error.status_code, error.detail, "")
    return problems.content(422, "this address has something that is not allowed so", "")
