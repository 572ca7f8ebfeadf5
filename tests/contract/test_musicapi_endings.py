"""Responses that do not end, or end wrongly: each request ends in time, once, with its own response or an error."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.musicapi import AmbiguousFailure, MusicApi, RequestPool, UpstreamError, requests, transport
from tests.conftest import eventually
from tests.contract.conftest import KEY, Connect, upstream_error
from tests.support.scripted import HANG_UP, Request, ScriptedServer, answer
from tests.support.tls import Authority

AUDIO_URL = "https://recordings.example/anna.mp3"
ACCEPTED = answer({"code": 200, "message": "success", "task_id": "t1"})

#: Timeout in seconds for responses that never end.
HASTY_S = 0.3

#: Seconds in which all requests of an example end, on a busy machine.
IN_TIME_S = 10.0

#: The pause between two packets of a response (seconds).
PACKET_S = 0.005


_OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "a header": (_OK + b"X", b"-"),
    "headers": (_OK + b"X", b"X: 1\r\n"),
    "a body": (_OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a malformed chunk": (_OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"zz\r\n"),
    "a body that ends with its connection": (_OK + b'\r\n{"task_id": "task-1"', b" "),
    "a whole result without its end": (_OK + b'\r\n{"task_id": "task-1"}', b" "),
    "informational responses": (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": (b"", b""),
}


@pytest.mark.parametrize(("start", "endless"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
def test_an_answer_that_never_ends_is_given_up(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, endless: bytes, *, is_secure: bool
) -> None:
    """A dripping response does not block a thread, the charge is unknown, and nothing is sent again."""
    over = threading.Event()

    def drip(_: Request) -> Iterator[bytes]:
        yield from filter(None, [start])
        while not over.wait(0.05):
            yield from filter(None, [endless])

    tls = None
    if is_secure:
        authority = Authority(tmp_path)
        certificate = authority.certificate("127.0.0.1")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with ScriptedServer(drip, tls=tls) as upstream:
        client = connect(upstream.url, connect_s=HASTY_S, answer_s=HASTY_S)
        order = upstream_error(lambda: client.create_voice(AUDIO_URL))
        assert len(upstream.requests) == 1
        poll = upstream_error(lambda: client.get_task("1"))
        over.set()
    assert (type(order), type(poll)) == (AmbiguousFailure, AmbiguousFailure)
    # What came at once with the headers loses the connection.
    messages = {"no answer in time", "the connection was lost"} if b"zz" in endless else {"no answer in time"}
    assert {order.message, poll.message} <= messages


def test_a_response_that_came_in_time_is_read_by_a_busy_process(connect: Connect) -> None:
    """Its time is over when the process continues, but the order was accepted."""
    busy = threading.Event()

    def respond(_: Request) -> Iterator[bytes]:
        busy.wait(10)
        yield ACCEPTED

    def block() -> None:
        busy.set()
        time.sleep(2 * HASTY_S)

    with ScriptedServer(respond) as upstream, ThreadPoolExecutor(1) as executor:
        client = connect(upstream.url, answer_s=HASTY_S)
        order = executor.submit(client.create_voice, AUDIO_URL)
        eventually(lambda: upstream.requests)
        client._transport.call_soon(block)
        assert order.result(10) == "t1"


def test_no_request_reads_the_response_to_another(connect: Connect) -> None:
    """Upstream sends a response twice: the second one, which came while the connection was kept, is dropped."""
    again = threading.Event()

    def respond(request: Request) -> Iterator[bytes]:
        task_id = f"t{len(upstream.requests)}"
        yield answer({"task_id": task_id})
        if task_id == "t1":
            again.wait(10)
            yield answer({"task_id": task_id})

    with ScriptedServer(respond) as upstream:
        client = connect(upstream.url)
        assert client.create_voice(AUDIO_URL) == "t1"
        again.set()
        # aiohttp's own pool does not look at it.
        eventually(lambda: any(protocol.should_close for protocol, _ in _kept(client)))
        assert client.create_voice(AUDIO_URL) == "t2"


def _kept(client: MusicApi) -> list[Any]:
    return [kept for connections in client._transport._connector._conns.values() for kept in connections]


@pytest.mark.usefixtures("connect")
@pytest.mark.parametrize("start", [start for start, _ in ENDLESS.values()], ids=ENDLESS)
def test_a_client_that_is_closed_takes_no_part_for_the_whole(start: bytes) -> None:
    """Its orders in flight end, and whether they were charged is unknown."""
    over = threading.Event()

    def begin(_: Request) -> Iterator[bytes]:
        yield from filter(None, [start])
        over.wait(10)
        yield HANG_UP

    with ScriptedServer(begin) as upstream, ThreadPoolExecutor(1) as executor:
        client = MusicApi(upstream.url, KEY)
        order = executor.submit(upstream_error, lambda: client.create_voice(AUDIO_URL))
        eventually(lambda: upstream.requests)
        client.close()
        assert type(order.result(5)) is AmbiguousFailure
        over.set()


@pytest.mark.parametrize(("delay_s", "sent"), [(0.0, 2), (0.3, 1)], ids=["at once", "after a while"])
def test_a_poll_is_sent_again_if_its_connection_is_closed_at_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, delay_s: float, sent: int
) -> None:
    """A kept connection was closed meanwhile. A later end is upstream's, and a stopping worker does not wait twice."""
    monkeypatch.setattr(transport, "STALE_S", 0.1)
    never = threading.Event()

    def hang_up(_: Request) -> Iterator[bytes]:
        never.wait(delay_s)
        yield HANG_UP

    with ScriptedServer(hang_up) as upstream:
        error = upstream_error(lambda: connect(upstream.url).get_task("1"))
    assert (type(error), error.message) == (AmbiguousFailure, "the connection was lost")
    assert len(upstream.requests) == sent


@st.composite
def damaged_responses(draw: st.DrawFn) -> list[bytes]:
    """Return a response with a few bytes changed, as packets."""
    body = json.dumps({"task_id": "t1", "data": [{"clip_id": "c1", "state": "succeeded"}]}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    response = bytearray(
        draw(
            st.sampled_from(
                [
                    answer(body.decode()),
                    _OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
                    _OK + b"\r\n" + body,
                    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(body.decode()),
                    answer({"error": "busy"}, status="503 Service Unavailable"),
                ]
            )
        )
    )
    for at in draw(st.lists(st.integers(0, len(response) - 1), max_size=3)):
        response[at] = draw(st.integers(0, 255))
    cuts = sorted(draw(st.lists(st.integers(1, len(response) - 1), max_size=3, unique=True)))
    packets = [bytes(response[start:end]) for start, end in zip([0, *cuts], [*cuts, len(response)], strict=True)]
    return [*packets, *draw(st.sampled_from([[], [HANG_UP]]))]


@pytest.mark.hypothesis
def test_every_request_ends_in_time_whatever_is_received(connect: Connect) -> None:
    """Many at once, of which each has a result, or an error that says whether it may be charged."""
    responses: list[list[bytes]] = []
    over = threading.Event()

    def respond(request: Request) -> Iterator[bytes]:
        for packet in responses[int(request.path.rpartition("/")[2])]:
            yield packet
            over.wait(PACKET_S)
        over.wait(4 * HASTY_S)

    with ScriptedServer(respond) as upstream:
        client = connect(upstream.url, connect_s=1.0, answer_s=HASTY_S, connections=30)

        @given(st.lists(damaged_responses(), min_size=20, max_size=30))
        def ends(drawn: list[list[bytes]]) -> None:
            responses[:] = drawn
            pool = RequestPool[int, Any](client)
            pool.send([(number, requests.get_task(str(number))) for number in range(len(drawn))])
            ends_at = time.monotonic() + IN_TIME_S
            while pool.is_open and time.monotonic() < ends_at:
                for completed in pool.collect(IN_TIME_S):
                    assert not isinstance(completed.outcome, Exception) or isinstance(completed.outcome, UpstreamError)
            assert not pool.is_open

        try:
            ends()
        finally:
            over.set()
