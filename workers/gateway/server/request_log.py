"""One log line per request, and a request id in its response and in every log line about it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers.gateway.problems import STATUS_CLIENT_CLOSED

log = logging.getLogger("voicequeue.http")

#: Request ids that callers may choose.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: Longer paths and methods are truncated in the log.
_PATH_MAX = 200
_METHOD_MAX = 20

#: Paths that monitoring requests every few seconds; logged at level DEBUG.
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})

NAME = "X-Request-ID"


class RequestLogMiddleware:
    """A middleware that logs requests. Queries are left out: they may contain a webhook's token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app and log the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = Headers(scope=scope).get(NAME, "")
        request_id = header if _REQUEST_ID.fullmatch(header) else secrets.token_hex(8)
        response: dict[str, Any] = {}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                response["status"] = message["status"]
                MutableHeaders(scope=message)[NAME] = request_id
            await send(message)

        started_at = time.monotonic()
        with structlog.contextvars.bound_contextvars(request=request_id):
            try:
                await self._app(scope, receive, send_with_id)
                response.setdefault("status", STATUS_CLIENT_CLOSED)  # no response was sent: the client has disconnected
            finally:
                self._log(scope, response.get("status", 500), time.monotonic() - started_at)

    @staticmethod
    def _log(scope: Scope, status: int, seconds: float) -> None:
        level = logging.DEBUG if scope["path"] in _ROUTINE else logging.INFO
        fields = {
            "method": _truncate(scope["method"], _METHOD_MAX),
            "path": _truncate(scope["path"], _PATH_MAX),
            "status": status,
            "duration": round(seconds, 3),
        }
        # The name of the API key, set by workers/gateway/security/access.py.
        caller = {"key_name": name} if (name := scope.get("state", {}).get("caller")) else {}
        log.log(level, "request", extra={**fields, **caller})


def _truncate(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
