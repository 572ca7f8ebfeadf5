"""Answers that may be large: a few are made at once, few bytes of them are held, and no caller takes all of either."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from workers.gateway import problems
from workers.gateway.problems import Refusal

#: Answers that are made at once, of some 10 MB each where jobs are large; further ones wait.
AT_ONCE = 4

#: Those of them that are made for one API key.
OF_ONE = 2

#: Bytes of answers that were made and not yet read; of one API key half of them. A first answer may have more.
HELD_MAX = 32 * 1024 * 1024

#: Bytes that are handed to the connection at once: the next ones when it has almost sent them.
PIECE = 64 * 1024


class Large:
    """Makes large answers, and holds them until they are read."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OF_ONE))
        self._held: Counter[str] = Counter()

    async def answer(self, request: Request, make: Callable[[], Any]) -> Response:
        """Return as JSON what `make` returns, which a thread asks when it is this caller's turn."""
        who: str = request.state.who
        async with self._of[who], self._all:
            if await request.is_disconnected():
                return Response(status_code=503)  # nobody reads it
            return _InPieces(await run_in_threadpool(lambda: JSONResponse(make())), self, who)

    @contextmanager
    def held(self, who: str, size: int) -> Iterator[None]:
        """Hold an answer of so many bytes for this caller. Raises Refusal where too much is left unread."""
        if (of_one := self._held[who]) and of_one + size > HELD_MAX // 2:
            raise Refusal(429, "read the large answers that you asked for first")
        if (of_all := self._held.total()) and of_all + size > HELD_MAX:
            raise Refusal(503, "other callers have left large answers unread")
        self._held[who] += size
        try:
            yield
        finally:
            self._held[who] -= size
            if not self._held[who]:
                del self._held[who]


class _InPieces(Response):
    """Sends an answer piece by piece, so that it is known how long it is held."""

    def __init__(self, made: JSONResponse, large: Large, who: str) -> None:
        super().__init__()
        self.raw_headers = made.raw_headers
        self.body, self._large, self._who = made.body, large, who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or why it is not sent."""
        try:
            with self._large.held(self._who, len(self.body)):
                await self._send(send)
        except Refusal as refusal:
            await problems.answer(problems.refused(refusal))(scope, receive, send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for at in range(0, len(self.body), PIECE):
            piece = bytes(self.body[at : at + PIECE])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
