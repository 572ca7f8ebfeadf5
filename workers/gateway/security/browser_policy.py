"""Protection of browsers: security headers on every response, and no requests from pages of other sites."""

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

#: Headers of every response that does not set them itself. Not `no-referrer`: browsers then send `Origin: null` with
#: forms.
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


class SecureApp(FastAPI):
    """An app that adds the headers to every response, also to those of middleware and of bugs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name.lower() for name, _ in headers}
                message["headers"] = headers + [(name, value) for name, value in _RAW if name not in names]
            await send(message)

        await super().__call__(scope, receive, send_with_headers)


class SameOriginMiddleware:
    """A middleware that refuses requests made by pages of other sites."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, or refuse."""
        reason = web_origins.origin_refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
        else:
            refusal = problems.problem(403, reason, "foreign_origin")
            page = problems.plain_page if problems.prefers_html(scope) else problems.response
            await page(refusal)(scope, receive, send)


class SecureStaticFiles(StaticFiles):
    """Static files, which contain no jobs: browsers may cache them and must revalidate them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the file, or 304."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
