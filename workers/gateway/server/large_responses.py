"""Large responses: few are built at once, and the memory of unread ones is limited, per API key and in total."""

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

#: Responses built at once, about 10 MB each with large jobs; others wait.
AT_ONCE = 4

#: Of these, responses for one API key.
OF_ONE = 2

#: Bytes of responses that are built and not read yet, half of them for one API key. A single one may be larger.
HELD_MAX = 32 * 1024 * 1024

#: Bytes passed to the connection at once.
PIECE = 64 * 1024


class Large:
    """Builds large responses and counts their bytes until they are read."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._slots_of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OF_ONE))
        self._held: Counter[str] = Counter()

    async def answer(self, request: Request, make: Callable[[], Any]) -> Response:
        """Return the result of `make`, which runs in a thread once a slot is free, as JSON."""
        caller: str = request.state.who
        async with self._slots_of[caller], self._slots:
            if await request.is_disconnected():
                return Response(status_code=503)  # never read
            return _ChunkedResponse(await run_in_threadpool(lambda: JSONResponse(make())), self, caller)

    @contextmanager
    def held(self, caller: str, size: int) -> Iterator[None]:
        """Count `size` bytes for this caller in the body. Raises Refusal if too many are unread."""
        if (of_caller := self._held[caller]) and of_caller + size > HELD_MAX // 2:
            raise Refusal(429, "This key has too many unread responses; read them first.")
        if (total := self._held.total()) and total + size > HELD_MAX:
            raise Refusal(503, "Other callers have too many unread responses; try again later.")
        self._held[caller] += size
        try:
            yield
        finally:
            self._held[caller] -= size
            if not self._held[caller]:
                del self._held[caller]


class _ChunkedResponse(Response):
    """Sends a response in chunks, so that it is known when all of it was read."""

    def __init__(self, whole: JSONResponse, large: Large, caller: str) -> None:
        super().__init__()
        self.raw_headers = whole.raw_headers
        self.body, self._large, self._caller = whole.body, large, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or a problem if too many bytes are unread."""
        try:
            with self._large.held(self._caller, len(self.body)):
                await self._send(send)
        except Refusal as refusal:
            await problems.response(problems.from_exception(refusal))(scope, receive, send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for start in range(0, len(self.body), PIECE):
            chunk = bytes(self.body[start : start + PIECE])
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
