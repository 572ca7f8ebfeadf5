"""The HTTP server: uvicorn with limits against slow and silent clients."""

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
from workers.gateway.security.browser_policy import HEADERS
from workers.gateway.server.connections import AWAITED_BODY, ConnectionLimiter, ServerLimits, client_of

_TOO_MANY = "Too many concurrent requests; try again later."


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits of its connections."""

    def __init__(self, app: ASGIApp, bounds: ServerLimits, **more: Any) -> None:
        # No WebSockets: uvicorn would pass their connections to a protocol without limits.
        super().__init__(
            app,
            http=LimitedProtocol,
            ws="none",
            backlog=bounds.backlog,
            log_config=None,
            access_log=False,
            server_header=False,
            **more,
        )
        self.limiter = ConnectionLimiter(bounds)


class Server(uvicorn.Server):
    """uvicorn's server, which checks its connections periodically."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, and to check connections."""
        await super().startup(sockets)
        cast(ServerConfig, self.config).limiter.check_all()


def _page(status: int, why: str) -> Response:
    """Return the page of the server itself, for browsers."""
    return problems.plain_page(problems.problem(status, why, problems.default_code(status)), HEADERS)


def _refusal(status: int, why: str) -> Response:
    """Return a response of the server itself, with the headers of all responses of the app."""
    return problems.response(problems.problem(status, why, problems.default_code(status)), HEADERS)


class LimitedProtocol(H11Protocol):
    """A client connection."""

    peer = ""
    awaits_body = False

    def __init__(self, config: uvicorn.Config, *more: Any, **named: Any) -> None:
        super().__init__(config, *more, **named)
        self._connections = cast(ServerConfig, config).limiter
        self._inner_app = cast(ASGIApp, self.app)
        self.app = cast(Any, self._run_app)

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No response is built while the previous one on this connection is unread: it would stay in memory, uncounted.
        await self.flow.drain()
        if self._connections.has_slot():
            scope["extensions"] = {**scope.get("extensions", {}), AWAITED_BODY: self._awaited_body}
            await self._inner_app(scope, receive, send)
        else:
            refuse = _page if problems.prefers_html(scope) else _refusal
            await refuse(503, _TOO_MANY)(scope, receive, send)

    @contextmanager
    def _awaited_body(self) -> Iterator[None]:
        """Count as waiting, not as an active request, while the body is read in the `with` body.

        Raises ProblemError if no slot is free once the body is complete.
        """
        if not self.cycle.more_body:
            yield
            return
        self.awaits_body = True
        self._connections.update(self)
        try:
            yield
        finally:
            self.awaits_body = False
            if not self.cycle.disconnected:
                self._connections.update(self)
        if not self._connections.has_slot():
            raise problems.ProblemError(503, _TOO_MANY)

    # ── events of the connection ───────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection."""
        super().connection_made(transport)
        self.peer = client_of(self.client[0]) if self.client else ""
        self._connections.update(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection."""
        self._connections.remove(self)
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Process received data, which may start a request."""
        super().handle_events()
        self._connections.update(self)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._connections.update(self)

    def pause_writing(self) -> None:
        """Count unread bytes: the client does not read."""
        super().pause_writing()
        # Now, not at the next periodic check: many responses can be built before it. But not within this write.
        self.loop.call_soon(self._connections.update_unread, self)

    def resume_writing(self) -> None:
        """Stop counting unread bytes: the client has read most of them."""
        super().resume_writing()
        self._connections.clear_unread(self)
        self._connections.update(self)

    # ── state of the connection ────────────────────────────────────────────────────────────────

    @property
    def is_waiting(self) -> bool:
        """True while a request, the rest of its head, or its body is still to be received."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return (is_answered or self.awaits_body) and not self.flow.write_paused and not self.transport.is_closing()

    @property
    def unread_bytes(self) -> int:
        """Bytes that the client has not read while writing is paused; else 0."""
        is_paused = self.flow.write_paused or self.transport.is_closing()
        return self.transport.get_write_buffer_size() if is_paused else 0

    def close(self, status: int, why: str) -> None:
        """Close it; if a request has started, answer with this error first."""
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
        else:
            self._refuse(status, why)

    def send_400_response(self, msg: str) -> None:
        """Answer invalid HTTP."""
        self._refuse(400, msg)

    def abort(self) -> None:
        """Close it immediately."""
        self.transport.abort()

    def _refuse(self, status: int, why: str) -> None:
        """Answer instead of the app, unless its response has started, and close. The app sees a disconnect."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(status, why)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _write(self, status: int, why: str) -> None:
        response = _refusal(status, why)
        is_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        headers = [*response.raw_headers, (b"connection", b"close")]
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        for event in (head, h11.Data(data=b"" if is_head else bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
