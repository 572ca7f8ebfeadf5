"""The admission of a request: decided at its start, and again while it lasts, because its key may change meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from voicequeue import StoreUnavailableError
from voicequeue.domain.api_keys import ApiKey
from workers.gateway.problems import ProblemError

#: Seconds for which an admission is valid before it is checked again, and between two checks of a quiet stream.
CHECK_S = 3.0

#: Seconds until the next attempt if the key cannot be checked.
RETRY_S = 1.0


class Admission:
    """The admission of one request by one key."""

    def __init__(
        self,
        key: ApiKey,
        find: Callable[[], ApiKey | None],
        *,
        valid_s: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create one.

        `find` returns the key that the request would have now, and raises StoreUnavailableError. `valid_s` is
        `CHECK_S` unless it is given.
        """
        self._key, self._find, self._monotonic = key, find, monotonic
        self._valid_s = CHECK_S if valid_s is None else valid_s
        self._checked_at = monotonic()

    def check(self) -> None:
        """Raise ProblemError if the key was revoked, replaced or changed, or has expired. It may wait for Redis.

        Raises StoreUnavailableError if that is unknown.
        """
        if not self._is_due():
            return
        started_at = self._monotonic()
        key = self._find()
        if key is None or not key.has_same_rights(self._key):
            raise ProblemError(
                401, "The API key was revoked, replaced or changed, or has expired. Send the request again."
            )
        self._checked_at = started_at

    async def confirm(self) -> None:
        """Check the key without blocking other requests. Raises ProblemError, StoreUnavailableError."""
        if self._is_due():
            await run_in_threadpool(self.check)

    def _is_due(self) -> bool:
        return self._monotonic() - self._checked_at >= self._valid_s


async def confirm_admission(request: Request) -> None:
    """Check the key of a request that has waited. Raises ProblemError, StoreUnavailableError."""
    admission: Admission | None = getattr(request.state, "admission", None)
    if admission is not None:  # the login and webhooks have none
        await admission.confirm()


async def while_admitted(pieces: AsyncIterator[str], admission: Admission) -> AsyncIterator[str]:
    """Yield the pieces of an event stream until they or the admission end; comments while that cannot be checked."""
    upcoming: asyncio.Future[str | None] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(_next(pieces))
            await asyncio.wait({upcoming}, timeout=CHECK_S)
            try:
                await admission.confirm()
            except ProblemError:
                return
            except StoreUnavailableError:
                yield ": Redis is unavailable\n\n"
                await asyncio.sleep(RETRY_S)
                continue
            if upcoming.done():
                piece, upcoming = upcoming.result(), None
                if piece is None:
                    return
                yield piece
    finally:
        if upcoming is not None:
            upcoming.cancel()
            with suppress(asyncio.CancelledError):
                await upcoming
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def _next(pieces: AsyncIterator[str]) -> str | None:
    return await anext(pieces, None)
