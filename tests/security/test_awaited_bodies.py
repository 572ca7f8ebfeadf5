"""Requests whose body does not come, or not whole: they take no place of whole ones, and fill no log."""

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
from tests.security.surface import changing
from tests.security.test_slow_clients import UPLOAD, connected, hello, piece, rest, row, until
from tests.web.conftest import KEYS, Build, Gateway, app_of, serving
from tests.web.seen import Person
from voicequeue.auth import signatures
from workers.gateway import problems
from workers.gateway.server import bodies
from workers.gateway.server.connections import Bounds, Connections
from workers.gateway.server.http_server import Config, Protocol, Server

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
SECRET = "0123456789abcdef" * 4
HOOK = f"/hooks/musicapi/job/voice?attempt=1&token={signatures.webhook_token(SECRET, 'job', 'voice', 1)}"
CONTINUE = "Expect: 100-continue\r\n"


def head(path: str, kind: str, more: str = "", *, method: str = "POST", size: int = 8_000) -> bytes:
    """A whole head, after which a body is to come."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS['all'][0]}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {size}\r\n{more}\r\n"
    ).encode()


def held_by(server: Server) -> Connections:
    """The connections of a server."""
    return cast(Config, server.config).held


def awaiting(server: Server) -> int:
    """Return how many connections wait for a body."""
    return len([each for each in list(held_by(server)._waiting) if each.awaits_body])


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads the body of a POST."""
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
def test_bodies_that_do_not_come_take_no_place_of_whole_requests(
    build_gateway: Build, path: str, kind: str, more: str
) -> None:
    """However many, with a key and without: the oldest of the same address is closed and reads why, others are
    answered, and who sends a body from another address has it taken."""
    gateway = build_gateway(secret=SECRET)
    with serving(gateway.stage, Bounds(places=8)) as (url, server), ExitStack() as stack:
        other = stack.enter_context(connected(url, head("/login", FORM, size=5), source="127.0.0.2"))
        first = stack.enter_context(connected(url, head(path, kind, more)))
        eventually(lambda: awaiting(server) == 2)
        for _ in range(30):
            stack.enter_context(connected(url, head(path, kind, more)))
        told = rest(first).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"frame-ancestors 'none'" in told
        for _ in range(3):
            assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
        other.sendall(b"key=x")
        assert until(other, b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    eventually(lambda: not held_by(server)._others and not held_by(server)._waiting)


def test_no_route_holds_a_place_while_its_body_is_awaited(gateway: Gateway) -> None:
    """Each that changes something, with a key and a session, as a form and as JSON: answered at once, or waiting."""
    session = Person(gateway, "all").session
    cookies = "; ".join(f"{name}={value}" for name, value in session.cookies.items())
    with serving(gateway.stage, Bounds()) as (url, server), ExitStack() as stack:
        for method, path in changing(app_of(gateway)):
            for kind in (FORM, JSON):
                stack.enter_context(connected(url, head(path, kind, f"Cookie: {cookies}\r\n", method=method)))
        eventually(lambda: awaiting(server) > 10 and not held_by(server)._others)


def test_who_sends_the_rest_of_a_body_gets_a_place_if_there_is_one() -> None:
    """Else 503, as if the body had been whole at once; no more are ever answered than there are places."""
    go_on, answered, app = threading.Event(), list[str](), FastAPI()
    problems.install(app)

    @app.post("/{name}")
    async def slow(request: Request, name: str) -> str:
        await bodies.read(request)
        answered.append(name)
        while not go_on.is_set():
            await asyncio.sleep(0.01)
        return "hello"

    def has_begun(count: int) -> bool:
        return len(answered) == count

    with serving(app, Bounds(places=4)) as (url, server), ExitStack() as stack:
        sources = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
        late = [stack.enter_context(connected(url, head("/late", JSON, size=1), source=each)) for each in sources[:2]]
        eventually(lambda: awaiting(server) == 2)
        for number in range(4):
            stack.enter_context(connected(url, head("/whole", JSON, size=1) + b"x", source=sources[2]))
            eventually(partial(has_begun, number + 1))
        for raw in late:
            raw.sendall(b"x")
            assert until(raw, b"Too many concurrent requests").startswith(b"HTTP/1.1 503 ")
        go_on.set()
        eventually(lambda: not held_by(server)._others)
        again = stack.enter_context(connected(url, head("/again", JSON, size=1), source=sources[2]))
        eventually(lambda: awaiting(server) == 1)
        again.sendall(b"x")
        assert until(again, b"hello").startswith(b"HTTP/1.1 200 ")
    assert answered == [*["whole"] * 4, "again"]


def test_a_body_may_take_longer_than_a_head() -> None:
    """It has a time of its own, and the connection is not closed before."""
    with (
        serving(reading, Bounds(head_s=0.1, look_s=0.02)) as (url, server),
        connected(url, head("/", JSON, size=1)) as raw,
    ):
        eventually(lambda: awaiting(server) == 1)
        [connection] = held_by(server)._waiting
        began = held_by(server)._waiting[connection]
        eventually(lambda: time.monotonic() > began + 0.3)
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
def test_a_client_that_goes_before_its_body_is_whole_fills_no_log(
    build_gateway: Build, caplog: pytest.LogCaptureFixture, method: str, path: str, kind: str
) -> None:
    """One line for the request, no error and no traceback."""
    caplog.set_level(logging.INFO)
    gateway = build_gateway(secret=SECRET)
    with serving(gateway.stage, Bounds()) as (url, server):
        for part in (b"", b"x"):
            with connected(url, head(path, kind, method=method) + part):
                eventually(lambda: bool(server.server_state.tasks))
            eventually(lambda: not server.server_state.tasks)
    lines = [each for each in caplog.records if each.name == "voicequeue.http"]
    assert [getattr(each, "status", 0) for each in lines] == [499, 499]
    assert [each for each in caplog.records if each.levelno >= logging.ERROR or each.exc_info] == []


def test_a_piece_that_is_no_http_ends_the_request_and_fills_no_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its answer has begun it reads why; after that the answer breaks off."""
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    caplog.set_level(logging.INFO)
    with serving(gateway.stage, Bounds()) as (url, server):
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
        assert not [each for each in server.server_state.connections if isinstance(each, Protocol)]
    assert [each for each in caplog.records if each.levelno >= logging.ERROR or each.exc_info] == []
