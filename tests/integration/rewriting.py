"""A server that says other words than the one behind it: for what a server cannot be made to say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class RewritingProxy:
    """Passes everything on; some words of the answers become others of the same length."""

    def __init__(self, url: str, words: Mapping[bytes, bytes]) -> None:
        assert all(len(said) == len(heard) for said, heard in words.items())
        self._behind = urlsplit(url)
        self._words = words
        self._listening = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, daemon=True).start()
        return self._behind._replace(netloc=f"127.0.0.1:{self._listening.getsockname()[1]}").geturl()

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self: Self) -> None:
        while True:
            try:
                caller, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection((self._behind.hostname, self._behind.port))
            for source, target, words in ((caller, server, {}), (server, caller, self._words)):
                threading.Thread(target=self._pass_on, args=(source, target, words), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket, words: Mapping[bytes, bytes]) -> None:
        """What is looked for comes in one piece: answers are small, and this machine's own."""
        with source, target, suppress(OSError):  # the other side is closed with the first that ends
            while piece := source.recv(1 << 20):
                for said, heard in words.items():
                    piece = piece.replace(said, heard)
                target.sendall(piece)
