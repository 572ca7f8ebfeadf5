"""Requests with missing or incomplete bodies: they take no place of complete ones, and no traceback is logged."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import cast

import pytest
import requests
from fastapi import FastAPI, Request
from starlette.types import Receive, Scope, Send

from tests.conftest import eventually
from tests.security.network.raw_clients import UPLOAD, connected, hello, piece, rest, row, until
from tests.security.surface import changing
from tests.web.conftest import KEYS, Build, Gateway, app_of, serving
from tests.web.seen import PageUser
from voicequeue.auth import signatures
from workers.gateway import problems
from workers.gateway.server import bodies
from workers.gateway.server.connections import ConnectionLimiter, ServerLimits
from workers.gateway.server.http_server import LimitedProtocol, Server, ServerConfig

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
SECRET = "0123456789abcdef" * 4
HOOK = f"/hooks/musicapi/job/voice?attempt=1&token={signatures.webhook_token(SECRET, 'job', 'voice', 1)}"
CONTINUE = "Expect: 100-continue\r\n"


def head(path: str, kind: str, more: str = "", *, method: str = "POST", size: int = 8_000) -> bytes:
    """Return a complete head of a request whose body follows."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS['all'][0]}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n"
    ).encode()


def held_by(server: Server) -> ConnectionLimiter:
    """Return the connections of a server."""
    return cast(ServerConfig, server.config).limiter


def awaiting(server: Server) -> int:
    """Return how many connections wait for a body."""
    return len([connection for connection in list(held_by(server)._waiting) if connection.awaits_body])


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body of a POST, then answer."""
    if scope["method"] == "POST":
        await bodies.read(Request(scope, receive))
    await hello(scope, receive, send)


@pytest.mark.parametrize(
    ("path", "kind", "more"),
    [
        ("/login", FORM, ""),
        ("/login", FORM, CONTINUE),
        ("/v1/jobs", JSON, ""),
        ("/v1/jobs", JSON, CONTINUE),
        (HOOK, JSON, ""),
    ],
)
def test_missing_bodies_take_no_place_of_complete_requests(
    build_gateway: Build, path: str, kind: str, more: str
) -> None:
    """In any number, with a key or without: the oldest connection of the same address is closed with an error, other
    requests are answered, and a body from another address is accepted."""
    gateway = build_gateway(secret=SECRET)
    with serving(gateway.stage, ServerLimits(requests=8)) as (url, server), ExitStack() as stack:
        other = stack.enter_context(connected(url, head("/login", FORM, size=5), source="127.0.0.2"))
        first = stack.enter_context(connected(url, head(path, kind, more)))
        eventually(lambda: awaiting(server) == 2)
        for _ in range(30):
            stack.enter_context(connected(url, head(path, kind, more)))
        response = rest(first).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"frame-ancestors 'none'" in response
        for _ in range(3):
            assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
        other.sendall(b"key=x")
        assert until(other, b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    eventually(lambda: not held_by(server)._others and not held_by(server)._waiting)


def test_no_route_takes_a_place_while_it_waits_for_a_body(gateway: Gateway) -> None:
    """Each changing route, with a key and a session, as a form and as JSON: answered at once, or waiting."""
    session = PageUser(gateway, "all").session
    cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    with serving(gateway.stage, ServerLimits()) as (url, server), ExitStack() as stack:
        for method, path in changing(app_of(gateway)):
            for kind in (FORM, JSON):
                stack.enter_context(connected(url, head(path, kind, f"Cookie: {cookies}\r\n", method=method)))
        eventually(lambda: awaiting(server) > 10 and not held_by(server)._others)


def test_a_completed_body_gets_a_place_if_one_is_free() -> None:
    """Otherwise 503, as for a request with a complete body; never are more requests processed than there are places."""
    release, answered, app = threading.Event(), list[str](), FastAPI()
    problems.install(app)

    @app.post("/{name}")
    async def slow(request: Request, name: str) -> str:
        await bodies.read(request)
        answered.append(name)
        while not release.is_set():
            await asyncio.sleep(0.01)
        return "hello"

    def has_started(count: int) -> bool:
        return len(answered) == count

    with serving(app, ServerLimits(requests=4)) as (url, server), ExitStack() as stack:
        sources = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
        late = [
            stack.enter_context(connected(url, head("/late", JSON, size=1), source=source)) for source in sources[:2]
        ]
        eventually(lambda: awaiting(server) == 2)
        for number in range(4):
            stack.enter_context(connected(url, head("/whole", JSON, size=1) + b"x", source=sources[2]))
            eventually(partial(has_started, number + 1))
        for raw in late:
            raw.sendall(b"x")
            assert until(raw, b"Too many concurrent requests").startswith(b"HTTP/1.1 503 ")
        release.set()
        eventually(lambda: not held_by(server)._others)
        again = stack.enter_context(connected(url, head("/again", JSON, size=1), source=sources[2]))
        eventually(lambda: awaiting(server) == 1)
        again.sendall(b"x")
        assert until(again, b"hello").startswith(b"HTTP/1.1 200 ")
    assert answered == [*["whole"] * 4, "again"]


def test_a_body_may_take_longer_than_a_head() -> None:
    """It has its own timeout, and the connection is not closed earlier."""
    with (
        serving(reading, ServerLimits(head_timeout_s=0.1, check_interval_s=0.02)) as (url, server),
        connected(url, head("/", JSON, size=1)) as raw,
    ):
        eventually(lambda: awaiting(server) == 1)
        [connection] = held_by(server)._waiting
        waiting_since = held_by(server)._waiting[connection]
        eventually(lambda: time.monotonic() > waiting_since + 0.3)
        raw.sendall(b"x")
        assert until(raw, b"hello").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/login", FORM),
        ("POST", "/v1/jobs", JSON),
        ("PATCH", "/v1/batches/b", JSON),
        ("POST", UPLOAD, "application/x-ndjson"),
        ("POST", HOOK, JSON),
    ],
)
def test_a_client_that_disconnects_during_its_body_logs_no_traceback(
    build_gateway: Build, caplog: pytest.LogCaptureFixture, method: str, path: str, kind: str
) -> None:
    """One line for the request, no error and no traceback."""
    caplog.set_level(logging.INFO)
    gateway = build_gateway(secret=SECRET)
    with serving(gateway.stage, ServerLimits()) as (url, server):
        for part in (b"", b"x"):
            with connected(url, head(path, kind, method=method) + part):
                eventually(lambda: bool(server.server_state.tasks))
            eventually(lambda: not server.server_state.tasks)
    lines = [record for record in caplog.records if record.name == "voicequeue.http"]
    assert [getattr(record, "status", 0) for record in lines] == [499, 499]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


def test_an_invalid_chunk_ends_the_request_and_logs_no_traceback(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the response has started the client gets an error; after that the response is cut off."""
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    caplog.set_level(logging.INFO)
    with serving(gateway.stage, ServerLimits()) as (url, server):
        with connected(url, head("/login", FORM).replace(b"Content-Length: 8000\r\n\r\n", chunked)) as raw:
            eventually(lambda: awaiting(server) == 1)
            raw.sendall(b"no size\r\n")
            assert rest(raw).startswith(b"HTTP/1.1 400 ")
        rows = head(UPLOAD, "application/x-ndjson").replace(b"Content-Length: 8000\r\n\r\n", chunked)
        with connected(url, rows + piece(row(1))) as raw:
            until(raw, b'"outcome": "new"')
            raw.sendall(b"no size\r\n")
            assert b"summary" not in rest(raw)
        eventually(lambda: not server.server_state.tasks)
        assert not [open_ for open_ in server.server_state.connections if isinstance(open_, LimitedProtocol)]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []
