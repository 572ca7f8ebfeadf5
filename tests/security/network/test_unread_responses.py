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
    sent,
    until,
)
from tests.web.conftest import Build, Gateway, serving
from voicequeue import VoiceJob, VoiceQueue
from voicequeue.domain.portions import TEXT_MAX
from workers.gateway import batches, large, outbox
from workers.gateway.connections import Bounds
from workers.gateway.server import Protocol

# ── answers that are not read ─────────────────────────────────────────────────────────────────────


def test_outcomes_that_are_not_read_stop_the_upload_and_fill_no_disk(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender cannot send on, is cut off after a while, and its place is free."""
    monkeypatch.setattr(batches, "AT_ONCE", 1)
    monkeypatch.setattr(outbox, "IN_MEMORY", 4_096)
    monkeypatch.setattr(outbox, "SPOOL_MAX", 100_000)
    spools: list[outbox.Outbox] = []
    sizes: list[int] = []
    real = outbox.Outbox.put

    def watched(self: outbox.Outbox, data: bytes) -> None:
        spools.append(self)
        real(self, data)
        sizes.append(self._spool.seek(0, 2))

    monkeypatch.setattr(outbox.Outbox, "put", watched)
    gateway = build_gateway()
    wrong = json.dumps({f"unknown{number}": 1 for number in range(49)}).encode() + b"\n"
    # Longer than it takes to fill the spool, also on a busy machine.
    patient = replace(FAST, unread_s=2.0)
    with serving(gateway.stage, patient) as (url, _), connected(url, head(UPLOAD), buffer=4_096) as raw:
        with pytest.raises((ConnectionError, TimeoutError)):
            sent(raw, [piece(wrong * 100)] * 1_000)
        assert len(set(map(id, spools))) == 1
        assert 50_000 < max(sizes) <= 100_000
        eventually(lambda: gateway("POST", UPLOAD, data=row(2), headers=ROWS).status_code == 200)


def test_an_answer_that_is_not_read_is_given_up(logged: Callable[[str], int]) -> None:
    """As one piece, or as a stream, whose next pieces are not made before: nothing of it stays."""
    for app in (answering(MUCH), answering(65_536, 1_000_000)):
        with serving(app, FAST) as (url, server), connected(url, WHOLE, buffer=4_096):
            eventually(lambda: len(server.server_state.connections) == 1)
            [held] = server.server_state.connections
            eventually(lambda: not server.server_state.connections, within_s=5)
            assert held.transport.is_closing()
    assert logged("has not read an answer for 0.4 s") == 1


def test_an_answer_that_is_read_slowly_is_read_to_its_end() -> None:
    """Longer than one that is not read would be kept: what counts is that it goes on."""
    begun = time.monotonic()
    with (
        serving(answering(MUCH), Bounds(unread_s=1.0, look_s=0.02)) as (url, _),
        connected(url, WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), buffer=65_536) as raw,
    ):
        size = 0
        while came := raw.recv(1 << 18):
            size += len(came)
            time.sleep(0.002 if time.monotonic() - begun > 2 else 0.05)
    assert size > MUCH
    assert time.monotonic() - begun > 2


def test_clients_together_leave_no_more_unread_than_there_is_room_for(logged: Callable[[str], int]) -> None:
    """Of those who do not read, the one that waits longest is cut off, the others are not."""
    bounds = Bounds(look_s=0.02, buffered=int(1.3 * MUCH))
    with (
        serving(answering(MUCH), bounds) as (url, server),
        connected(url, WHOLE, buffer=4_096),
    ):
        eventually(lambda: len(server.server_state.connections) == 1)
        [first] = server.server_state.connections
        eventually(lambda: server.config.held._unread)  # type: ignore[attr-defined]
        with connected(url, WHOLE, buffer=4_096) as raw:
            eventually(lambda: first not in server.server_state.connections)
            size = 0
            while size < MUCH:
                size += len(raw.recv(1 << 20))
    assert logged("bytes unread: cut off") == 1


# ── memory ────────────────────────────────────────────────────────────────────────────────────────


def test_rows_that_stand_for_many_jobs_are_not_all_held_at_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes to Redis at once is counted in jobs and in characters: not 15,000 jobs because they are 150 rows."""
    at_once: list[tuple[int, int]] = []
    real = VoiceQueue.enqueue_at_once

    def watched(self: VoiceQueue, orders: list[VoiceJob]) -> Any:
        jobs = [job for order in orders for job in order.each()]
        at_once.append((len(jobs), sum(len(job.content()) for job in jobs)))
        return real(self, orders[:1]) * len(orders)

    monkeypatch.setattr(VoiceQueue, "enqueue_at_once", watched)
    songs = [{"prompt": "la"}] * 100
    tiny = [{"audio_url": f"https://a.example/{number}.wav", "songs": songs} for number in range(12)]
    wide = [{**each, "metadata": {"a": "b" * 7_000}} for each in tiny[:3]]

    body = b"".join(json.dumps(each).encode() + b"\n" for each in tiny + wide)
    assert gateway("POST", UPLOAD, data=body, headers=ROWS).status_code == 200

    assert sum(jobs for jobs, _ in at_once) == 1_500
    assert max(jobs for jobs, _ in at_once) <= 500
    assert max(text for _, text in at_once) <= TEXT_MAX


def test_many_answers_that_are_not_read_take_no_more_than_is_allowed_at_any_time() -> None:
    """What is too much is seen when it is written, not at the next look, which may be late. Those go that have not
    read for the longest time."""
    made: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering(MUCH)(scope, receive, send)
        made.append(True)

    def has_made(count: int) -> bool:
        return len(made) == count

    with serving(app, Bounds(buffered=2 * MUCH, look_s=60)) as (url, server), ExitStack() as stack:
        for number in range(1, 7):
            stack.enter_context(connected(url, WHOLE, buffer=4_096))
            eventually(partial(has_made, number))
        all_of_them = [each for each in server.server_state.connections if isinstance(each, Protocol)]
        eventually(lambda: 0 < sum(each.unread for each in all_of_them) <= 2 * MUCH)


def test_no_answer_is_made_while_the_one_before_it_is_not_read() -> None:
    """A client that asks again and again on one connection, and does not read, has one answer in memory."""
    begun: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.append(scope["path"])
        await (hello if scope["path"] == "/hello" else answering(MUCH))(scope, receive, send)

    with serving(app, Bounds()) as (url, _), connected(url, WHOLE * 3, buffer=4_096) as raw:
        eventually(lambda: begun)
        assert requests.get(f"{url}/hello", timeout=5).text == "hello"
        assert begun == ["/", "/hello"]
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        until(raw, b"0\r\n\r\nHTTP/1.1 200")
    assert begun.count("/") > 1


def test_large_answers_that_are_not_read_are_held_up_to_a_bound_and_one_key_has_half_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They count whole until they are read, whatever of them the system has taken already."""
    size = 6_000_000  # more than the system takes of what is not read
    monkeypatch.setattr(large, "HELD_MAX", 25_000_000)
    answers = large.Large()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "state": {"who": scope["path"]}}, receive)
        await (await answers.answer(request, lambda: size * "x"))(scope, receive, send)

    def asking(who: str) -> bytes:
        return f"GET /{who} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    with serving(app, Bounds()) as (url, _):
        with ExitStack() as stack:
            for who in ("greedy", "greedy", "other", "third"):
                until(stack.enter_context(connected(url, asking(who), buffer=4_096)), b"HTTP/1.1 200")
            assert (requests.get(f"{url}/greedy", timeout=5).status_code, held_by(answers)) == (429, 4 * (size + 2))
            assert requests.get(f"{url}/fourth", timeout=5).status_code == 503
        eventually(lambda: held_by(answers) == 0)
        assert len(requests.get(f"{url}/greedy", timeout=5).json()) == size


def held_by(answers: large.Large) -> int:
    """Bytes of answers that are held."""
    return answers._held.total()


def test_a_large_answer_that_is_read_slowly_and_steadily_is_read_to_its_end() -> None:
    """It may take longer than a client that reads nothing is waited for: each piece that is read counts."""
    size = 12_000_000
    answers = large.Large()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "state": {"who": "key"}}, receive)
        await (await answers.answer(request, lambda: size * "x"))(scope, receive, send)

    bounds = Bounds(unread_s=1.0, look_s=0.02)
    with serving(app, bounds) as (url, _), connected(url, WHOLE, buffer=65_536) as raw:
        begun, came = time.monotonic(), 0
        while came < size:
            piece_came = raw.recv(200_000)
            assert piece_came, f"cut off after {came:,} bytes"
            came += len(piece_came)
            time.sleep(0.05 if time.monotonic() - begun < 2.5 * bounds.unread_s else 0)
        assert time.monotonic() - begun > 2 * bounds.unread_s
