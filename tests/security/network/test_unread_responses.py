"""Clients that do not read: their responses take a bounded amount of memory, and they are disconnected in time."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import requests
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.conftest import eventually
from tests.security.network.raw_clients import (
    FAST,
    MUCH,
    ROWS,
    UPLOAD,
    WHOLE,
    answering,
    connected,
    head,
    hello,
    piece,
    row,
    send_slowly,
    until,
)
from tests.web.conftest import Build, Gateway, serving
from voicequeue import EnqueueItemResult, VoiceJob, VoiceQueue
from voicequeue.domain.portions import PORTION_TEXT_MAX
from workers.gateway import response_spool
from workers.gateway.api import row_uploads
from workers.gateway.server import large_responses
from workers.gateway.server.connections import ServerLimits
from workers.gateway.server.http_server import LimitedProtocol

# ── responses ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
def test_unread_outcomes_stop_the_upload_and_take_bounded_space(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender is blocked, later disconnected, and its place is free."""
    monkeypatch.setattr(row_uploads, "MAX_UPLOADS", 1)
    monkeypatch.setattr(response_spool, "MEMORY_MAX_BYTES", 4_096)
    monkeypatch.setattr(response_spool, "SPOOL_MAX_BYTES", 100_000)
    spools: list[response_spool.ResponseSpool] = []
    sizes: list[int] = []
    real = response_spool.ResponseSpool.write

    def watched(self: response_spool.ResponseSpool, data: bytes) -> None:
        spools.append(self)
        real(self, data)
        sizes.append(self._spool.seek(0, 2))

    monkeypatch.setattr(response_spool.ResponseSpool, "write", watched)
    gateway = build_gateway()
    wrong = json.dumps({f"unknown{number}": 1 for number in range(49)}).encode() + b"\n"
    # Longer than filling the spool takes, also on a busy machine.
    bounds = replace(FAST, read_timeout_s=2.0)
    with serving(gateway.stage, bounds) as (url, _), connected(url, head(UPLOAD), buffer=4_096) as raw:
        with pytest.raises((ConnectionError, TimeoutError)):
            send_slowly(raw, [piece(wrong * 100)] * 1_000)
        assert len(set(map(id, spools))) == 1
        assert 50_000 < max(sizes) <= 100_000
        eventually(lambda: gateway("POST", UPLOAD, data=row(2), headers=ROWS).status_code == 200)


@pytest.mark.endurance
def test_an_unread_response_is_dropped(logged: Callable[[str], int]) -> None:
    """As one piece, or as a stream, whose later pieces are not produced: nothing stays in memory."""
    for app in (answering(MUCH), answering(65_536, 1_000_000)):
        with serving(app, FAST) as (url, server), connected(url, WHOLE, buffer=4_096):
            eventually(lambda: len(server.server_state.connections) == 1)
            [connection] = server.server_state.connections
            eventually(lambda: not server.server_state.connections, within_s=5)
            assert connection.transport.is_closing()
    assert logged("a response was not read for 0.4 s") == 1


def test_a_response_that_is_read_slowly_is_sent_completely() -> None:
    """Also after the timeout of unread responses: progress counts."""
    started_at = time.monotonic()
    with (
        serving(answering(MUCH), ServerLimits(read_timeout_s=1.0, check_interval_s=0.02)) as (url, _),
        connected(url, WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), buffer=65_536) as raw,
    ):
        size = 0
        while data := raw.recv(1 << 18):
            size += len(data)
            time.sleep(0.002 if time.monotonic() - started_at > 2 else 0.05)
    assert size > MUCH
    assert time.monotonic() - started_at > 2


def test_all_unread_responses_together_are_bounded(logged: Callable[[str], int]) -> None:
    """The client that has not read for the longest time is disconnected, the others are not."""
    bounds = ServerLimits(check_interval_s=0.02, max_unread_bytes=int(1.3 * MUCH))
    with (
        serving(answering(MUCH), bounds) as (url, server),
        connected(url, WHOLE, buffer=4_096),
    ):
        eventually(lambda: len(server.server_state.connections) == 1)
        [first] = server.server_state.connections
        eventually(lambda: server.config.limiter._unread)  # type: ignore[attr-defined]
        with connected(url, WHOLE, buffer=4_096) as raw:
            eventually(lambda: first not in server.server_state.connections)
            size = 0
            while size < MUCH:
                size += len(raw.recv(1 << 20))
    assert logged("bytes are unread: closed") == 1


# ── memory ────────────────────────────────────────────────────────────────────────────────────────


def test_rows_with_many_jobs_are_enqueued_in_bounded_chunks(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is bounded in jobs and in characters: 150 rows are not 15,000 jobs at once."""
    at_once: list[tuple[int, int]] = []
    real = VoiceQueue.enqueue_many

    def watched(self: VoiceQueue, orders: list[VoiceJob], *, on_result: Callable[[EnqueueItemResult], object]) -> Any:
        jobs = [job for order in orders for job in order.expand()]
        at_once.append((len(jobs), sum(len(job.canonical_content()) for job in jobs)))
        first: list[EnqueueItemResult] = []
        summary = real(self, orders[:1], on_result=first.append)
        for index in range(len(orders)):
            on_result(replace(first[0], index=index))
        return summary

    monkeypatch.setattr(VoiceQueue, "enqueue_many", watched)
    songs = [{"prompt": "la"}] * 100
    tiny = [{"audio_url": f"https://a.example/{number}.wav", "songs": songs} for number in range(12)]
    wide = [{**row, "metadata": {"a": "b" * 7_000}} for row in tiny[:3]]

    body = b"".join(json.dumps(row).encode() + b"\n" for row in tiny + wide)
    assert gateway("POST", UPLOAD, data=body, headers=ROWS).status_code == 200

    assert sum(jobs for jobs, _ in at_once) == 1_500
    assert max(jobs for jobs, _ in at_once) <= 500
    assert max(text for _, text in at_once) <= PORTION_TEXT_MAX


def test_unread_responses_exceed_the_bound_at_no_time() -> None:
    """An excess is noticed on writing, not at the next check, which may be late. The clients that have not read for the
    longest time are disconnected."""
    finished: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(MUCH)(scope, receive, send)
        finished.append(True)

    def have_finished(count: int) -> bool:
        return len(finished) == count

    with (
        serving(app, ServerLimits(max_unread_bytes=2 * MUCH, check_interval_s=60)) as (url, server),
        ExitStack() as stack,
    ):
        for number in range(1, 7):
            stack.enter_context(connected(url, WHOLE, buffer=4_096))
            eventually(partial(have_finished, number))
        connections = [
            connection for connection in server.server_state.connections if isinstance(connection, LimitedProtocol)
        ]
        eventually(lambda: 0 < sum(connection.unread_bytes for connection in connections) <= 2 * MUCH)


def test_no_response_is_produced_before_the_previous_one_is_read() -> None:
    """A client that pipelines requests without reading has one response in memory."""
    started: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.append(scope["path"])
        await (hello if scope["path"] == "/hello" else answering(MUCH))(scope, receive, send)

    with serving(app, ServerLimits()) as (url, _), connected(url, WHOLE * 3, buffer=4_096) as raw:
        eventually(lambda: started)
        assert requests.get(f"{url}/hello", timeout=5).text == "hello"
        assert started == ["/", "/hello"]
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        until(raw, b"0\r\n\r\nHTTP/1.1 200")
    assert started.count("/") > 1


def test_large_unread_responses_are_bounded_and_one_key_has_half_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They count in full until they are read, also the part in the kernel's buffers."""
    size = 6_000_000  # more than the kernel buffers for a client that does not read
    monkeypatch.setattr(large_responses, "MAX_UNREAD_BYTES", 25_000_000)
    answers = large_responses.LargeResponses()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "state": {"caller": scope["path"]}}, receive)
        await (await answers.respond(request, lambda: size * "x"))(scope, receive, send)

    def request_of(who: str) -> bytes:
        return f"GET /{who} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    with serving(app, ServerLimits()) as (url, _):
        with ExitStack() as stack:
            for who in ("greedy", "greedy", "other", "third"):
                until(stack.enter_context(connected(url, request_of(who), buffer=4_096)), b"HTTP/1.1 200")
            assert (requests.get(f"{url}/greedy", timeout=5).status_code, held_by(answers)) == (429, 4 * (size + 2))
            assert requests.get(f"{url}/fourth", timeout=5).status_code == 503
        eventually(lambda: held_by(answers) == 0)
        assert len(requests.get(f"{url}/greedy", timeout=5).json()) == size


def held_by(answers: large_responses.LargeResponses) -> int:
    """Return the bytes of responses in memory."""
    return answers._held.total()


def test_a_large_response_that_is_read_slowly_is_sent_completely() -> None:
    """It may take longer than the timeout of unread responses: each piece read counts."""
    size = 12_000_000
    answers = large_responses.LargeResponses()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "state": {"caller": "key"}}, receive)
        await (await answers.respond(request, lambda: size * "x"))(scope, receive, send)

    bounds = ServerLimits(read_timeout_s=1.0, check_interval_s=0.02)
    with serving(app, bounds) as (url, _), connected(url, WHOLE, buffer=65_536) as raw:
        started_at, size_read = time.monotonic(), 0
        while size_read < size:
            data = raw.recv(200_000)
            assert data, f"cut off after {size_read:,} bytes"
            size_read += len(data)
            time.sleep(0.05 if time.monotonic() - started_at < 2.5 * bounds.read_timeout_s else 0)
        assert time.monotonic() - started_at > 2 * bounds.read_timeout_s
