"""The deployment of docker-compose.yml: with its secrets and rights everything works, and nothing else does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from redis.exceptions import AuthenticationError, ResponseError

from tests.acceptance.conftest import jobs, settled
from tests.conftest import eventually
from tests.security.broker.deployment import PROCESSES, Deployment, deployment, flower_shows
from tests.support import composed
from tests.support.messages import INTAKE_KEY, NAME, plain_client
from voicequeue import ArchiveState, VoiceQueue

__all__ = ["deployment"]

# ── what the secrets and rights allow ─────────────────────────────────────────────────────────────


def test_each_process_works_with_the_secrets_and_rights_of_the_compose_file(deployment: Deployment) -> None:
    """A song is made, reported by webhook, archived and called back; Flower sees it, and a plain Celery client sends
    jobs. Valkey rejects no command of any process."""
    with (
        VoiceQueue(deployment.url("app"), namespace="*") as queue,
        plain_client(deployment.url("producer")) as client,
    ):
        queue.enqueue_many(job.model_copy(update={"callback_url": deployment.receiver}) for job in jobs(3))
        message = {"audio_url": "https://recordings.example/a.wav", "batch": "voices"}
        client.send_task(NAME, kwargs={"job": message}, queue="intake")
        eventually(lambda: queue.batch("voices").total == 4 and settled(queue), within_s=40)
        eventually(lambda: [job.archive for job in queue.jobs(batch="voices") if job.clips] == [ArchiveState.DONE] * 3)
        assert queue.audit() == []
    eventually(lambda: len(deployment.called) >= 3)

    assert {worker.partition("@")[0] for worker in flower_shows(deployment, "workers")} == set(PROCESSES[:3])
    assert {"voice.submit", "song.archive"} <= {task["name"] for task in flower_shows(deployment, "tasks").values()}
    assert {queue["messages"] for queue in flower_shows(deployment, "queues/length")["active_queues"]} == {0}
    assert deployment.rejected_commands() == []


def test_the_doctor_reports_no_difference_for_processes_with_fewer_secrets(deployment: Deployment) -> None:
    """Each process reports only the settings it uses. The doctor needs no more rights than a worker."""
    report = deployment.command("doctor", "--strict")

    assert report.returncode == 0, report.stdout + report.stderr
    assert deployment.rejected_commands() == []


def test_no_secret_appears_in_a_command_line_an_environment_or_a_log(deployment: Deployment) -> None:
    """Neither the process's own nor another's: `docker inspect` shows environments."""
    secrets = [text for value in deployment.secrets.values() for text in value.split(":")]
    shown = [log.read_text() for log in deployment.logs.glob("*.log")]
    valkey = deployment.admin.info()["process_id"]
    shown += [Path(f"/proc/{pid}/cmdline").read_text() for pid in (*deployment.pids.values(), valkey)]
    shown += [Path(f"/proc/{pid}/environ").read_text() for pid in (*deployment.pids.values(), valkey)]

    assert len(shown) == 3 * (len(PROCESSES) + 1)
    assert len(long := [text for text in secrets if len(text) > 10]) > len(PROCESSES)
    assert [text for text in long if text in "\n".join(shown)] == []


def test_a_container_writes_neither_to_its_image_nor_to_its_home(deployment: Deployment) -> None:
    """Its file system is read-only, but for volumes and a /tmp in memory."""
    assert deployment.image.files() == deployment.files_before
    assert not Path("/nowhere").exists()


@pytest.mark.parametrize("service", PROCESSES)
def test_the_healthcheck_of_each_service_passes_while_it_works(deployment: Deployment, service: str) -> None:
    """By its very command, in its container; the ports differ here. A probe asks for the processes of its host."""
    kind, *command = composed.services()[service]["healthcheck"]["test"]
    env = deployment.environments[service]
    ports = {"127.0.0.1:8000": f"127.0.0.1:{env['PORT']}", "127.0.0.1:5555": f"127.0.0.1:{env['FLOWER_PORT']}"}
    for port, local in ports.items():
        command = [argument.replace(port, local) for argument in command]

    checked = deployment.execute(service, command)

    assert (kind, checked.returncode) == ("CMD", 0), checked.stdout + checked.stderr
    assert "config/probe.sh" not in command or checked.stdout.startswith(f"alive: {service}@")


# ── what they forbid ──────────────────────────────────────────────────────────────────────────────

#: Commands that administer a Redis, replicate it, or run code in it.
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
    """Return Valkey's error for a forbidden command, or ""."""
    with Redis.from_url(url, socket_timeout=5) as redis:
        try:
            redis.execute_command(*command)
        except ResponseError as error:
            return str(error) if re.search("no permissions|not allowed", str(error), re.IGNORECASE) else ""
    return ""


@pytest.mark.parametrize("user", ["app", "worker", "gateway", "flower", "producer", "monitor"])
def test_no_process_may_administer_valkey_or_access_other_data(deployment: Deployment, user: str) -> None:
    """An attacker who controls a process can neither stop Valkey, nor write files through it, nor access other data,
    also not with a script."""
    direct = {command: refusal(deployment.url(user), *command.split()) for command in (*ADMINISTRATION, *ELSEWHERE)}
    by_script = {
        command: refusal(deployment.url(user), "EVAL", SCRIPT, "0", *command.split())
        for command in ("FLUSHALL", "CONFIG SET dir /tmp", *ELSEWHERE[:5])
    }

    assert [command for command, words in {**direct, **by_script}.items() if not words] == []


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("app", {"info", "config|get"}),
        ("worker", {"info", "config|get"}),
        ("gateway", {"info"}),
        ("flower", set()),
        ("producer", set()),
        ("monitor", {"info"}),
    ],
)
def test_of_the_dangerous_commands_a_process_may_only_use_read_only_ones(
    deployment: Deployment, user: str, allowed: set[str]
) -> None:
    """Also of commands in a newer Valkey: its own list is checked, with any number of arguments."""
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
        "HSET {voicequeue}:limits x y",
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
    """Its password gives access only to the content of its pages: workers, tasks, queue lengths."""
    assert refusal(deployment.url("flower"), *command.split())


#: Reply addresses to which a worker would write with its own rights.
_ADDRESSES = (
    {"exchange": "", "routing_key": "unacked"},
    {"exchange": "", "routing_key": "unacked_index"},
    {"exchange": "", "routing_key": "intake"},
    {"exchange": "intake", "routing_key": "intake"},
    {"exchange": "reply.celery.pidbox", "routing_key": "intake"},
    {"exchange": "reply.celery.pidbox", "routing_key": "../intake"},
    "intake",
)

#: Commands that Celery executes and that would have lasting effects.
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


def publish(url: str, body: Any, channel: str = "celery.pidbox") -> None:
    """Publish a command as this user; check that each worker receives it."""
    envelope = {"body": json.dumps(body), "content-type": "application/json", "properties": {}, "headers": {}}
    with Redis.from_url(url) as redis:
        assert redis.publish(f"{{voicequeue}}:celery:/0.{channel}", json.dumps(envelope)) >= 3


def inspect(url: str, method: str) -> dict[str, Any]:
    """Ask the workers with an operator's client."""
    with plain_client(url) as client:
        return getattr(client.control.inspect(timeout=2, limit=3), method)() or {}


def test_remote_control_changes_no_worker_and_writes_to_no_queue(deployment: Deployment) -> None:
    """Neither Flower's user nor an app can stop a worker, remove its queues, or make it reply to other keys."""
    before = inspect(deployment.url("app"), "active_queues")
    assert len(before) == 3
    reply: dict[str, Any] = {"ticket": "x", "destination": None, "arguments": {}}
    for address in _ADDRESSES:
        publish(deployment.url("flower"), {"method": "ping", **reply, "reply_to": address})
    for method, arguments in _COMMANDS.items():
        publish(deployment.url("flower"), {"method": method, "arguments": arguments})
    publish(deployment.url("flower"), {"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"})
    with Redis.from_url(deployment.url("flower")) as redis:
        redis.set("{voicequeue}:celery:00000000-0000-0000-0000-000000000000.reply.celery.pidbox", "no list")
    address = {"exchange": "reply.celery.pidbox", "routing_key": "00000000-0000-0000-0000-000000000000"}
    publish(deployment.url("flower"), {"method": "ping", **reply, "reply_to": address})

    assert inspect(deployment.url("app"), "active_queues") == before
    root = "{voicequeue}:celery:"
    names = ("unacked", "unacked_index", "intake", "submit", "poll")
    kinds = [deployment.admin.type(root + name) for name in names]
    assert all(kind in ("none", right) for kind, right in zip(kinds, ["hash", "zset", *["list"] * 3], strict=True))
    assert deployment.admin.llen(f"{root}intake") == 0
    logs = "".join((deployment.logs / f"{name}.log").read_text() for name in PROCESSES[:3])
    assert "Traceback" not in logs
    for method in _COMMANDS:
        assert logs.count(f"workers do not accept the command '{method}'") == 3, method


def test_operators_and_flower_can_inspect_the_workers(deployment: Deployment) -> None:
    """By `celery inspect`, and on a worker's page."""
    deployment.admin.acl_log_reset()
    assert [list(answer) for answer in inspect(deployment.url("app"), "ping").values()] == [["ok"]] * 3
    assert len(inspect(deployment.url("app"), "stats")) == 3
    name = next(iter(flower_shows(deployment, "workers")))
    env = deployment.environments["flower"]
    page = f"http://127.0.0.1:{env['FLOWER_PORT']}/worker/{name}"
    shown = requests.get(page, auth=tuple(deployment.secrets["FLOWER_BASIC_AUTH"].split(":")), timeout=10)  # type: ignore[arg-type]
    assert shown.status_code == 200
    assert "active_queues" in flower_shows(deployment, "workers")[name]
    assert deployment.rejected_commands() == []


def test_valkey_requires_a_login(deployment: Deployment) -> None:
    """The user of the healthcheck can only ping, and a wrong password gives no access."""
    anonymous_url = re.sub("//.*@", "//", deployment.url("app"))
    with Redis.from_url(anonymous_url) as redis, pytest.raises(AuthenticationError):
        redis.get("{voicequeue}:job:x")
    with Redis.from_url(anonymous_url.replace("//", "//app:wrong@")) as redis, pytest.raises(AuthenticationError):
        redis.ping()
    healthcheck = anonymous_url.replace("//", "//health:any@")
    assert refusal(healthcheck, "GET", "{voicequeue}:job:x")
    assert refusal(healthcheck, "INFO")
