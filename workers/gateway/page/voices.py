"""The page of voices: those that were created, with a search."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from voicequeue import VoiceQueue
from workers.gateway.page.base import PageRenderer
from workers.gateway.page.namespaces import path_in
from workers.gateway.security.access import reading

#: Voices per page.
PAGE_SIZE = 50

Text = Annotated[str, Query(max_length=500)]
Cursor = Annotated[str | None, Query(max_length=500)]


def router(queue: VoiceQueue, renderer: PageRenderer) -> APIRouter:
    """Return the route, which needs the scope `read`."""
    routes = APIRouter(dependencies=[Depends(renderer.require_read)], route_class=renderer.route_class())

    @routes.get("/voices")
    def list_voices(request: Request, q: Text = "", cursor: Cursor = None) -> Response:
        text = q.strip()
        page = reading(queue, request).list_personas(search=text, limit=PAGE_SIZE, cursor=cursor)
        kept = {"q": text} if text else {}
        context = {
            "voices": page.items,
            "text": text,
            "first_page": None if cursor is None else path_in(request, "", kept),
            "next_page": page.cursor and path_in(request, "", {**kept, "cursor": page.cursor}),
        }
        return renderer.render(request, "voices.html", context)

    return routes
