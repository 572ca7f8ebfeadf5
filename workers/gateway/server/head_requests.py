"""HEAD for every path that has GET: the same status and headers, without the body."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """A middleware that answers HEAD with the head of the response to GET, and ends what would send its body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        head_sent = asyncio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                head_sent.set()

        scope.setdefault("state", {})  # shared with the copy: the log names the caller
        as_get = {**scope, "method": "GET"}
        running = asyncio.ensure_future(self._app(as_get, receive, send_head))
        await _first(running, asyncio.ensure_future(head_sent.wait()))
        if head_sent.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            running.cancel()  # an event stream would not end
        with suppress(asyncio.CancelledError):
            await running


async def _first(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of two futures is done; cancel both if this task is cancelled, and the last one in any case."""
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        futures[0].cancel()
        raise
    finally:
        futures[-1].cancel()
