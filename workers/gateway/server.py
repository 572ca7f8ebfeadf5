"""How the gateway speaks HTTP: uvicorn, with bounds on what clients may take without giving anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, cast

import h11
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from workers.gateway import problems
from workers.gateway.browsers import HEADERS
from workers.gateway.connections import AWAITED_BODY, Bounds, Connections, address

#: Answered where no place is left.
_TOO_MANY = "too many requests are being answered"


class Config(uvicorn.Config):
    """uvicorn's configuration, and the connections of its server."""

    def __init__(self, app: ASGIApp, bounds: Bounds, **more: Any) -> None:
        # WebSockets are not spoken; with them uvicorn would hand connections on to a protocol without bounds.
        super().__init__(
            app,
            http=Protocol,
            ws="none",
            backlog=bounds.backlog,
            log_config=None,
            access_log=False,
            server_header=False,
            **more,
        )
        self.held = Connections(bounds)


class Server(uvicorn.Server):
    """uvicorn's server, which looks after its connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        cast(Config, self.config).held.look()


def _refusal(status: int, why: str) -> Response:
    """An answer before, or instead of, the app's; with the headers that all of the app's have."""
    return problems.answer(problems.content(status, why, problems.code(status)), HEADERS)


class Protocol(H11Protocol):
    """One connection."""

    peer = ""
    awaits_body = False

    def __init__(self, config: uvicorn.Config, *more: Any, **named: Any) -> None:
        super().__init__(config, *more, **named)
        self._held = cast(Config, config).held
        self._whole_app = cast(ASGIApp, self.app)
        self.app = cast(Any, self._answer)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # While the answer before it on this connection is left unread none is made: it would wait in memory, uncounted.
        await self.flow.drain()
        if self._held.has_place():
            scope["extensions"] = {**scope.get("extensions", {}), AWAITED_BODY: self._awaited_body}
            await self._whole_app(scope, receive, send)
        else:
            await _refusal(503, _TOO_MANY)(scope, receive, send)

    @contextmanager
    def _awaited_body(self) -> Iterator[None]:
        """Wait for the body of the request, without a place among those that are answered. Raises Refusal where none
        is left when the body is whole."""
        if not self.cycle.more_body:
            yield
            return
        self.awaits_body = True
        self._held.note(self)
        try:
            yield
        finally:
            self.awaits_body = False
            if not self.cycle.disconnected:
                self._held.note(self)
        if not self._held.has_place():
            raise problems.Refusal(503, _TOO_MANY)

    # ── what a connection does ─────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio calls it."""
        super().connection_made(transport)
        self.peer = address(self.client[0]) if self.client else ""
        self._held.note(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._held.lost(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Take what has come, which may begin a request."""
        super().handle_events()
        self._held.note(self)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._held.note(self)

    def pause_writing(self) -> None:
        """As asyncio calls it, when the client leaves unread what was written."""
        super().pause_writing()
        # At once, not at the next look: before it many answers can be made. But not amid this write.
        self.loop.call_soon(self._held.note_unread, self)

    def resume_writing(self) -> None:
        """As asyncio calls it, when the client has read most of what was written."""
        super().resume_writing()
        self._held.note_read(self)
        self._held.note(self)

    # ── what is known of it ────────────────────────────────────────────────────────────────────

    @property
    def is_waiting(self) -> bool:
        """Whether a request is still to come, the rest of its head, or its body."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return (is_answered or self.awaits_body) and not self.flow.write_paused and not self.transport.is_closing()

    @property
    def unread(self) -> int:
        """Bytes that the client has not read, where nothing more is written before it does."""
        is_still = self.flow.write_paused or self.transport.is_closing()
        return self.transport.get_write_buffer_size() if is_still else 0

    def end(self, status: int, why: str) -> None:
        """Close it, and tell the client why where a request has begun."""
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._refuse(status, why)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def cut(self) -> None:
        """Close it at once."""
        self.transport.abort()

    def _refuse(self, status: int, why: str) -> None:
        """Answer instead of the app, unless its answer has begun, and close: the app finds its client gone."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._tell(status, why)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _tell(self, status: int, why: str) -> None:
        answer = _refusal(status, why)
        is_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        headers = [*answer.raw_headers, (b"connection", b"close")]
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        for event in (head, h11.Data(data=b"" if is_head else bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
