"""An HTTP server that follows a script, byte for byte: for responses that the simulator cannot give."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

#: A piece that closes the connection instead of sending bytes.
HANG_UP = b""

#: Idle connections are dropped after this many seconds.
_IDLE_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Request:
    """One received request; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


#: Returns the pieces of the response to a request, which are sent one after the other.
Script = Callable[[Request], Iterable[bytes]]


def answer(body: object, *, status: str = "200 OK", headers: Iterable[str] = ()) -> bytes:
    """Return a complete response: JSON, or text that is sent unchanged."""
    payload = (body if isinstance(body, str) else json.dumps(body)).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(payload)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + payload


def always(*pieces: bytes) -> Script:
    """Return a script that answers every request with these pieces."""
    return lambda _: iter(pieces)


class ScriptedServer:
    """A server that answers each request by a script, on its own port or on `port`; connections stay open."""

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server((host, port))
        #: The base URL, without a trailing slash.
        self.url = f"{'https' if tls else 'http'}://{host}:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="scripted")]
        #: All requests, in order of arrival.
        self.requests: list[Request] = []
        #: Number of connections opened.
        self.accepted = 0

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        # Closing alone would not wake the accepting thread.
        _shut(self._listener)
        self._threads[0].join()
        for connection in self._open:
            _shut(connection)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(_IDLE_TIMEOUT_S)
                self.accepted += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), name="scripted connection")
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer requests until either side closes the connection."""
        with suppress(OSError), self._secured(connection) as secured, secured.makefile("rb") as incoming:
            self._open.append(secured)
            while request := _read(incoming):
                self.requests.append(request)
                for piece in self._script(request):
                    if piece == HANG_UP:
                        return
                    secured.sendall(piece)

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            raise


def _read(incoming: BinaryIO) -> Request | None:
    method, _, rest = incoming.readline().decode("latin-1").partition(" ")
    headers: dict[str, str] = {}
    while line := incoming.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = incoming.read(int(headers.get("content-length", 0)))
    return Request(method, rest.partition(" ")[0], headers, body) if method else None


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
