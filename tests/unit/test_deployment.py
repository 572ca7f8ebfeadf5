"""The files that run it elsewhere: Procfile, compose file, image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.celeryconfig import configuration
from config.settings import Settings
from voicequeue.flow import Patience
from workers.services import STORE_WAIT_S, build_callbacks
from workers.stack import procfile

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The compose file's services."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def test_the_compose_file_follows_the_compose_specification() -> None:
    """Checked against the specification's own schema."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed here")
def test_compose_itself_reads_the_file() -> None:
    """Where docker-compose is there, it resolves every variable and anchor."""
    env = {**os.environ, "MUSICAPI_KEY": "k", "FLOWER_BASIC_AUTH": "a:b"}
    command = ["docker-compose", "-f", str(COMPOSE), "config"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) >= {*procfile(), "valkey"}


def test_compose_runs_the_processes_of_the_procfile(services: dict[str, Any]) -> None:
    """The same processes, with the same commands but for their names and log level."""
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


def test_the_compose_valkey_is_durable_and_never_evicts(services: dict[str, Any]) -> None:
    """A lost record may be lost money: what was confirmed is on the disk."""
    lines = (ROOT / "config" / "valkey.conf").read_text(encoding="utf-8").splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(lines)
    assert any(volume.startswith("./config/valkey.conf:") for volume in services["valkey"]["volumes"])
    assert any(volume.endswith(":/data") for volume in services["valkey"]["volumes"])


def test_a_worker_gets_more_time_to_stop_than_a_post_may_take(services: dict[str, Any]) -> None:
    """SIGKILL must never cut a POST in two, neither Docker's nor that of what the documentation shows."""
    settings = Settings(_env_file=None)
    assert settings.stop_s > settings.connect_timeout_s + settings.answer_timeout_s
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("operations.md", "runbook.md"))
    said = re.findall(
        r"TimeoutStopSec=(\d+)|GracePeriodSeconds: (\d+)|grace_period: (\d+)s|SIGTERM, (?:and )?(\d+) s|(\d+) s\]", text
    )
    allowed = {int(number) for numbers in said for number in numbers if number}
    allowed.add(int(services["worker"]["stop_grace_period"].removesuffix("s")))
    assert len(said) >= 7
    assert min(allowed) == max(allowed) > settings.stop_s


def test_what_delivers_callbacks_gets_more_time_to_stop_than_a_task_may_take(services: dict[str, Any]) -> None:
    """The last try is begun in time, and ends in its own; the claim holds until then."""
    settings = Settings(_env_file=None)
    patience = build_callbacks(settings).patience
    longest = patience.lane_s + settings.callback_answer_s
    assert int(services["callbacks"]["stop_grace_period"].removesuffix("s")) > longest
    assert patience.lease_s > longest


def test_no_time_limit_ends_a_task_that_waits_for_redis() -> None:
    """Celery's clock stands while Redis is away: a limit would hit whatever the child does afterwards."""
    settings = Settings(_env_file=None)
    limits = configuration(settings)
    longest = STORE_WAIT_S + Patience().submit_s + settings.connect_timeout_s + settings.answer_timeout_s
    assert "task_soft_time_limit" not in limits
    assert limits["task_time_limit"] > longest


def test_monitoring_is_there_for_who_asks_and_on_this_machine_alone(services: dict[str, Any]) -> None:
    """With its rules, its dashboard and a key of its own."""
    for name in ("prometheus", "grafana"):
        assert services[name]["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])
        assert not services[name]["image"].endswith("latest")
        for volume in services[name]["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (ROOT / source).exists()
    assert services["prometheus"]["secrets"] == ["metrics_key"]


def test_flower_keeps_its_history_on_a_volume(services: dict[str, Any]) -> None:
    """A new image does not forget what the last one has seen; the folder is the user's."""
    assert services["flower"]["environment"]["FLOWER_DB"].startswith("/flower/")
    assert "flower:/flower" in services["flower"]["volumes"]
    assert "--owner voicequeue /archive /flower" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_flower_is_never_published_without_a_login(services: dict[str, Any]) -> None:
    """Outside localhost it needs FLOWER_BASIC_AUTH, or compose refuses to start."""
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")
    assert all(port.startswith("127.0.0.1:") for port in services["flower"]["ports"])
