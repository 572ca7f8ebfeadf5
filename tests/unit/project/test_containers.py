"""The containers of the compose file and the image: secrets, settings, permissions and limits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from config import reference
from config.settings import setting_names
from tests.support import composed, image
from tests.support.composed import COMPOSE, ROOT
from voicequeue.storage.celery_queues import consumed_by
from workers.doctor import known_settings
from workers.local.stack import procfile

VALKEY_USERS = ("APP", "WORKER", "GATEWAY", "FLOWER", "PRODUCER", "MONITOR")

#: The secrets of each service, by the settings that name their files. None has one that it does not need.
FILES = {
    "worker": {"REDIS_URL_FILE", "MUSICAPI_KEY_FILE", "VOICEQUEUE_SECRET_FILE"},
    "callbacks": {"REDIS_URL_FILE", "VOICEQUEUE_CALLBACK_SECRET_FILE"},
    "archive": {"REDIS_URL_FILE"},
    "web": {"REDIS_URL_FILE", "VOICEQUEUE_CALLBACK_SECRET_FILE", "VOICEQUEUE_SECRET_FILE"},
    "flower": {"REDIS_URL_FILE", "FLOWER_BASIC_AUTH_FILE"},
    "valkey": {f"VALKEY_{user}_PASSWORD_FILE" for user in VALKEY_USERS},
    "grafana": {"GF_SECURITY_ADMIN_PASSWORD__FILE"},
}

#: Settings that may contain secrets, and that services take from .env, because most installations have none in them.
FROM_DOTENV = {
    "worker": {"VOICEQUEUE_ARCHIVE_URL"},
    "archive": {"VOICEQUEUE_ARCHIVE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
    "web": {"VOICEQUEUE_API_KEYS"},
}

#: The settings that a container sets itself: its addresses and folders.
OF_THE_CONTAINER = {
    "web": {"WEB_ADDRESS", "PORT"},
    "flower": {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_DB"},
}

#: The services that need the URL of the gateway, which requires the common secret.
WITH_PUBLIC_URL = {"worker", "web"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    return composed.services()


def test_each_service_gets_the_secrets_that_it_needs_and_no_others(services: dict[str, Any]) -> None:
    """As files, which `docker inspect` does not show. A compromised gateway exposes neither the MusicAPI key nor the
    keys of the storage."""
    for name, service in services.items():
        environment = composed.environment(service, {})
        files = {setting: path for setting, path in environment.items() if setting.endswith("_FILE") and path}
        mounted = {f"{composed.MOUNTED}/{secret}" for secret in service.get("secrets", [])}
        assert (name, set(files)) == (name, FILES.get(name, set()))
        assert name in ("prometheus", "alertmanager") or set(files.values()) == mounted


def test_a_secret_in_dotenv_reaches_no_container_that_does_not_need_it(services: dict[str, Any]) -> None:
    """`make up` reads secrets there, and every service reads that file."""
    names = (setting_names() - setting_names(include_secret=False)) | {"REDIS_URL", "FLOWER_BASIC_AUTH"}
    names |= {f"{name}_FILE" for name in names} | {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    names |= {"VOICEQUEUE_API_KEY", *(f"VALKEY_{user}_PASSWORD" for user in VALKEY_USERS)}
    values = dict.fromkeys(names, "canary")

    for name, service in services.items():
        reached = {setting for setting, value in composed.environment(service, values).items() if value == "canary"}
        assert (name, reached) == (name, FROM_DOTENV.get(name, set()))


@pytest.mark.parametrize("service", ["worker", "callbacks", "archive", "web", "flower"])
def test_every_setting_in_dotenv_reaches_every_service(services: dict[str, Any], service: str) -> None:
    """All of docs/reference/configuration.md, but for secrets, and for the addresses and folders of a container."""
    files = {name for name in known_settings() if name.endswith("_FILE")}
    names = known_settings() - files - {name.removesuffix("_FILE") for name in files}
    names -= {row.name for row in reference.LOCAL_ROWS} | OF_THE_CONTAINER.get(service, set())
    names -= set() if service in WITH_PUBLIC_URL else {"VOICEQUEUE_PUBLIC_URL"}
    values = {name: f"value of {name}" for name in names}

    environment = composed.environment(services[service], values)

    assert len(values) > 50
    assert {name: environment.get(name) for name in names} == values


def test_compose_needs_no_variable_and_no_file_for_the_demo() -> None:
    """It runs before `make secrets`, without an account. It neither orders from MusicAPI nor writes to a real queue."""
    text = COMPOSE.read_text(encoding="utf-8")
    demo = composed.services("demo")

    assert not re.search(r"\$\{\w+:?\?", text)  # such a variable would be required for every profile
    assert set(demo) == {"demo", "demo-worker", "demo-valkey", "simulator"}
    for name, service in demo.items():
        assert not {"secrets", "env_file", "volumes"} & set(service), name
        assert "$" not in str(service)
        assert service["networks"] == ["demo"]
    assert {service["environment"]["MUSICAPI_BASE_URL"] for service in demo.values()} == {"http://simulator:8900"}
    assert {service["environment"]["REDIS_URL"] for service in demo.values()} == {"redis://demo-valkey:6379/0"}


def test_a_container_has_no_privileges_that_its_process_does_not_need(services: dict[str, Any]) -> None:
    """It has no capabilities and cannot gain any, writes to named places only, and does not run as root."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service
        assert "privileged" not in service
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"]
        assert service["pids_limit"] > 0
        assert service["mem_limit"]
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}
        for volume in service.get("volumes", []):
            assert volume.endswith(":ro") or not volume.startswith(("./", "/")), f"{name} may write to this host"
    assert services["valkey"]["user"] == services["demo-valkey"]["user"] == "valkey"
    assert "\nUSER 10001:10001\n" in image.dockerfile()


def test_every_image_is_pinned_by_digest(services: dict[str, Any]) -> None:
    """A tag may name another image tomorrow."""
    images = {service["image"] for service in services.values() if "build" not in service}
    images |= set(re.findall(r"^ARG PYTHON=(\S+)$", image.dockerfile(), re.MULTILINE))

    assert len(images) == 5
    assert all(re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", name) for name in images)
    assert set(re.findall(r"^FROM (\S+)", image.dockerfile(), re.MULTILINE)) == {"${PYTHON}", "runtime"}


def test_the_image_is_built_with_no_more_than_hatchling() -> None:
    """None of the tools of developers; the versions are those of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    build_lock = (ROOT / "requirements-build.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"^[a-z].*==.*(?:\n    --hash=.*)+", build_lock, re.MULTILINE)
    names = {block.partition("==")[0] for block in blocks}

    assert names == {
        "hatchling",
        *(Requirement(text).name for text in requires("hatchling") or () if "python" not in text),
    }
    assert all(block in lock for block in blocks)
    assert set(re.findall(r"-r (\S+\.lock)", image.dockerfile())) == {
        "requirements-build.lock",
        "requirements-worker.lock",
    }


@pytest.mark.parametrize("process", ["worker", "callbacks", "archive"])
def test_the_healthcheck_of_a_worker_asks_for_each_of_its_queues(services: dict[str, Any], process: str) -> None:
    """Docker then shows a process that only seems alive as unhealthy."""
    command = services[process]["healthcheck"]["test"]

    assert command[:3] == ["CMD", "sh", "config/probe.sh"]
    assert tuple(command[4::2]) == consumed_by(process)
    assert set(command[3::2]) == {"--queue"}


@pytest.mark.parametrize(
    ("exit_codes", "module", "is_stopped"),
    [
        ([1, 1, 1], "workers", True),
        ([1, 1], "workers", False),
        ([1, 1, 0, 1, 1], "workers", False),
        ([1, 1, 0, 1, 1, 1], "workers", True),
        ([2, 2, 2, 2], "workers", False),  # settings are invalid, which a restart does not cure
        ([1, 1, 1], "init", False),  # not one of our processes
    ],
)
def test_the_third_failure_in_a_row_stops_the_process_of_a_container(
    tmp_path: Path, exit_codes: list[int], module: str, is_stopped: bool
) -> None:
    """Docker restarts a container that ends, but not one that is unhealthy. Each failure is reported as one."""
    probe = tmp_path / "voicequeue"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", module]) as process:
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROBE_FOLDER": str(tmp_path), "PROBE_PID": str(process.pid)}
        reported = []
        for code in exit_codes:
            probe.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/arguments\nexit {code}\n')
            probe.chmod(0o755)
            command = ["sh", str(ROOT / "config" / "probe.sh"), "--queue", "poll"]
            reported.append(subprocess.run(command, env=env, capture_output=True, check=False).returncode)
        if not is_stopped:
            process.kill()
        ended = process.wait(10)

    assert reported == exit_codes
    assert ended == (-signal.SIGTERM if is_stopped else -signal.SIGKILL)
    assert set((tmp_path / "arguments").read_text().splitlines()) == {"alive --queue poll"}


@pytest.mark.parametrize(("limit", "maxmemory"), [("2147483648", "1288490184"), ("max", ""), (None, "")])
def test_valkey_gets_less_memory_than_its_container(tmp_path: Path, limit: str | None, maxmemory: str) -> None:
    """At its own limit it refuses writes, which the doctor reports; at the container's it would be killed."""
    (tmp_path / "valkey-server").write_text('#!/bin/sh\necho "$*"\n')
    (tmp_path / "valkey-server").chmod(0o755)
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    env = {f"VALKEY_{user}_PASSWORD": "x" * 40 for user in VALKEY_USERS}
    env |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VALKEY_RUN": str(tmp_path), "VALKEY_CGROUP": str(tmp_path)}
    command = ["sh", str(ROOT / "config" / "valkey" / "start.sh"), "valkey.conf"]

    output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.split()

    assert output[:1] == ["valkey.conf"]
    assert output[-2:] == ["--aclfile", f"{tmp_path}/users.acl"]
    assert output[1:-2] == (["--maxmemory", maxmemory] if maxmemory else [])


@pytest.mark.parametrize("user", ["APP", "WORKER", "GATEWAY", "FLOWER"])
def test_valkey_does_not_start_without_the_password_of_a_process(tmp_path: Path, user: str) -> None:
    """The error names the setting."""
    (tmp_path / "empty").touch()
    env = {f"VALKEY_{name}_PASSWORD": "x" * 40 for name in VALKEY_USERS if name != user}
    env |= {f"VALKEY_{user}_PASSWORD_FILE": str(tmp_path / "empty"), "VALKEY_RUN": str(tmp_path)}
    command = ["sh", str(ROOT / "config" / "valkey" / "start.sh")]

    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"VALKEY_{user}_PASSWORD is not set, and VALKEY_{user}_PASSWORD_FILE names no file" in done.stderr


def test_only_our_processes_reach_valkey(services: dict[str, Any]) -> None:
    """Neither the host nor the monitoring reaches it, and it reaches no other network."""
    compose = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    neighbours = {
        name for name, service in services.items() if set(service["networks"]) & set(services["valkey"]["networks"])
    }

    assert services["valkey"]["networks"] == ["store"]
    assert "ports" not in services["valkey"]
    assert compose["networks"]["store"] == {"internal": True}
    assert neighbours == {*procfile(), "valkey"}
    assert services["valkey"]["environment"].keys() & setting_names() == {"VOICEQUEUE_PREFIX"}
    assert [name for name, service in services.items() if "monitoring" in service["networks"]] == [
        "web",
        "prometheus",
        "alertmanager",
        "grafana",
    ]


def test_no_password_is_in_a_command(services: dict[str, Any]) -> None:
    """`docker inspect` and `ps` show commands. The password of the healthcheck's user is not a secret."""
    for service in services.values():
        commands = f"{service.get('command')} {service.get('entrypoint')} {service.get('healthcheck')}"
        assert "$" not in commands


def test_the_healthcheck_logs_in_and_fails_on_an_error(services: dict[str, Any]) -> None:
    """Without -e, valkey-cli exits with 0 on a permission error."""
    check = services["valkey"]["healthcheck"]["test"]
    rules = (ROOT / "config" / "valkey" / "users.acl").read_text(encoding="utf-8")

    assert check == ["CMD", "valkey-cli", "-e", "--no-auth-warning", "--user", "health", "--pass", "any", "ping"]
    assert "\nuser health reset on nopass +ping\n" in rules
    assert "\nuser default reset off\n" in rules


@pytest.mark.parametrize(
    ("content", "starts"), [("long-and-random\n", True), ("", False), ("  \n", False), (None, False)]
)
def test_grafana_does_not_start_with_an_empty_password(
    services: dict[str, Any], tmp_path: Path, content: str | None, starts: bool
) -> None:
    """It would use its default password, `admin`."""
    grafana = services["grafana"]
    file = tmp_path / "grafana_password"
    if content is not None:
        file.write_text(content)
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho started\n")
    (tmp_path / "run.sh").chmod(0o755)
    shell, option, script = grafana["entrypoint"]
    script = script.replace("/run/secrets", str(tmp_path)).replace("/run.sh", str(tmp_path / "run.sh"))

    done = subprocess.run([shell, option, script], capture_output=True, text=True, check=False)

    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert (done.stdout, done.returncode) == (("started\n", 0) if starts else ("", 1))


def test_the_image_contains_the_code_and_no_other_files() -> None:
    """.env, .secrets and the history are excluded; new files are excluded until they are listed."""
    first, *rest = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert first == "*"
    assert {"**/.*", "**/__pycache__"} == {line for line in rest if not line.startswith("!")}
    assert rest.index("**/.*") > max(rest.index(line) for line in rest if line.startswith("!"))
    assert not any("." in line[1:2] or "secret" in line for line in rest if line.startswith("!"))


def test_the_administrator_logs_in_with_a_password_that_is_in_no_command(tmp_path: Path) -> None:
    """The password exists only in the container, and is generated at each start."""
    (tmp_path / "admin").write_text("long-and-random")
    (tmp_path / "valkey-cli").write_text('#!/bin/sh\necho "$REDISCLI_AUTH: $*"\n')
    (tmp_path / "valkey-cli").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VALKEY_RUN": str(tmp_path)}
    command = [str(ROOT / "config" / "valkey" / "admin.sh"), "CONFIG", "GET", "save"]

    output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    assert output == "long-and-random: --user admin CONFIG GET save\n"
