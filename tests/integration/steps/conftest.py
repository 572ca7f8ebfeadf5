"""Fixtures of the tests of steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.scripted import ScriptedServer, answer


@pytest.fixture
def upstream() -> Iterator[ScriptedServer]:
    """Return an upstream that accepts every order."""
    with ScriptedServer(lambda request: [answer({"task_id": f"task of {request.json()['audio_url']}"})]) as server:
        yield server
