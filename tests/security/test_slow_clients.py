"""Clients that are slow, silent, or do not read: they take nothing that others need, and learn why they must go."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import eventually
from tests.web.conftest import KEYS, Build, Gateway, problem, serving
from tests.web.seen import Person
from voicequeue import VoiceJob, VoiceQueue
from voicequeue.domain.portions import TEXT_MAX
from workers.gateway import outbox
from workers.gateway.api import events, row_intake, row_uploads
from workers.gateway.server import bodies, large_responses, limit_log
from workers.gateway.server.connections import Bounds
from workers.gateway.server.http_server import Protocol

HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-More: "
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
FAST = Bounds(head_s=0.3, unread_s=0.4, look_s=0.02)
ROWS = {"Content-Type": "application/x-ndjson"}
UPLOAD = "/v1/batches/b/jobs"

#: More than the kernel keeps for a client that does not read.
MUCH = 8 << 20


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[str], int]:
    """How many lines of the log have these words; none is held back for what an earlier test did."""
    caplog.set_level(logging.INFO, limit_log.log.name)
    for sparing in limit_log.log.filters:
        monkeypatch.setattr(sparing, "_last", {})
    return lambda words: len([line for line in caplog.messages if words in line])


@contextmanager
def connected(url: str, data: bytes = b"", *, source: str = "127.0.0.1", buffer: int = 0) -> Iterator[socket.socket]:
    """A connection from that address, of which this side keeps only `buffer` bytes unread."""
    address = urlsplit(url)
    with socket.socket() as raw:
        if buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        raw.settimeout(10)
        raw.bind((source, 0))
        raw.connect((address.hostname, address.port))
        raw.sendall(data)
        yield raw


def rest(raw: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = bytearray()
    while piece := raw.recv(65_536):
        found += piece
    return bytes(found)


def sent(raw: socket.socket, pieces: list[bytes], *, every_s: float = 0.0) -> None:
    """Send one after the other, as long as they are taken."""
    for each in pieces:
        raw.sendall(each)
        time.sleep(every_s)


def until(raw: socket.socket, words: bytes) -> bytes:
    """All that comes, as far as these words."""
    found = b""
    while words not in found:
        piece = raw.recv(65_536)
        assert piece, found
        found += piece
    return found


def head(path: str, *, method: str = "POST", key: str = "all", kind: str = "application/x-ndjson") -> bytes:
    """The head of a request whose body comes in pieces."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[key][0]}\r\n"
        f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def piece(data: bytes) -> bytes:
    """One piece of such a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def row(number: int) -> bytes:
    """One line of JSON."""
    return json.dumps({"audio_url": f"https://recordings.example/{number}.wav"}).encode() + b"\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def has_begun(connection: object) -> bool:
    """Whether a part of a head has come."""
    assert isinstance(connection, Protocol)
    return bool(connection.conn.trailing_data[0])


def answering(size: int, pieces: int = 1) -> ASGIApp:
    """An app that gives much to read."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1, pieces + 1):
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": number < pieces})

    return app


# ── heads ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_must_come_in_time_however_it_is_dripped(said: Callable[[str], int]) -> None:
    """Nothing at all, half a head, a byte now and then, half of a second request: each connection is closed, and who
    began a request reads why. The log has one line."""
    with serving(hello, FAST) as (url, _), ExitStack() as stack:
        silent, half, dripping, second = (stack.enter_context(connected(url)) for _ in range(4))
        second.sendall(WHOLE)
        until(second, b"hello")
        for raw in (half, dripping, second):
            raw.sendall(HALF)
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            sent(dripping, [b"x"] * 250, every_s=0.02)
        assert time.monotonic() < begun + 4
        assert rest(silent) == b""
        for told in (rest(half), rest(second)):
            assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b"The head of a request must arrive within 0.3 s" in told
            assert b"frame-ancestors 'none'" in told
    assert said("no complete request within 0.3 s") == 1


def test_half_requests_take_no_place_of_whole_ones(said: Callable[[str], int]) -> None:
    """However many come, the oldest goes, first of those of the same address; whole requests are answered."""
    with serving(hello, Bounds(places=8)) as (url, server), ExitStack() as stack:
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
    assert said("too many connections wait for a request") == 1


def test_where_all_places_are_taken_a_request_is_told_so() -> None:
    """503 with the time to come again; as soon as one is free it is answered."""
    go_on = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["path"] == "/slow" and not go_on.is_set():
            await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    with serving(slow, Bounds(places=2)) as (url, server), ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(url, b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        eventually(lambda: len(server.server_state.tasks) == 2)
        refused = requests.get(url, timeout=5)
        problem(refused, 503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        go_on.set()
        eventually(lambda: not server.server_state.tasks)  # before that it might be closed as the oldest that waits
        assert requests.get(url, timeout=5).status_code == 200


# ── bodies ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/jobs"), ("PATCH", "/v1/batches/b"), ("POST", "/v1/cancel"), ("POST", "/v1/retry")],
)
def test_a_body_that_is_dripped_is_given_up(
    gateway: Gateway, method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On every route that takes one, and the client reads why."""
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    with connected(gateway.url, head(path, method=method, kind="application/json") + piece(b"{")) as raw:
        told = until(raw, b"within 0.1 s")
    assert told.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_form_that_is_dripped_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing is known of who sends it: the login takes a body without a key."""
    monkeypatch.setattr(bodies, "BODY_S", 0.1)
    with connected(gateway.url, head("/login", kind="application/x-www-form-urlencoded") + piece(b"key=")) as raw:
        assert until(raw, b"within 0.1 s").startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_an_upload_that_is_dripped_keeps_no_place(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch, said: Callable[[str], int]
) -> None:
    """Its rows are in, the last line says what was wrong, and the next upload has its place."""
    monkeypatch.setattr(row_uploads, "AT_ONCE", 1)
    monkeypatch.setattr(row_intake, "WINDOW_S", 0.3)
    gateway = build_gateway()
    with connected(gateway.url, head(UPLOAD) + piece(row(1))) as raw:
        told = until(raw, b'"outcome": "new"')
        raw.settimeout(0.02)
        while b"summary" not in told:
            raw.sendall(piece(b" "))
            try:
                told += raw.recv(65_536)
            except TimeoutError:
                continue
    [line] = [line for line in told.splitlines() if b"summary" in line]
    summary = json.loads(line)["summary"]
    assert (summary["complete"], summary["new"], summary["problem"]["status"]) == (False, 1, 408)
    assert "1024 bytes per second" in summary["problem"]["detail"]
    assert said("upload aborted") == 1
    eventually(lambda: gateway("POST", UPLOAD, data=row(2), headers=ROWS).status_code == 200)


def test_an_upload_ends_in_time_though_it_never_pauses(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line says why."""
    monkeypatch.setattr(row_intake, "UPLOAD_S", 0.2)

    def rows() -> Iterator[bytes]:
        for number in range(60):
            yield row(number)
            time.sleep(0.01)

    answer = gateway("POST", UPLOAD, data=rows(), headers=ROWS)

    summary = json.loads(answer.text.splitlines()[-1])["summary"]
    assert (summary["complete"], summary["problem"]["code"]) == (False, "request_timeout")
    assert "must end within 0.2 s" in summary["problem"]["detail"]


def test_time_that_redis_takes_is_not_the_senders(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row waits in Redis for longer than a sender would be waited for; the sender sends on when it hears of it."""
    monkeypatch.setattr(row_intake, "WINDOW_S", 0.3)
    real = VoiceQueue.enqueue_at_once

    def slowly(self: VoiceQueue, jobs: Any) -> Any:
        time.sleep(0.5)
        return real(self, jobs)

    monkeypatch.setattr(VoiceQueue, "enqueue_at_once", slowly)
    with connected(gateway.url, head(UPLOAD) + piece(row(1))) as raw:
        until(raw, b'"line": 1, "outcome": "new"')
        raw.sendall(piece(row(2)) + b"0\r\n\r\n")
        assert b'"complete": true, "new": 2' in until(raw, b"summary")


# ── places ────────────────────────────────────────────────────────────────────────────────────────


def test_one_key_takes_half_of_the_places_for_uploads(gateway: Gateway) -> None:
    """It is told 429 and when to come again; another key is served, and so is the first when it has done."""
    with ExitStack() as stack:
        for number in range(row_uploads.AT_ONCE // 2):
            raw = stack.enter_context(connected(gateway.url, head(UPLOAD) + piece(row(number))))
            until(raw, b'"outcome": "new"')
        refused = gateway("POST", UPLOAD, data=row(9), headers=ROWS)
        problem(refused, 429, "too_many_requests")
        assert int(refused.headers["Retry-After"]) > 0
        assert gateway("POST", UPLOAD, data=row(9), headers=ROWS, key="enqueue").status_code == 200
    eventually(lambda: gateway("POST", UPLOAD, data=row(9), headers=ROWS).status_code == 200)


def test_one_key_takes_a_part_of_the_streams_alone_also_through_pages(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 8 places 2, of 200 then 50; its page counts with its programs. Others follow all the same."""
    monkeypatch.setattr(events, "FOLLOWERS_MAX", 8)
    gateway = build_gateway()
    person = Person(gateway, "all")
    with ExitStack() as stack:
        page = stack.enter_context(person.session.get(f"{gateway.url}/live", stream=True, timeout=10))
        assert page.status_code == 200
        stack.enter_context(gateway("GET", "/v1/events", stream=True))
        problem(gateway("GET", "/v1/events", stream=True), 429, "too_many_requests")
        refused = person.session.get(f"{gateway.url}/live", stream=True, timeout=10)
        problem(refused, 429, "too_many_requests")
        with gateway("GET", "/v1/events", stream=True, key="read") as other:
            assert other.status_code == 200


def test_streams_and_uploads_leave_half_of_few_places_to_others(build_gateway: Build) -> None:
    """Of 16 places streams get 4 and uploads 4, whoever asks for them and however often; requests are answered."""
    bounds = Bounds(places=16)
    gateway = build_gateway(bounds)
    with serving(gateway.stage, bounds) as (url, server), ExitStack() as stack:
        seen = []
        for name in ("all", "read", "enqueue") * 6:
            bearer = {"Authorization": f"Bearer {KEYS[name][0]}"}
            asked = requests.get(f"{url}/v1/events", headers=bearer, stream=True, timeout=10)
            seen.append(stack.enter_context(asked).status_code)
            raw = stack.enter_context(connected(url, head(UPLOAD, key=name) + piece(row(1))))
            until(raw, b"\r\n\r\n")
        assert 2 <= seen.count(200) <= 4
        assert set(seen) <= {200, 403, 429, 503}
        assert len(server.config.held._others) <= 8  # type: ignore[attr-defined]
        assert requests.get(f"{url}/healthz", timeout=5).status_code == 200


# ── answers that are not read ─────────────────────────────────────────────────────────────────────


def test_outcomes_that_are_not_read_stop_the_upload_and_fill_no_disk(
    build_gateway: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender cannot send on, is cut off after a while, and its place is free."""
    monkeypatch.setattr(row_uploads, "AT_ONCE", 1)
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


def test_an_answer_that_is_not_read_is_given_up(said: Callable[[str], int]) -> None:
    """As one piece, or as a stream, whose next pieces are not made before: nothing of it stays."""
    for app in (answering(MUCH), answering(65_536, 1_000_000)):
        with serving(app, FAST) as (url, server), connected(url, WHOLE, buffer=4_096):
            eventually(lambda: len(server.server_state.connections) == 1)
            [held] = server.server_state.connections
            eventually(lambda: not server.server_state.connections, within_s=5)
            assert held.transport.is_closing()
    assert said("a response was not read for 0.4 s") == 1


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


def test_clients_together_leave_no_more_unread_than_there_is_room_for(said: Callable[[str], int]) -> None:
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
    assert said("bytes are unread: closed") == 1


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
    monkeypatch.setattr(large_responses, "HELD_MAX", 25_000_000)
    answers = large_responses.Large()

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


def held_by(answers: large_responses.Large) -> int:
    """Bytes of answers that are held."""
    return answers._held.total()


def test_a_large_answer_that_is_read_slowly_and_steadily_is_read_to_its_end() -> None:
    """It may take longer than a client that reads nothing is waited for: each piece that is read counts."""
    size = 12_000_000
    answers = large_responses.Large()

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
