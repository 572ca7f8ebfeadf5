"""The routes of the pages: the login, what they show, what they do."""

from __future__ import annotations

from math import ceil

from fastapi import APIRouter, Depends, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from workers.gateway import bodies
from workers.gateway.auth import Access
from workers.gateway.browsers import Files
from workers.gateway.events import Tail
from workers.gateway.page import actions, views
from workers.gateway.page.base import FORM_MAX, HERE, Form, Frame
from workers.gateway.page.filters import own_path
from workers.gateway.session import Logins, TooManyLogins

STALE_LINK = "the token in this link is not valid, or is no longer"


class Entrance:
    """The login page."""

    def __init__(self, frame: Frame, access: Access, logins: Logins) -> None:
        self._frame = frame
        self._access = access
        self._logins = logins

    def show(self, request: Request, onward: str, trouble: str = "", *, status: int = 200) -> Response:
        """The form. Raises Refusal."""
        self._access.check_source(request)
        if "token" in request.query_params:
            return self._frame.entered(request, onward)
        about = {"onward": onward, "trouble": trouble, "is_local": self._access.local is not None}
        return self._frame.rendered(request, "login.html", about, status=status)

    def log_in(self, request: Request, given: Form) -> Response:
        """Begin a session. Raises Refusal, StoreUnreachable."""
        self._access.check_source(request)
        onward, address = own_path(given.get("onward", "/")), request.client.host if request.client else ""
        try:
            token = self._logins.log_in(given.get("key", ""), address=address, before=self._frame.remembered(request))
        except TooManyLogins as error:
            return self._later(request, onward, ceil(error.wait_s))
        if token is None:
            return self.show(request, onward, "no such key", status=401)
        return self._frame.logged_in(request, token, onward)

    def _later(self, request: Request, onward: str, wait_s: int) -> Response:
        trouble = f"logins from your address have failed too often: wait {wait_s} seconds, then try again"
        answer = self.show(request, onward, trouble, status=429)
        answer.headers["Retry-After"] = str(wait_s)
        return answer


def router(queue: VoiceQueue, access: Access, logins: Logins, tail: Tail, *, cookie: str) -> APIRouter:
    """All pages."""
    frame = Frame(queue, access, logins, cookie=cookie)
    entrance = Entrance(frame, access, logins)
    routes = APIRouter(include_in_schema=False, route_class=frame.route())
    routes.include_router(views.router(queue, frame, tail))
    routes.include_router(actions.router(queue, frame))

    @routes.get("/login")
    def login(request: Request, onward: str = "/", by: str = "") -> Response:
        return entrance.show(request, own_path(onward), STALE_LINK if by == "link" else "")

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        given = await bodies.read_form(request, FORM_MAX)
        return await run_in_threadpool(entrance.log_in, request, given)

    @routes.post("/logout", dependencies=[Depends(frame.known)])
    async def log_out(request: Request) -> Response:
        form = await frame.form(request)
        return await run_in_threadpool(frame.logged_out, request, everywhere="everywhere" in form)

    return routes


def files() -> Files:
    """What pages load."""
    return Files(directory=HERE / "static")
