"""The deployment files: Procfile, compose file, image and secrets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from celery.app.routes import MapRoute

from config.celeryconfig import configuration
from config.settings import Settings, setting_names
from tasks.celery_tasks import register
from tests.support import composed
from tests.support.composed import COMPOSE, REQUIRED, ROOT
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.celery_queues import QUEUE_NAMES, consumed_by
from voicequeue.storage.heartbeats import KINDS
from workers.dependencies import REDIS_RETRY_S, build_callbacks
from workers.local.stack import procfile

#: The secrets in the environment of each service. None has one that it does not need.
SECRETS = {
    "worker": {"REDIS_URL", "MUSICAPI_KEY", "VOICEQUEUE_SECRET", "VOICEQUEUE_ARCHIVE_URL"},
    "callbacks": {"REDIS_URL", "VOICEQUEUE_CALLBACK_SECRET"},
    "archive": {"REDIS_URL", "VOICEQUEUE_ARCHIVE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "web": {"REDIS_URL", "VOICEQUEUE_CALLBACK_SECRET", "VOICEQUEUE_SECRET", "VOICEQUEUE_API_KEYS"},
    "flower": {"REDIS_URL", "FLOWER_BASIC_AUTH"},
    "valkey": {
        "VALKEY_APP_PASSWORD",
        "VALKEY_FLOWER_PASSWORD",
        "VALKEY_GATEWAY_PASSWORD",
        "VALKEY_MONITOR_PASSWORD",
        "VALKEY_PRODUCER_PASSWORD",
        "VALKEY_WORKER_PASSWORD",
    },
    "prometheus": set[str](),
    "grafana": set[str](),
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    return composed.services()


def test_the_compose_file_follows_the_compose_specification() -> None:
    """It is checked against the schema of the specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed here")
def test_compose_itself_reads_the_file() -> None:
    """If docker-compose is installed, it resolves every variable and anchor."""
    env = {**os.environ, **dict.fromkeys(REQUIRED, "k")}
    command = ["docker-compose", "-f", str(COMPOSE), "config"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {*procfile(), "valkey"}


def test_compose_runs_the_processes_of_the_procfile(services: dict[str, Any]) -> None:
    """The commands are the same except for the worker names."""
    assert set(services) == {*procfile(), "valkey", "prometheus", "grafana"}
    assert " ".join(services["flower"]["command"]) == procfile()["flower"].removeprefix("exec ")
    for name in ("callbacks", "archive"):
        command = procfile()[name].removeprefix("exec ").replace(f"-n {name}-$$@%h ", "")
        assert " ".join(services[name]["command"]) == command
    assert " ".join(services["web"]["command"]) == procfile()["web"].removeprefix("exec ")
    assert services["web"]["environment"]["WEB_ADDRESS"] == "0.0.0.0"  # the port is published on the host's loopback
    image_runs = (ROOT / "Dockerfile").read_text(encoding="utf-8").rsplit("CMD ", 1)[1]
    expected = procfile()["worker"].removeprefix("exec ").replace("-n worker-$$@%h ", "")
    assert yaml.safe_load(image_runs) == expected.split()


@pytest.mark.parametrize("process", ["worker", "callbacks", "archive"])
def test_each_process_consumes_the_queues_that_the_table_gives_it(process: str) -> None:
    """The Procfile names them, or the worker takes the configured ones; each process has a kind of heartbeat."""
    option = re.search(r" -Q (\S+)", procfile()[process])
    configured = [queue.name for queue in configuration(Settings(_env_file=None))["task_queues"]]

    assert (option[1].split(",") if option else configured) == list(consumed_by(process))
    assert process in KINDS


class TaskNames(list[str]):
    """A stub of the Celery app that records the names of the tasks that are registered."""

    def task(self, *, name: str, **_: Any) -> Callable[[Any], Any]:
        """Record the name; leave the function as it is."""
        self.append(name)
        return lambda function: function


def test_every_task_is_routed_to_a_queue_of_the_table_and_every_queue_has_a_task() -> None:
    """A task without a route would wait in the queue of other programs; a queue without a task is a leftover."""
    names: Any = TaskNames()
    register(names, unused, unused, unused)
    route = MapRoute(configuration(Settings(_env_file=None))["task_routes"])

    assert {(route(name) or {}).get("queue") for name in names} == set(QUEUE_NAMES)


def unused() -> NoReturn:
    """Replace the services of tasks that never run."""
    raise AssertionError


def test_the_compose_valkey_is_durable_and_never_evicts(services: dict[str, Any]) -> None:
    """A lost record may be lost money, so confirmed writes are on the disk."""
    lines = (ROOT / "config" / "valkey.conf").read_text(encoding="utf-8").splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(lines)
    assert any(volume.startswith("./config/valkey.conf:") for volume in services["valkey"]["volumes"])
    assert any(volume.endswith(":/data") for volume in services["valkey"]["volumes"])


def test_a_worker_gets_more_time_to_stop_than_a_post_may_take(services: dict[str, Any]) -> None:
    """SIGKILL must not interrupt a POST, in Docker and in every setup that the documentation shows."""
    settings = Settings(_env_file=None)
    assert settings.stop_timeout_s > settings.upstream_connect_timeout_s + settings.upstream_response_timeout_s
    pages = ("operations.md", "runbook.md", "upgrading.md")
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in pages)
    matches = re.findall(
        r"TimeoutStopSec=(\d+)|GracePeriodSeconds: (\d+)|grace_period: (\d+)s"
        r"|SIGTERM(?:,| and allow) (\d+) s|(\d+) s\]",
        text,
    )
    allowed = {int(number) for numbers in matches for number in numbers if number}
    allowed.add(int(services["worker"]["stop_grace_period"].removesuffix("s")))
    assert len(matches) >= 6
    assert min(allowed) == max(allowed) > settings.stop_timeout_s


def test_the_callback_process_gets_more_time_to_stop_than_a_task_may_take(services: dict[str, Any]) -> None:
    """The last attempt may start late in a task and take its whole timeout; the claim covers both."""
    settings = Settings(_env_file=None)
    timeouts = build_callbacks(settings).timeouts
    longest = timeouts.start_window_s + settings.callback_timeout_s
    assert int(services["callbacks"]["stop_grace_period"].removesuffix("s")) > longest
    assert timeouts.lease_s > longest


def test_no_time_limit_ends_a_task_that_waits_for_redis() -> None:
    """Celery checks limits only when Redis is back: a shorter limit would kill the child at any later work."""
    settings = Settings(_env_file=None)
    limits = configuration(settings)
    longest = (
        REDIS_RETRY_S + Timeouts().submit_s + settings.upstream_connect_timeout_s + settings.upstream_response_timeout_s
    )
    assert "task_soft_time_limit" not in limits
    assert limits["task_time_limit"] > longest


def test_monitoring_is_optional_and_published_on_this_machine_only(services: dict[str, Any]) -> None:
    """It has its rules, its dashboard and its own API key."""
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        assert not services[name]["image"].endswith("latest")
        for volume in services[name]["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists()
    assert services["prometheus"]["secrets"] == ["metrics_key"]


def test_flower_keeps_its_history_on_a_volume(services: dict[str, Any]) -> None:
    """A new image keeps the history; the folder belongs to the image's user."""
    assert services["flower"]["environment"]["FLOWER_DB"].startswith("/flower/")
    assert "flower:/flower" in services["flower"]["volumes"]
    assert "--owner voicequeue /archive /flower /spool" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_flower_is_never_published_without_a_login(services: dict[str, Any]) -> None:
    """Outside localhost it needs FLOWER_BASIC_AUTH, or compose refuses to start."""
    with pytest.raises(composed.Unset, match="FLOWER_BASIC_AUTH"):
        composed.environment(services["flower"], dict.fromkeys(REQUIRED - {"FLOWER_BASIC_AUTH"}, "k"))
    assert all(port.startswith("127.0.0.1:") for port in services["flower"]["ports"])


# ── secrets and permissions of containers ─────────────────────────────────────────────────────────


def test_each_service_gets_the_secrets_that_it_needs_and_no_others(services: dict[str, Any]) -> None:
    """A compromised gateway exposes neither the MusicAPI key nor the keys of the storage."""
    secret = (setting_names() - setting_names(include_secret=False)) | {"REDIS_URL", "FLOWER_BASIC_AUTH"}

    for name, service in services.items():
        variables = set(service.get("environment", {}))
        named = {variable for variable in variables if re.search("PASSWORD$|ACCESS_KEY", variable)}
        assert (name, (variables & secret) | named) == (name, SECRETS[name])


def test_compose_starts_nothing_without_its_secrets(services: dict[str, Any]) -> None:
    """The error names the variable and how to set it. None has a default."""
    for missing in REQUIRED:
        values = dict.fromkeys(REQUIRED - {missing}, "k")
        with pytest.raises(composed.Unset, match=rf"{missing}: .*(run make secrets|set MUSICAPI_KEY)"):
            [composed.environment(service, values) for service in services.values()]


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
        for volume in service.get("volumes", []):
            assert volume.endswith(":ro") or not volume.startswith(("./", "/")), f"{name} may write to this host"
    assert services["valkey"]["user"] == "valkey"
    assert "\nUSER voicequeue\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


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
    assert [name for name, service in services.items() if "monitoring" in service["networks"]] == [
        "web",
        "prometheus",
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
