"""The pages: jobs with filters and search, one job, batches, the login."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from voicequeue import Filter, State, VoiceQueue, VoiceQueueError
from voicequeue.apikeys import Scope
from workers.gateway import bodies, session
from workers.gateway.access import Access
from workers.gateway.events import FOLLOWERS_MAX, HEARTBEAT_S, EventStream, Tail
from workers.gateway.problems import Refusal
from workers.gateway.session import COOKIE, Visitor

HERE = Path(__file__).parent

#: What moves within so many seconds is shown at once.
TOGETHER_S = 1.0

#: More than a login has (bytes).
FORM_MAX = 4_096

#: Jobs and batches on one page.
ROWS = 50

Cursor = Annotated[str | None, Query(max_length=500)]

#: Nothing but the page's own files runs or is shown in it; songs and covers come from wherever they lie.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src http: https:; img-src 'self' http: https:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class LoginNeeded(Exception):
    """Nobody known looks at the page; where the way to it leads on to afterwards."""

    def __init__(self, onward: str) -> None:
        super().__init__(onward)
        self.onward = onward


class Pages:
    """Renders pages for one queue."""

    def __init__(self, queue: VoiceQueue, access: Access) -> None:
        self._queue = queue
        self._access = access
        found = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
        self._templates = Jinja2Templates(env=found)
        self._templates.env.filters.update(clock=_clock, ago=_ago, length_of=_length, web=_web)

    async def admit(self, request: Request) -> None:
        """Note who looks, as `request.state.visitor`. Raises LoginNeeded, Refusal."""
        found = self._access.visitor(request, request.cookies.get(COOKIE, ""))
        if found is None:
            raise LoginNeeded(f"{request.url.path}?{request.url.query}".rstrip("?"))
        if not found.may(Scope.READ):
            raise Refusal(403, "this needs a key with the scope read")
        request.state.visitor = found

    async def jobs(self, request: Request, wanted: Mapping[str, str], cursor: str | None) -> Response:
        """A page of jobs; a search that names one job, or one batch, leads there."""
        if (sought := wanted["q"].strip()) and (place := await run_in_threadpool(self._place, sought)):
            return RedirectResponse(place, 303)
        return await run_in_threadpool(self._jobs, request, wanted, cursor)

    def _place(self, sought: str) -> str | None:
        try:
            return f"/job/{self._queue.get(sought).id}"
        except VoiceQueueError:
            pass
        try:
            return f"/?{urlencode({'batch': self._queue.batch(sought).name})}"
        except VoiceQueueError:
            return None

    def _jobs(self, request: Request, wanted: Mapping[str, str], cursor: str | None) -> Response:
        asked = Filter(state=State(wanted["state"]) if wanted["state"] else None, batch=wanted["batch"] or None)
        batch, trouble, page = None, "", None
        try:
            page = self._queue.find(asked, limit=ROWS, cursor=cursor)
            batch = self._queue.batch(asked.batch) if asked.batch else None
        except VoiceQueueError as error:
            trouble = str(error)
        if wanted["q"]:
            trouble = f"no job and no batch is called {wanted['q']!r}"
        # States are read one after the other: a job that moves meanwhile is met twice, the second time further on.
        shown = list({job.id: job for job in page.items}.values()) if page else []
        given = {name: value for name, value in wanted.items() if value}
        onward = page and page.cursor and "?" + urlencode({**given, "cursor": page.cursor})
        return self.rendered(
            request, "jobs.html", shown=shown, batch=batch, wanted=wanted, onward=onward, trouble=trouble
        )

    def job(self, request: Request, job_id: str) -> Response:
        """One job: its timeline, what it cost, its voice and songs."""
        try:
            job, timeline = self._queue.get(job_id), self._queue.timeline(job_id)
        except VoiceQueueError as error:
            return self.rendered(request, "trouble.html", status=404, trouble=str(error))
        maker = self._queue.waits_for(job)
        return self.rendered(request, "job.html", job=job, timeline=timeline, maker=maker)

    def batches(self, request: Request, cursor: str | None) -> Response:
        """The batches, the newest first, and how far each is."""
        try:
            page = self._queue.find_batches(limit=ROWS, cursor=cursor)
        except VoiceQueueError as error:
            return self.rendered(request, "trouble.html", status=422, trouble=str(error))
        onward = page.cursor and "?" + urlencode({"cursor": page.cursor})
        return self.rendered(request, "batches.html", page=page, onward=onward)

    def rendered(self, request: Request, name: str, *, status: int = 200, **more: Any) -> Response:
        """A page; whoever may see it also gets the summary that all of them have."""
        who: Visitor | None = getattr(request.state, "visitor", None)
        summary = None if who is None else self._queue.status()
        about = {"who": who, "status": summary, "states": list(State), "now": time.time(), "trouble": "", **more}
        answer: Response = self._templates.TemplateResponse(request, name, about, status_code=status, headers=HEADERS)
        return answer


def router(queue: VoiceQueue, access: Access, tail: Tail) -> APIRouter:
    """The routes of the page."""
    pages = Pages(queue, access)
    routes = APIRouter(include_in_schema=False)
    routes.include_router(_inside(pages, tail))

    @routes.get("/login")
    def login(request: Request, onward: str = "/") -> Response:
        return pages.rendered(request, "login.html", onward=_own(onward))

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        given = dict(parse_qsl((await bodies.read(request, FORM_MAX)).decode(errors="replace")))
        key, onward = given.get("key", ""), given.get("onward", "/")
        remembered = access.login(key)
        if remembered is None:
            trouble = "no such key"
            return await run_in_threadpool(
                pages.rendered, request, "login.html", status=401, onward=_own(onward), trouble=trouble
            )
        answer = RedirectResponse(_own(onward), 303, headers=HEADERS)
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, remembered, max_age=session.HOLDS_S, httponly=True, samesite="strict", secure=secure)
        return answer

    @routes.post("/logout")
    def log_out() -> Response:
        answer = RedirectResponse("/login", 303, headers=HEADERS)
        answer.delete_cookie(COOKIE)
        return answer

    return routes


async def _moves(tail: Tail) -> AsyncIterator[str]:
    """That something has moved, once for all that moved in a while; the page asks what."""
    yield ": it is told when something moves\n\n"
    async with tail.followed():
        moved = tail.next_move()
        while True:
            try:
                await asyncio.wait_for(moved.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield ": nothing new\n\n"
                continue
            moved = tail.next_move()
            yield "event: moved\ndata: {}\n\n"
            await asyncio.sleep(TOGETHER_S)


def _inside(pages: Pages, tail: Tail) -> APIRouter:
    """What only those see who may read."""
    routes = APIRouter(dependencies=[Depends(pages.admit)])

    @routes.get("/")
    async def jobs(request: Request, state: str = "", batch: str = "", q: str = "", cursor: Cursor = None) -> Response:
        known = state if state in set(State) else ""
        return await pages.jobs(request, {"state": known, "batch": batch, "q": q}, cursor)

    @routes.get("/live", response_class=EventStream)
    async def live() -> EventStream:
        if tail.followers >= FOLLOWERS_MAX:
            raise Refusal(503, f"{FOLLOWERS_MAX} follow already")
        return EventStream(_moves(tail), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    @routes.get("/job/{job_id}")
    def job(request: Request, job_id: str) -> Response:
        return pages.job(request, job_id)

    @routes.get("/batches")
    def batches(request: Request, cursor: Cursor = None) -> Response:
        return pages.batches(request, cursor)

    return routes


def files() -> StaticFiles:
    """What pages load."""
    return StaticFiles(directory=HERE / "static")


def to_the_login(_: Request, error: Exception) -> Response:
    """Where somebody is sent whom the page does not know."""
    onward = error.onward if isinstance(error, LoginNeeded) else "/"
    return RedirectResponse(f"/login?{urlencode({'onward': onward})}", 303, headers=HEADERS)


def _own(onward: str) -> str:
    """A path of this page; anything else (another site, say) is the beginning."""
    parts = urlsplit(onward)
    is_path = onward.startswith("/") and not onward.startswith(("//", "/\\")) and not (parts.scheme or parts.netloc)
    return onward if is_path and onward.isprintable() else "/"


def _clock(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _ago(at: float, now: float) -> str:
    seconds = max(0, int(now - at))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _length(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _web(url: str | None) -> str | None:
    """A URL that may stand in a link; others (javascript:, say) stand nowhere."""
    return url if url and url.startswith(("https://", "http://")) else None
