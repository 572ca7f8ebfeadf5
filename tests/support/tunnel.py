"""An HTTP proxy that opens tunnels: every host leads to one server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

#: Bytes that are forwarded at once.
PIECE = 65_536


class TunnelProxy:
    """A proxy that answers CONNECT, and connects all clients with the port of a server on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        #: The heads of the requests that the proxy received.
        self.heads: list[str] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.heads.append(self._head(client))
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                for source, target in ((client, server), (server, client)):
                    thread = threading.Thread(target=_forward, args=(source, target))
                    self._threads.append(thread)
                    thread.start()

    @staticmethod
    def _head(client: socket.socket) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        return head.decode()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
