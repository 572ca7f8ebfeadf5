"""deploy/systemd: units that systemd accepts, with the commands of the Procfile, in a sandbox."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from config.settings import Settings, load, setting_names
from tests.support.composed import ROOT
from workers.dependencies import build_callbacks
from workers.gateway.serving import SHUTDOWN_TIMEOUT_S
from workers.local.stack import procfile

SYSTEMD = ROOT / "deploy" / "systemd"
SANDBOX = SYSTEMD / "voicequeue-.service.d" / "common.conf"

#: The unit of each process.
UNITS = {
    "worker": "voicequeue-worker@.service",
    "callbacks": "voicequeue-callbacks@.service",
    "archive": "voicequeue-archive@.service",
    "web": "voicequeue-web.service",
    "flower": "voicequeue-flower.service",
}

#: The secrets that each process reads. None has one that it does not need.
CREDENTIALS = {
    "worker": {"REDIS_URL", "MUSICAPI_KEY", "VOICEQUEUE_SECRET"},
    "callbacks": {"REDIS_URL", "VOICEQUEUE_CALLBACK_SECRET"},
    "archive": {"REDIS_URL"},
    "web": {"REDIS_URL", "VOICEQUEUE_SECRET", "VOICEQUEUE_CALLBACK_SECRET"},
    "flower": {"REDIS_URL", "FLOWER_BASIC_AUTH"},
}

#: The longest time that `voicequeue alive` takes (seconds).
ANSWER_S = 5

#: The highest exposure that systemd-analyze may report: 0 is none, 10 everything.
EXPOSURE_MAX = 1.5

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
processes = pytest.mark.parametrize("process", sorted(UNITS))


def _directives(*names: str) -> dict[str, list[str]]:
    """Return the values of each directive in these files."""
    values = defaultdict[str, list[str]](list)
    for name in names:
        for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
            directive, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                values[directive].append(value)
    return values


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the units, as if this checkout were installed in /opt/voicequeue."""
    folder = tmp_path_factory.mktemp("systemd")
    shutil.copytree(SYSTEMD, folder, dirs_exist_ok=True)
    for unit in folder.rglob("*.*"):
        if unit.is_file():
            text = unit.read_text(encoding="utf-8").replace("/opt/voicequeue/.venv/bin/python", sys.executable)
            text = text.replace("/opt/voicequeue/.venv/bin/voicequeue", sys.executable)
            unit.write_text(text.replace("/opt/voicequeue", str(ROOT)), encoding="utf-8")
    return folder


def _analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze with these units before those of the system."""
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
    return subprocess.run(["systemd-analyze", *arguments], env=env, capture_output=True, text=True, check=False)


def _instances() -> list[str]:
    """Return the names of all units, templates with an instance."""
    files = [file.name for file in SYSTEMD.iterdir() if file.is_file()]
    return sorted(name.replace("@.", "@worker-1." if "alive" in name or "restart" in name else "@1.") for name in files)


# ── systemd ───────────────────────────────────────────────────────────────────────────────────────


@needs_systemd
def test_systemd_accepts_every_unit(installed: Path) -> None:
    """Each directive is known and has a valid value, in the shared file too."""
    done = _analyze(installed, "verify", "--man=no", *_instances())

    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert len(_instances()) == 9


@needs_systemd
@pytest.mark.parametrize("file", ["voicequeue-web.service", "voicequeue-.service.d/common.conf"])
def test_a_typing_error_in_a_unit_is_found(installed: Path, tmp_path: Path, file: str) -> None:
    """systemd itself would log it and continue without the directive."""
    shutil.copytree(installed, tmp_path, dirs_exist_ok=True)
    with (tmp_path / file).open("a", encoding="utf-8") as unit:
        unit.write("[Service]\nProtectHomes=yes\n")

    assert "ProtectHomes" in _analyze(tmp_path, "verify", "--man=no", "voicequeue-web.service").stderr


@needs_systemd
def test_every_service_runs_in_a_sandbox(installed: Path) -> None:
    """It writes to its own folders only, cannot gain privileges, and sees neither devices nor other processes."""
    services = [name for name in _instances() if name.startswith("voicequeue-") and name.endswith(".service")]
    assert len(services) == len(UNITS) + 1
    for service in services:
        done = _analyze(installed, "security", "--offline=true", "--no-pager", service)
        [exposure] = re.findall(r"exposure level for \S+ (\d+\.\d)", done.stdout)
        assert float(exposure) <= EXPOSURE_MAX, done.stdout


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


@processes
def test_a_unit_runs_the_process_of_the_procfile(process: str) -> None:
    """The command is the same; the instance of the unit replaces the process id in the name. It always runs again."""
    unit = _directives(UNITS[process])
    expected = procfile()[process].removeprefix("exec ").replace("$$@%h", "%i@%%h")

    assert unit["ExecStart"] == [f"/opt/voicequeue/.venv/bin/{expected}"]
    assert unit["Restart"] == ["always"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert _directives(str(SANDBOX))["PartOf"] == unit["WantedBy"] == ["voicequeue.target"]


def test_a_worker_gets_more_time_to_stop_than_a_post_may_take() -> None:
    """SIGKILL must not interrupt a POST. SIGTERM goes to the main process, which stops its children itself."""
    settings = Settings(_env_file=None)
    timeouts = build_callbacks(settings).timeouts
    stop_s = {process: int(_directives(unit)["TimeoutStopSec"][0]) for process, unit in UNITS.items()}

    assert stop_s["worker"] > settings.stop_timeout_s
    assert stop_s["callbacks"] > timeouts.start_window_s + settings.callback_timeout_s
    assert stop_s["web"] > SHUTDOWN_TIMEOUT_S
    for process in ("worker", "callbacks", "archive"):
        assert _directives(UNITS[process])["KillMode"] == ["mixed"]


@pytest.mark.parametrize("process", ["worker", "callbacks", "archive"])
def test_a_process_is_checked_while_it_runs(process: str) -> None:
    """Starting and stopping it starts and stops the check, which finds it by its name."""
    unit, check = _directives(UNITS[process]), _directives("voicequeue-alive@.service")

    assert unit["Wants"] == unit["PropagatesStopTo"] == [f"voicequeue-alive@{process}-%i.timer"]
    assert check["ExecStart"] == ["/opt/voicequeue/.venv/bin/voicequeue alive --name %i@%H"]
    assert f" -n {process}-%i@%%h " in unit["ExecStart"][0]


def test_three_failed_checks_in_a_row_restart_a_process_and_checks_that_pass_never_do() -> None:
    """A process may miss a heartbeat. The third failure reaches the limit of starts, which the timer alone does not."""
    check, timer = _directives("voicequeue-alive@.service"), _directives("voicequeue-alive@.timer")
    [burst], [interval_s] = map(int, check["StartLimitBurst"]), map(int, check["StartLimitIntervalSec"])
    longest_failures_s = burst * (int(check["RestartSec"][0]) + ANSWER_S)

    assert burst == 3
    assert longest_failures_s < interval_s < burst * int(timer["OnUnitInactiveSec"][0])
    assert check["Restart"] == ["on-failure"]
    assert check["OnFailure"] == ["restart-voicequeue@%i.service"]


def test_a_check_without_valid_settings_restarts_nothing() -> None:
    """The process that works would stop, and could not start again."""
    assert _directives("voicequeue-alive@.service")["SuccessExitStatus"] == ["2 CREDENTIALS"]


def test_the_documentation_makes_secrets_outside_of_the_folder_of_the_processes() -> None:
    """`make secrets` would leave a `.env` there that only root may read, and no process would start."""
    page = (ROOT / "docs" / "guides" / "systemd.md").read_text(encoding="utf-8")

    assert "\nsh config/secrets.sh /etc/voicequeue/secrets " in page
    assert "\nmake secrets" not in page


def test_the_documentation_makes_users_of_redis_that_can_log_in(tmp_path: Path) -> None:
    """Every placeholder of users.acl is filled in or removed. There is an administrator: the default user is off."""
    page = (ROOT / "docs" / "guides" / "systemd.md").read_text(encoding="utf-8")
    [commands] = re.findall(r"(?m)^for user in APP.*?^echo [^\n]*$", page, re.DOTALL)
    secrets = tmp_path / "secrets"
    subprocess.run(["sh", ROOT / "config" / "secrets.sh", secrets], check=True, capture_output=True)
    script = commands.replace("/etc/voicequeue/secrets", str(secrets)).replace("config/valkey", f"{ROOT}/config/valkey")
    subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True)

    lines = (tmp_path / "users.acl").read_text(encoding="utf-8").splitlines()
    users = {line.split()[1]: line for line in lines}
    assert set(users) == {"default", "app", "worker", "gateway", "flower", "health", "admin"}
    assert not any("_HASH" in line or "PREFIX" in line for line in lines)
    password = (secrets / "VALKEY_WORKER_PASSWORD").read_bytes()
    assert f" #{hashlib.sha256(password).hexdigest()} " in users["worker"]


def test_a_failed_check_restarts_its_process_gently_and_only_if_it_runs(tmp_path: Path) -> None:
    """A process that an operator stopped stays stopped, and a restart is never a kill."""
    (tmp_path / "systemctl").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "systemctl").chmod(0o755)
    [command] = _directives("restart-voicequeue@.service")["ExecStart"]
    words = shlex.split(command.replace("$$", "$").replace("%%", "%").replace("%i", "callbacks-2"))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    output = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout

    assert output == "try-restart voicequeue-callbacks@2.service\n"


# ── settings and secrets ──────────────────────────────────────────────────────────────────────────


@processes
def test_each_process_gets_the_secrets_that_it_needs_and_no_others(process: str) -> None:
    """They are files that only this unit reads, neither in its environment nor on a disk."""
    unit = _directives(UNITS[process])
    credentials = {name: path for name, _, path in (value.partition(":") for value in unit["LoadCredential"])}
    variables = dict(word.split("=", 1) for value in unit["Environment"] for word in value.split())
    secret = (setting_names() - setting_names(include_secret=False)) | {"REDIS_URL", "FLOWER_BASIC_AUTH"}

    assert set(credentials) == CREDENTIALS[process] <= secret
    assert {name: value for name, value in variables.items() if name.endswith("_FILE")} == {
        f"{name}_FILE": f"%d/{name}" for name in credentials
    }
    assert not set(variables) & secret


@pytest.mark.parametrize("process", sorted(set(UNITS) - {"flower"}))
def test_every_unit_starts_with_the_secrets_of_make_secrets(
    process: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its settings are valid, with the credentials as files, as systemd has them."""
    for name in os.environ:
        if name.startswith(("VOICEQUEUE_", "REDIS_", "MUSICAPI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["sh", str(ROOT / "config" / "secrets.sh")], check=True, capture_output=True)
    (tmp_path / ".secrets" / "MUSICAPI_KEY").write_text("k" * 40)
    unit = _directives(UNITS[process])
    for value in unit["LoadCredential"]:
        name, path = value.split(":")
        shutil.copy(tmp_path / ".secrets" / Path(path).name, tmp_path / name)
    for word in " ".join(unit["Environment"]).split():
        name, _, value = word.partition("=")
        monkeypatch.setenv(name, value.replace("%d", str(tmp_path)))

    settings = load()

    user = {"web": "gateway"}.get(process, "worker")
    assert settings.redis_url.startswith(f"redis://{user}:")
    assert bool(settings.musicapi_key.get_secret_value()) is (process == "worker")


def test_the_documentation_names_every_file_that_a_unit_reads() -> None:
    """A missing one keeps the unit from starting."""
    page = (ROOT / "docs" / "guides" / "systemd.md").read_text(encoding="utf-8")
    units = [*UNITS.values(), "voicequeue-alive@.service"]
    loaded = {
        path for unit in units for path in re.findall(r":(/etc/\S+)", "\n".join(_directives(unit)["LoadCredential"]))
    }

    assert {Path(path).parent for path in loaded} == {Path("/etc/voicequeue/secrets")}
    assert {path for path in loaded if f"`{Path(path).name}`" not in page} == set()
    assert _directives(str(SANDBOX))["EnvironmentFile"] == [
        "/etc/voicequeue/settings.env",
        "-/etc/voicequeue/%p.env",
    ]


def test_folders_of_processes_are_theirs_and_writable() -> None:
    """The sandbox permits no others."""
    archive, flower = _directives(UNITS["archive"]), _directives(UNITS["flower"])

    assert archive["StateDirectory"] == ["voicequeue/archive"]
    assert f"TMPDIR=%C/{archive['CacheDirectory'][0]}" in " ".join(archive["Environment"])
    assert f"FLOWER_DB=%S/{flower['StateDirectory'][0]}/state" in " ".join(flower["Environment"])
