"""Fixtures for readers of all pages: commands that start fast, and recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.docs.clone import command_server, recording
from tests.support.scripted import Request, ScriptedServer


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the address of the command server."""
    with command_server(tmp_path_factory.mktemp("commands") / "socket") as address:
        yield address


@pytest.fixture(scope="module")
def recordings() -> Iterator[str]:
    """Yield the URL of a server that has every recording."""

    def serve(_: Request) -> Iterator[bytes]:
        sound = recording()
        head = ["HTTP/1.1 200 OK", "Content-Type: audio/mpeg", f"Content-Length: {len(sound)}", "", ""]
        yield "\r\n".join(head).encode() + sound

    with ScriptedServer(serve) as server:
        yield server.url
