"""One line for each request, and an id for it that its answer and every line about it carry."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers.gateway.problems import GONE

log = logging.getLogger("voicequeue.http")

#: What a caller may name its request.
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: No more characters of a path are logged, and of a method.
_PATH_MAX = 200
_METHOD_MAX = 20

#: Asked for every few seconds by somebody who does not read logs.
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})

NAME = "X-Request-ID"


class RequestLog:
    """Wraps the app. Paths are logged without their query: it may hold a webhook's token."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(NAME, "")
        request = given if _GIVEN.fullmatch(given) else secrets.token_hex(8)
        answer: dict[str, Any] = {}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                MutableHeaders(scope=message)[NAME] = request
            await send(message)

        began = time.monotonic()
        with structlog.contextvars.bound_contextvars(request=request):
            try:
                await self._app(scope, receive, sending)
                answer.setdefault("status", GONE)  # without an answer only where its client is gone
            finally:
                self._tell(scope, answer.get("status", 500), time.monotonic() - began)

    @staticmethod
    def _tell(scope: Scope, status: int, seconds: float) -> None:
        level = logging.DEBUG if scope["path"] in _ROUTINE else logging.INFO
        about = {"status": status, "duration": round(seconds, 3)}
        asked = {"method": _cut(scope["method"], _METHOD_MAX), "path": _cut(scope["path"], _PATH_MAX)}
        # The name of the API key, where one was given or remembered; workers/gateway/auth.py notes it.
        known = {"who": who} if (who := scope.get("state", {}).get("who")) else {}
        log.log(level, "request", extra={**asked, **about, **known})


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"
