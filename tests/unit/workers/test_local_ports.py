"""The ports of the local stack, and the files that give other shells its settings."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from config.settings import Settings
from workers import private_files
from workers.local.environment_file import EnvironmentFile, Fish, forget_earlier_stack
from workers.local.ports import StackPorts, free_port

#: What a shell could misread.
ODD = 'it\'s "a" $HOME `id` \\ *'


@contextmanager
def occupied(port: int) -> Iterator[None]:
    """Listen on a port meanwhile."""
    with closing(socket.create_server(("127.0.0.1", port))):
        yield


@pytest.fixture
def reports() -> list[str]:
    """Return the list of what is reported."""
    return []


@pytest.fixture
def ports(tmp_path: Path, reports: list[str]) -> StackPorts:
    """Return the ports of a stack that has not run yet."""
    return StackPorts(tmp_path / "ports.json", reports.append)


def test_the_usual_port_is_used_while_it_is_free(ports: StackPorts, reports: list[str]) -> None:
    """There is nothing to report."""
    usual = free_port()

    assert ports.choose("the gateway", usual) == usual
    assert reports == []


def test_a_port_that_is_taken_is_reported_with_its_owner_and_the_other_port(
    ports: StackPorts, reports: list[str]
) -> None:
    """The user must know where the page is, and which program is in the way."""
    usual = free_port()

    with occupied(usual):
        used = ports.choose("the gateway", usual)

    assert used != usual
    [report] = reports
    assert report.startswith(f"port {usual} for the gateway is taken")
    assert report.endswith(f": using {used} instead")
    if Path("/proc/net/tcp").exists():
        assert f"(process {Path('/proc/self').resolve().name})" in report


def test_the_port_of_the_last_start_comes_after_the_usual_one(
    ports: StackPorts, reports: list[str], tmp_path: Path
) -> None:
    """Settings of other shells stay valid where the usual port is always taken."""
    usual, last = free_port(), free_port()
    ports.remember({"the gateway": last})
    again = StackPorts(tmp_path / "ports.json", reports.append)

    with occupied(usual):
        assert again.choose("the gateway", usual) == last
    assert again.choose("the gateway", usual) == usual


@pytest.mark.parametrize("content", ["", "{", "[]", '{"Redis": "x"}'])
def test_a_damaged_file_of_ports_is_ignored(tmp_path: Path, content: str) -> None:
    """It holds nothing that is needed."""
    (tmp_path / "ports.json").write_text(content)
    usual = free_port()

    assert StackPorts(tmp_path / "ports.json", print).choose("Redis", usual) == usual


def test_a_stack_ignores_what_an_earlier_one_has_set_in_its_shell(tmp_path: Path) -> None:
    """Its Redis and its simulator have stopped. What the user changed since is kept."""
    own = {"REDIS_URL": "redis://127.0.0.1:1/0", "MUSICAPI_KEY": "any", "MUSICAPI_BASE_URL": "http://127.0.0.1:2"}
    EnvironmentFile(tmp_path, tmp_path / "secret").write(Settings(_env_file=None), own, urls={})
    printed = subprocess.check_output(
        ["sh", "-c", '. "$0"; env', tmp_path / "env"], text=True, env={"PATH": "/usr/bin:/bin"}
    )
    environ = dict(line.split("=", 1) for line in printed.splitlines()) | {"MUSICAPI_KEY": "of my account"}

    assert forget_earlier_stack(environ) == ["REDIS_URL", "MUSICAPI_BASE_URL"]
    assert environ["MUSICAPI_KEY"] == "of my account"
    assert not {"REDIS_URL", "MUSICAPI_BASE_URL"} & environ.keys()
    assert forget_earlier_stack(environ) == []


SHELLS = {"env": ("sh", "dash", "bash", "zsh"), "env.fish": ("fish",)}


@pytest.mark.parametrize(("file", "shell"), [(file, shell) for file, shells in SHELLS.items() for shell in shells])
def test_a_shell_reads_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, shell: str) -> None:
    """With any characters; secrets come from their files."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} on this machine")
    home = tmp_path / ODD
    home.mkdir()
    monkeypatch.setenv("VOICEQUEUE_PREFIX", "queue")
    private_files.write(home / "secret", "of the stack")
    private_files.write(home / "token", "vq_local")
    env = {"REDIS_URL": "redis://:word@127.0.0.1:1/0", "VOICEQUEUE_SECRET": "of the stack", "MUSICAPI_BASE_URL": ODD}
    urls = {"VOICEQUEUE_GATEWAY_URL": "http://127.0.0.1:2"}
    EnvironmentFile(home, home / "secret").write(Settings(_env_file=None), env, urls=urls, token_file=home / "token")
    names = (*env, *urls, "VOICEQUEUE_API_KEY", "VOICEQUEUE_FLOWER_URL")

    quoted = f". {Fish().quoted(str(home / file))}" if shell == "fish" else '. "$1"'
    print_all = "".join(f'; printf "%s\\n" "${name}"' for name in names)
    completed = subprocess.run(
        [shell, "-c", quoted + print_all, shell, str(home / file)],
        env={**os.environ, "HOME": str(tmp_path), "VOICEQUEUE_FLOWER_URL": "of an earlier stack"},
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip

    expected = [*env.values(), *urls.values(), "vq_local", ""]
    assert (completed.stdout.splitlines(), completed.stderr) == (expected, "")
