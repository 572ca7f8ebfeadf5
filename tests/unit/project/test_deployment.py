"""The deployment files: the processes of the Procfile and of the compose file."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import yaml
from celery.app.routes import MapRoute

from config.celeryconfig import configuration
from config.settings import Settings
from tasks.celery_tasks import register
from tests.support import composed, image
from tests.support.composed import COMPOSE, ROOT
from voicequeue.domain.timeouts import Timeouts
from voicequeue.storage.celery_queues import QUEUE_NAMES, consumed_by
from voicequeue.storage.heartbeats import KINDS
from workers.dependencies import REDIS_RETRY_S, build_callbacks
from workers.local.stack import procfile

#: The pages that say how long a worker may take to stop.
DEPLOYMENT_PAGES = ("deployment.md", "runbook.md", "upgrading.md", "kubernetes.md", "systemd.md")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    return composed.services()


@pytest.mark.endurance
def test_the_compose_file_follows_the_compose_specification() -> None:
    """It is checked against the schema of the specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed here")
def test_compose_itself_reads_the_file() -> None:
    """If docker-compose is installed, it resolves every variable and anchor."""
    command = ["docker-compose", "-f", str(COMPOSE), "--profile", "live", "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {*procfile(), "valkey"}


def test_compose_runs_the_processes_of_the_procfile(services: dict[str, Any]) -> None:
    """With the same commands. A container needs no process id in the name of a worker: its host name is its own."""
    expected = {name: command.removeprefix("exec ").replace("-$$@%h", "@%h") for name, command in procfile().items()}

    assert set(composed.services("live")) == {*procfile(), "valkey"}
    assert set(composed.services("monitoring")) == {"prometheus", "alertmanager", "grafana"}
    for name, command in expected.items():
        assert " ".join(services[name]["command"]).removesuffix(" --concurrency 4") == command
    assert " ".join(image.default_command()) == expected["worker"]
    assert services["web"]["environment"]["WEB_ADDRESS"] == "0.0.0.0"  # the port is published on the host's loopback


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
    text = "".join((ROOT / "docs" / "guides" / name).read_text(encoding="utf-8") for name in DEPLOYMENT_PAGES)
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
    for name in ("prometheus", "alertmanager", "grafana"):
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
    assert "--owner voicequeue /archive /flower /spool" in image.dockerfile()


def test_every_port_is_published_on_this_machine_only(services: dict[str, Any]) -> None:
    """Behind a proxy with TLS, as docs/explanation/security.md says."""
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))
