"""Clients that are slow or silent: they block no one else, and get the reason for which they are disconnected."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from starlette.types import Receive, Scope, Send

from tests.conftest import eventually
from tests.security.network.raw_clients import (
    FAST,
    HALF,
    ROWS,
    UPLOAD,
    WHOLE,
    connected,
    has_begun,
    head,
    hello,
    piece,
    rest,
    row,
    send_slowly,
    until,
)
from tests.web.conftest import KEYS, Build, Gateway, problem, serving
from tests.web.seen import PageUser
from voicequeue import VoiceQueue
from workers.gateway.api import events, row_intake, row_uploads
from workers.gateway.server import bodies
from workers.gateway.server.connections import ServerLimits

# ── heads ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_must_arrive_in_time_in_any_number_of_pieces(logged: Callable[[str], int]) -> None:
    """No data, half a head, single bytes, half of a second request: each connection is closed, with an error if a
    request had started. The log has one line."""
    with serving(hello, FAST) as (url, _), ExitStack() as stack:
        silent, half, dripping, second = (stack.enter_context(connected(url)) for _ in range(4))
        second.sendall(WHOLE)
        until(second, b"hello")
        for raw in (half, dripping, second):
            raw.sendall(HALF)
        started_at = time.monotonic()
        with pytest.raises(ConnectionError):
            send_slowly(dripping, [b"x"] * 250, every_s=0.02)
        assert time.monotonic() < started_at + 4
        assert rest(silent) == b""
        for response in (rest(half), rest(second)):
            assert response.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b"The head of a request must arrive within 0.3 s" in response
            assert b"frame-ancestors 'none'" in response
    assert logged("no complete request within 0.3 s") == 1


def test_incomplete_requests_take_no_place_of_complete_ones(logged: Callable[[str], int]) -> None:
    """In any number: the oldest is closed, first those of the same address; complete requests are answered."""
    with serving(hello, ServerLimits(requests=8)) as (url, server), ExitStack() as stack:
        other = stack.enter_context(connected(url, WHOLE[:20], source="127.0.0.2"))
        first = stack.enter_context(connected(url, HALF))
        eventually(lambda: all(map(has_begun, server.server_state.connections)))
        for _ in range(40):
            stack.enter_context(connected(url, HALF))
        assert b"Too many connections wait for a request" in rest(first)
        assert [requests.get(url, timeout=5).text for _ in range(3)] == ["hello"] * 3
        eventually(lambda: len(server.server_state.connections) <= 8)
        other.sendall(WHOLE[20:])
        until(other, b"hello")
    assert logged("too many connections wait for a request") == 1


def test_a_request_without_a_free_place_gets_503() -> None:
    """With Retry-After; once a place is free the next request is answered."""
    release = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["path"] == "/slow" and not release.is_set():
            await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    with serving(slow, ServerLimits(requests=2)) as (url, server), ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(url, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        eventually(lambda: len(server.server_state.tasks) == 2)
        rejected = requests.get(url, timeout=5)
        problem(rejected, 503, "unavailable")
        assert int(rejected.headers["Retry-After"]) > 0
        release.set()
        eventually(lambda: not server.server_state.tasks)  # or it might be closed as the oldest that waits
        assert requests.get(url, timeout=5).status_code == 200


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs"), ("PATCH", "/v1/batches/b"), ("POST", "/v1/cancel"), ("POST", "/v1/retry")],
)
def test_a_slow_body_is_timed_out(gateway: Gateway, method: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every route with a body, and the client gets the reason."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.1)
    with connected(gateway.url, head(path, method=method, kind="application/json") + piece(b"{")) as raw:
        response = until(raw, b"within 0.1 s")
    assert response.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_slow_form_is_timed_out(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login accepts a body without a key."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.1)
    with connected(gateway.url, head("/login", kind="application/x-www-form-urlencoded") + piece(b"key=")) as raw:
        assert until(raw, b"within 0.1 s").startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_slow_upload_loses_its_place(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[str], int]
) -> None:
    """Its rows are stored, the last line states the problem, and the next upload gets the place."""
    monkeypatch.setattr(row_uploads, "MAX_UPLOADS", 1)
    monkeypatch.setattr(row_intake, "WINDOW_S", 0.3)
    gateway = build_gateway()
    with connected(gateway.url, head(UPLOAD) + piece(row(1))) as raw:
        response = until(raw, b'"outcome": "new"')
        raw.settimeout(0.02)
        while b"summary" not in response:
            raw.sendall(piece(b" "))
            try:
                response += raw.recv(65_536)
            except TimeoutError:
                continue
    [line] = [line for line in response.splitlines() if b"summary" in line]
    summary = json.loads(line)["summary"]
    assert (summary["complete"], summary["new"], summary["problem"]["status"]) == (False, 1, 408)
    assert "1024 bytes per second" in summary["problem"]["detail"]
    assert logged("upload aborted") == 1
    eventually(lambda: gateway("POST", UPLOAD, data=row(2), headers=ROWS).status_code == 200)


def test_an_upload_without_pauses_ends_in_time(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line states the reason."""
    monkeypatch.setattr(row_intake, "UPLOAD_TIMEOUT_S", 0.2)

    def rows() -> Iterator[bytes]:
        for number in range(150):
            yield row(number)
            time.sleep(0.01)

    answer = gateway("POST", UPLOAD, data=rows(), headers=ROWS)

    summary = json.loads(answer.text.splitlines()[-1])["summary"]
    assert (summary["complete"], summary["problem"]["code"]) == (False, "request_timeout")
    assert "must end within 0.2 s" in summary["problem"]["detail"]


def test_time_spent_in_redis_does_not_count_for_the_sender(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row waits in Redis for longer than the sender's timeout; the sender continues after its outcome."""
    monkeypatch.setattr(row_intake, "WINDOW_S", 0.3)
    real = VoiceQueue.enqueue_many

    def slowly(self: VoiceQueue, jobs: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return real(self, jobs, **options)

    monkeypatch.setattr(VoiceQueue, "enqueue_many", slowly)
    with connected(gateway.url, head(UPLOAD) + piece(row(1))) as raw:
        until(raw, b'"line": 1, "outcome": "new"')
        raw.sendall(piece(row(2)) + b"0\r\n\r\n")
        assert b'"complete": true, "new": 2' in until(raw, b"summary")


# ── places ────────────────────────────────────────────────────────────────────────────────────────


def test_one_key_gets_at_most_half_of_the_upload_places(gateway: Gateway) -> None:
    """It gets 429 with Retry-After; another key is served, and the first again after its uploads end."""
    with ExitStack() as stack:
        for number in range(row_uploads.MAX_UPLOADS // 2):
            raw = stack.enter_context(connected(gateway.url, head(UPLOAD) + piece(row(number))))
            until(raw, b'"outcome": "new"')
        rejected = gateway("POST", UPLOAD, data=row(9), headers=ROWS)
        problem(rejected, 429, "too_many_requests")
        assert int(rejected.headers["Retry-After"]) > 0
        assert gateway("POST", UPLOAD, data=row(9), headers=ROWS, key="enqueue").status_code == 200
    eventually(lambda: gateway("POST", UPLOAD, data=row(9), headers=ROWS).status_code == 200)


def test_one_key_gets_at_most_a_quarter_of_the_streams_pages_included(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 places 2 (of 200, 50); its page counts together with its programs. Other keys can still connect."""
    monkeypatch.setattr(events, "MAX_STREAMS", 8)
    gateway = build_gateway()
    person = PageUser(gateway, "all")
    with ExitStack() as stack:
        page = stack.enter_context(person.session.get(f"{gateway.url}/live", stream=True, timeout=10))
        assert page.status_code == 200
        stack.enter_context(gateway("GET", "/v1/events", stream=True))
        problem(gateway("GET", "/v1/events", stream=True), 429, "too_many_requests")
        rejected = person.session.get(f"{gateway.url}/live", stream=True, timeout=10)
        problem(rejected, 429, "too_many_requests")
        with gateway("GET", "/v1/events", stream=True, key="read") as other:
            assert other.status_code == 200


def test_streams_and_uploads_leave_half_of_the_places_to_other_requests(build_gateway: Build) -> None:
    """Of 16 places streams get 4 and uploads 4, for any number of keys and requests; other requests are answered."""
    bounds = ServerLimits(requests=16)
    gateway = build_gateway(bounds)
    with serving(gateway.stage, bounds) as (url, server), ExitStack() as stack:
        statuses = []
        for name in ("all", "read", "enqueue") * 6:
            bearer = {"Authorization": f"Bearer {KEYS[name][0]}"}
            stream = requests.get(f"{url}/v1/events", headers=bearer, stream=True, timeout=10)
            statuses.append(stack.enter_context(stream).status_code)
            raw = stack.enter_context(connected(url, head(UPLOAD, key=name) + piece(row(1))))
            until(raw, b"\r\n\r\n")
        assert 2 <= statuses.count(200) <= 4
        assert set(statuses) <= {200, 403, 429, 503}
        assert len(server.config.limiter._others) <= 8  # type: ignore[attr-defined]
        assert requests.get(f"{url}/healthz", timeout=5).status_code == 200
