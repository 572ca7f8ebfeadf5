"""The pages of rejected messages: those of other Celery clients that became no job, and their deletion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from voicequeue import VoiceQueue
from voicequeue.storage.rejected_messages import RejectedMessage
from voicequeue.texts import terminal_safe_json
from workers.gateway.page.base import HEADERS, Form, PageRenderer
from workers.gateway.page.namespaces import path_in
from workers.gateway.security.access import acting, reading

#: Messages per page, and characters of a message that are shown: as many as `voicequeue rejects` shows. A download has
#: all that is kept.
PAGE_SIZE, SHOWN = 50, 200

Text = Annotated[str, Query(max_length=200)]


class RejectedMessagePages:
    """Lists rejected messages, and deletes them."""

    def __init__(self, queue: VoiceQueue, renderer: PageRenderer) -> None:
        self._queue, self._renderer = queue, renderer

    def list_messages(self, request: Request, text: str, skip: int) -> Response:
        """List the messages that contain the text, the newest first."""
        matching = self.matching(request, text)
        page = matching[skip : skip + PAGE_SIZE]
        kept = {"q": text} if text else {}
        has_more = len(matching) > skip + PAGE_SIZE
        context = {
            "messages": [(message, excerpt(message)) for message in page],
            "count": len(matching),
            "text": text,
            "kept": kept,
            "first_page": path_in(request, "", kept) if skip else None,
            "next_page": path_in(request, "", {**kept, "skip": skip + PAGE_SIZE}) if has_more else None,
        }
        return self._renderer.render(request, "rejected_messages.html", context)

    def matching(self, request: Request, text: str) -> list[RejectedMessage]:
        """Return the messages that contain the text, the newest first."""
        messages = reading(self._queue, request).rejected_messages()
        return [message for message in messages if not text or text.lower() in _texts(message)]

    def confirm(self, request: Request) -> Response:
        """Ask whether to delete all messages."""
        count = len(reading(self._queue, request).rejected_messages())
        return self._renderer.render(request, "rejected_messages_delete.html", {"count": count})

    def delete(self, request: Request, form: Form) -> Response:
        """Delete all messages."""
        deleted = acting(self._queue, request, form.get("reason", "")[:200]).clear_rejected_messages()
        notice = f"{len(deleted):,} rejected message{' is' if len(deleted) == 1 else 's are'} deleted."
        return self._renderer.redirect_with_notice(request, "/rejected-messages", notice)


def excerpt(message: RejectedMessage) -> str:
    """Return the beginning of the job in a message."""
    text = terminal_safe_json(message.job)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def json_lines(messages: Sequence[RejectedMessage]) -> str:
    """Return messages as JSON Lines."""
    return "".join(f"{terminal_safe_json(message.as_dict())}\n" for message in messages)


def _texts(message: RejectedMessage) -> str:
    job = json.dumps(message.job, ensure_ascii=False)
    return " ".join((message.message_id, message.task, message.reason, job)).lower()


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the routes: the list needs the scope `read`, deletion also `operate`."""
    pages = RejectedMessagePages(queue, renderer)
    routes = APIRouter(route_class=renderer.route_class())
    readable, operable = [Depends(renderer.require_read)], [Depends(renderer.require_operate)]

    @routes.get("/rejected-messages", dependencies=readable)
    def list_messages(request: Request, q: Text = "", skip: Annotated[int, Query(ge=0, le=10_000)] = 0) -> Response:
        return pages.list_messages(request, q.strip(), skip)

    @routes.get("/rejected-messages.jsonl", dependencies=readable)
    def download(request: Request, q: Text = "") -> Response:
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="rejected-messages.jsonl"'}
        lines = json_lines(pages.matching(request, q.strip()))
        return Response(lines, media_type="application/x-ndjson; charset=utf-8", headers=headers)

    @routes.get("/rejected-messages/delete", dependencies=operable)
    def confirm(request: Request) -> Response:
        return pages.confirm(request)

    @routes.post("/rejected-messages/delete", dependencies=operable)
    async def delete(request: Request) -> Response:
        return await run_in_threadpool(pages.delete, request, await renderer.form(request))

    return routes
