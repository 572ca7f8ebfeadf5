"""The routes of the pages: the login, what they show, what they do."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from workers.gateway import bodies, session
from workers.gateway.access import Access
from workers.gateway.browsers import Files
from workers.gateway.events import Tail
from workers.gateway.page import doing, reading
from workers.gateway.page.frame import FORM_MAX, HEADERS, HERE, Frame, LoginNeeded
from workers.gateway.page.words import own_path


def router(queue: VoiceQueue, access: Access, tail: Tail) -> APIRouter:
    """All pages."""
    frame = Frame(queue, access)
    routes = APIRouter(include_in_schema=False, route_class=frame.route())
    routes.include_router(reading.router(queue, frame, tail))
    routes.include_router(doing.router(queue, frame))

    @routes.get("/login")
    def login(request: Request, onward: str = "/") -> Response:
        return frame.rendered(request, "login.html", {"onward": own_path(onward)})

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        given = await bodies.read_form(request, FORM_MAX)
        onward = own_path(given.get("onward", "/"))
        remembered = access.login(given.get("key", ""))
        if remembered is None:
            about = {"onward": onward, "trouble": "no such key"}
            return await run_in_threadpool(frame.rendered, request, "login.html", about, status=401)
        answer = RedirectResponse(onward, 303, headers=HEADERS)
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            access.cookie, remembered, max_age=session.HOLDS_S, httponly=True, samesite="strict", secure=secure
        )
        return answer

    @routes.post("/logout", dependencies=[Depends(frame.admit)])
    async def log_out(request: Request) -> Response:
        await frame.form(request)
        answer = RedirectResponse("/login", 303, headers=HEADERS)
        answer.delete_cookie(access.cookie)
        return answer

    return routes


def files() -> Files:
    """What pages load."""
    return Files(directory=HERE / "static")


def to_the_login(_: Request, error: Exception) -> Response:
    """Where somebody is sent whom the page does not know."""
    onward = error.onward if isinstance(error, LoginNeeded) else "/"
    return RedirectResponse(f"/login?{urlencode({'onward': onward})}", 303, headers=HEADERS)
