"""Answers that may be large: a few are made at once, and no caller has all of these places."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

#: Answers that are made at once, of some 10 MB each where jobs are large; further ones wait.
AT_ONCE = 4

#: Those of them that are made for one API key.
OF_ONE = 2


class Large:
    """Makes large answers. Once made they are the connections' to bound: see Bounds.buffered."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(AT_ONCE)
        self._of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OF_ONE))

    async def answer(self, request: Request, make: Callable[[], Any]) -> Response:
        """Return as JSON what `make` returns, which a thread asks when it is this caller's turn."""
        async with self._of[request.state.who], self._all:
            if await request.is_disconnected():
                return Response(status_code=503)  # nobody reads it
            return await run_in_threadpool(lambda: JSONResponse(make()))
