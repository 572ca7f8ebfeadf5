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
from workers.gateway.problems import ProblemError
from workers.gateway.security.admission import confirm_admission

#: Responses built at once, about 10 MB each with large jobs; others wait.
MAX_BUILDS = 4

#: Of these, responses for one API key.
MAX_BUILDS_PER_KEY = 2

#: Bytes of responses that are built and not read yet, half of them for one API key. A single one may be larger.
MAX_UNREAD_BYTES = 32 * 1024 * 1024

#: Bytes passed to the connection at once.
CHUNK_BYTES = 64 * 1024


class LargeResponses:
    """Builds large responses and counts their bytes until they are read."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_BUILDS)
        self._slots_of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_BUILDS_PER_KEY))
        self._held: Counter[str] = Counter()

    async def respond(self, request: Request, build: Callable[[], Any]) -> Response:
        """Return the result of `build`, which runs in a thread once a slot is free, as JSON.

        Raises ProblemError if the key has ended meanwhile.
        """
        caller: str = request.state.caller
        async with self._slots_of[caller], self._slots:
            if await request.is_disconnected():
                return Response(status_code=503)  # never read
            await confirm_admission(request)
            return _ChunkedResponse(await run_in_threadpool(lambda: JSONResponse(build())), self, caller)

    @contextmanager
    def count_unread(self, caller: str, size: int) -> Iterator[None]:
        """Count `size` bytes for this caller in the body. Raises ProblemError if too many are unread."""
        if (of_caller := self._held[caller]) and of_caller + size > MAX_UNREAD_BYTES // 2:
            raise ProblemError(429, "This key has too many unread responses; read them first.")
        if (total := self._held.total()) and total + size > MAX_UNREAD_BYTES:
            raise ProblemError(503, "Other callers have too many unread responses; try again later.")
        self._held[caller] += size
        try:
            yield
        finally:
            self._held[caller] -= size
            if not self._held[caller]:
                del self._held[caller]


class _ChunkedResponse(Response):
    """Sends a response in chunks, so that it is known when all of it was read."""

    def __init__(self, whole: JSONResponse, large: LargeResponses, caller: str) -> None:
        super().__init__()
        self.raw_headers = whole.raw_headers
        self.body, self._large, self._caller = whole.body, large, caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or a problem if too many bytes are unread."""
        try:
            with self._large.count_unread(self._caller, len(self.body)):
                await self._send(send)
        except ProblemError as refusal:
            await problems.response(problems.from_exception(refusal))(scope, receive, send)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for start in range(0, len(self.body), CHUNK_BYTES):
            chunk = bytes(self.body[start : start + CHUNK_BYTES])
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
