"""The pages of callbacks: those that are undelivered or pending, and their redelivery after a confirmation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import InvalidJobError, Problem, VoiceQueue
from voicequeue.storage.callbacks import Callback
from voicequeue.texts import parse_float
from workers.gateway.page.base import Form, PageRenderer
from workers.gateway.page.forms import selected
from workers.gateway.page.namespaces import path_in
from workers.gateway.security.access import acting, reading

#: Callbacks per page, and per read of all of them.
PAGE_SIZE = 50
CHUNK = 500

STATUSES = ("undelivered", "pending")

#: Fields of the list's URL, and of forms, that select callbacks.
FILTERS = ("batch", "q")

Text = Annotated[str, Query(max_length=200)]
Cursor = Annotated[str | None, Query(max_length=500)]


class CallbackPages:
    """Lists callbacks, and delivers them again."""

    def __init__(self, queue: VoiceQueue, renderer: PageRenderer) -> None:
        self._queue, self._renderer = queue, renderer

    def list_callbacks(self, request: Request, status: str, filters: Mapping[str, str], cursor: str | None) -> Response:
        """List the callbacks of this status. Raises InvalidCursorError."""
        queue = reading(self._queue, request)
        page = queue.list_callbacks(
            undelivered=status == "undelivered",
            batch=filters["batch"] or None,
            search=filters["q"],
            limit=PAGE_SIZE,
            cursor=cursor,
        )
        kept = {name: value for name, value in {"status": status, **filters}.items() if value}
        context = {
            "callbacks": page.items,
            "counts": queue.callback_counts(),
            "statuses": STATUSES,
            "shown": status,
            "filters": filters,
            "kept": kept,
            "is_first_page": cursor is None,
            "next_page": page.cursor and path_in(request, "", {**kept, "cursor": page.cursor}),
        }
        return self._renderer.render(request, "callbacks.html", context)

    def plan(self, request: Request, form: Form) -> Response:
        """Ask whether to deliver the selected callbacks, or all undelivered ones that the filter shows."""
        queue, filters = reading(self._queue, request), _filters(form)
        until = queue.status().at
        ids = list(dict.fromkeys(selected(form)))
        count = len(ids) if "all" not in form else sum(1 for _ in _undelivered(queue, filters, until))
        context = {"ids": ids, "is_all": "all" in form, "count": count, "filters": filters, "until": repr(until)}
        return self._renderer.render(request, "callbacks_plan.html", context)

    def redeliver(self, request: Request, form: Form) -> Response:
        """Deliver these callbacks now. Raises InvalidJobError."""
        queue = acting(self._queue, request, form.get("reason", "")[:200])
        ids = _frozen_ids(queue, form) if "all" in form else iter(selected(form))
        count = queue.redeliver_callbacks(ids)
        notice = f"{count:,} callback{' is' if count == 1 else 's are'} being delivered."
        return self._renderer.redirect_with_notice(request, "/callbacks", notice, _kept(form))


def _filters(fields: Mapping[str, str]) -> dict[str, str]:
    return {name: fields.get(name, "").strip() for name in FILTERS}


def _kept(form: Form) -> dict[str, str]:
    return {name: value for name, value in _filters(form).items() if value}


def _undelivered(queue: VoiceQueue, filters: Mapping[str, str], until: float) -> Iterator[Callback]:
    """Yield the undelivered callbacks that a filter shows, as they were at that time: a callback that failed again
    since is not attempted twice."""
    cursor: str | None = None
    while True:
        page = queue.list_callbacks(
            undelivered=True, batch=filters["batch"] or None, search=filters["q"], limit=CHUNK, cursor=cursor
        )
        for callback in page.items:
            if (callback.undelivered_at or 0.0) > until:
                return
            yield callback
        if (cursor := page.cursor) is None:
            return


def _frozen_ids(queue: VoiceQueue, form: Form) -> Iterator[str]:
    until = parse_float(form.get("until", ""))
    if until is None:
        raise InvalidJobError([Problem("until", "must be the time of the confirmation page")])
    return (callback.id for callback in _undelivered(queue, _filters(form), until))


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the routes: the list needs the scope `read`, the others also `operate`."""
    pages = CallbackPages(queue, renderer)
    routes = APIRouter(prefix="/callbacks", route_class=renderer.route_class())

    @routes.get("", dependencies=[Depends(renderer.require_read)])
    def list_callbacks(
        request: Request, status: str = "", batch: Text = "", q: Text = "", cursor: Cursor = None
    ) -> Response:
        shown = status if status in STATUSES else STATUSES[0]
        return pages.list_callbacks(request, shown, _filters({"batch": batch, "q": q}), cursor)

    @routes.post("/plan", dependencies=[Depends(renderer.require_operate)])
    async def plan(request: Request) -> Response:
        return await run_in_threadpool(pages.plan, request, await renderer.form(request))

    @routes.post("/redeliver", dependencies=[Depends(renderer.require_operate)])
    async def redeliver(request: Request) -> Response:
        return await run_in_threadpool(pages.redeliver, request, await renderer.form(request))

    return routes
