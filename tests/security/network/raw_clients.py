"""Clients on raw sockets: requests in pieces, slow readers, and apps to answer them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.web.conftest import KEYS
from workers.gateway.server.connections import ServerLimits
from workers.gateway.server.http_server import LimitedProtocol

HALF = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-More: "
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
FAST = ServerLimits(head_timeout_s=0.3, read_timeout_s=0.4, check_interval_s=0.02)
ROWS = {"Content-Type": "application/x-ndjson"}
UPLOAD = "/v1/batches/b/jobs"

#: More than the kernel buffers for a client that does not read.
MUCH = 8 << 20


@contextmanager
def connected(url: str, data: bytes = b"", *, source: str = "127.0.0.1", buffer: int = 0) -> Iterator[socket.socket]:
    """Connect from the address `source`; this side buffers only `buffer` unread bytes."""
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
    """Read until the connection ends."""
    received = bytearray()
    while piece := raw.recv(65_536):
        received += piece
    return bytes(received)


def send_slowly(raw: socket.socket, pieces: list[bytes], *, every_s: float = 0.0) -> None:
    """Send pieces one after the other."""
    for piece in pieces:
        raw.sendall(piece)
        time.sleep(every_s)


def until(raw: socket.socket, words: bytes) -> bytes:
    """Read up to and including these bytes."""
    received = b""
    while words not in received:
        piece = raw.recv(65_536)
        assert piece, received
        received += piece
    return received


def head(path: str, *, method: str = "POST", key: str = "all", kind: str = "application/x-ndjson") -> bytes:
    """Return the head of a request with a chunked body."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[key][0]}\r\n"
        f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def piece(data: bytes) -> bytes:
    """Return one chunk of such a body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def row(number: int) -> bytes:
    """Return one row of JSON."""
    return json.dumps({"audio_url": f"https://recordings.example/{number}.wav"}).encode() + b"\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


def has_begun(connection: object) -> bool:
    """Return whether part of a head has arrived."""
    assert isinstance(connection, LimitedProtocol)
    return bool(connection.conn.trailing_data[0])


def answering(size: int, pieces: int = 1) -> ASGIApp:
    """Return an app with a large response."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(1, pieces + 1):
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": number < pieces})

    return app
