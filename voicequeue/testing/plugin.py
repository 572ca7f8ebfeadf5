"""The pytest plugin: fixtures for apps that use a queue. It imports nothing until a test asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from voicequeue.testing import AsyncFakeQueue, FakeQueue


@pytest.fixture(scope="session")
def _voicequeue_server() -> Any:
    """Return a Redis in this process, which all tests use one after the other."""
    from voicequeue.testing.memory import start_redis  # noqa: PLC0415

    return start_redis()


@pytest.fixture
def voicequeue_queue(_voicequeue_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQueue]:
    """Return an empty queue without Redis, workers and network, in the default namespace.

    During the test, every `VoiceQueue` and `AsyncVoiceQueue` that the app creates uses the same jobs, with any URL.
    """
    from voicequeue.testing.patching import use_in_memory  # noqa: PLC0415
    from voicequeue.testing.queue import FakeQueue, InMemoryRedis  # noqa: PLC0415

    with FakeQueue(InMemoryRedis(_voicequeue_server), prefix="voicequeue", namespace="") as queue:
        use_in_memory(queue.redis, monkeypatch.setattr)
        yield queue


@pytest.fixture
def async_voicequeue_queue(voicequeue_queue: FakeQueue) -> AsyncFakeQueue:
    """Return the asynchronous twin of `voicequeue_queue`, with the same jobs."""
    from voicequeue.testing.queue import AsyncFakeQueue  # noqa: PLC0415

    return AsyncFakeQueue(voicequeue_queue)
