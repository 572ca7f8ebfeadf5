"""A proxy that replaces words in the responses of a server, for values that the server cannot be configured to send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class RewritingProxy:
    """Forwards all traffic, and replaces words in the responses with others of the same length."""

    def __init__(self, url: str, replacements: Mapping[bytes, bytes]) -> None:
        assert all(len(old) == len(new) for old, new in replacements.items())
        self._upstream = urlsplit(url)
        self._replacements = replacements
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, daemon=True).start()
        return self._upstream._replace(netloc=f"127.0.0.1:{self._listener.getsockname()[1]}").geturl()

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self: Self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((self._upstream.hostname, self._upstream.port))
            for source, target, replacements in ((client, server, {}), (server, client, self._replacements)):
                threading.Thread(target=self._forward, args=(source, target, replacements), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket, replacements: Mapping[bytes, bytes]) -> None:
        """Forward one direction. A word arrives in one chunk, because responses are small and local."""
        with source, target, suppress(OSError):  # the end of one direction closes both
            while chunk := source.recv(1 << 20):
                for old, new in replacements.items():
                    chunk = chunk.replace(old, new)
                target.sendall(chunk)
