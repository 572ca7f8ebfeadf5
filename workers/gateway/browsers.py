"""The gateway in a browser: headers on every answer, and refusal of what pages of other sites ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voicequeue.auth import web_origins
from workers.gateway import problems

#: Headers of every answer that does not set them itself. `same-origin` and not `no-referrer`: under the latter
#: browsers send `Origin: null` with forms.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guarded(FastAPI):
    """An app whose answers all carry the headers, including those that a middleware or a bug makes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app as ASGI does."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                names = {name.lower() for name, _ in own}
                message["headers"] = own + [(name, value) for name, value in _RAW if name not in names]
            await send(message)

        await super().__call__(scope, receive, sending)


class OwnPagesOnly:
    """A middleware that refuses requests of other sites' pages before anything else looks at them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app as ASGI does, or refuse."""
        why = web_origins.refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if why is None:
            await self._app(scope, receive, send)
        else:
            await problems.answer(problems.content(403, why, "foreign_origin"))(scope, receive, send)


class Files(StaticFiles):
    """Files of the gateway's pages, which hold no job: browsers keep them and ask whether they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
