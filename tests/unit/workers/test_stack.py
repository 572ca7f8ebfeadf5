"""The one-machine stack: what it gives its programs, without starting them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from config.settings import Settings
from workers.local import stack
from workers.local.readiness import PortTakenError
from workers.local.stack import Stack
from workers.local.supervisor import Program


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Program]:
    """Return the list of programs that a stack starts; none is really started."""
    monkeypatch.setattr(stack, "wait_until", lambda *_: None)
    return []


@pytest.mark.parametrize("key", ["", "key-of-a-real-account"])
@pytest.mark.parametrize("archive", ["", "songs"])
def test_every_program_gets_the_same_secret(tmp_path: Path, programs: list[Program], key: str, archive: str) -> None:
    """In any order of starts, with the simulator and with a real account: the doctor compares it."""
    supervisor: Any = SimpleNamespace(add=programs.append, pid=lambda _: 1, restart=None, repeat=lambda *_: None)
    settings = Settings(_env_file=None, MUSICAPI_KEY=key, archive_url=archive)

    Stack(supervisor, settings, home=tmp_path).start_all(workers=1)

    secret = (tmp_path / "secret").read_text()
    readers = {program.name: program.env.get("VOICEQUEUE_SECRET") for program in programs}
    expected = {"web", "worker.1", "callbacks"} | ({"archive"} if archive else set())
    assert {name: readers[name] for name in expected} == dict.fromkeys(expected, secret)


def test_a_program_that_is_restarted_keeps_its_environment(tmp_path: Path, programs: list[Program]) -> None:
    """What the stack learns later is for programs that start later."""
    supervisor: Any = SimpleNamespace(add=programs.append, pid=lambda _: 1, restart=None, repeat=lambda *_: None)
    built = Stack(supervisor, Settings(_env_file=None), home=tmp_path)

    built.start("early", "true")
    built.use_redis("redis://127.0.0.1:1/0")

    assert "REDIS_URL" not in programs[0].env


def test_a_port_that_is_lost_while_a_program_starts_is_reported(
    tmp_path: Path, programs: list[Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port that was announced before is not the one in use."""
    outcomes = iter([PortTakenError()])

    def lose_the_port_once(*_: object) -> None:
        for error in outcomes:
            raise error

    monkeypatch.setattr(stack, "wait_until", lose_the_port_once)
    supervisor: Any = SimpleNamespace(add=programs.append, remove=lambda _: None, pid=lambda _: 1)
    reports: list[str] = []
    built = Stack(supervisor, Settings(_env_file=None), home=tmp_path, print_line=reports.append)

    base, control = built.start_simulator({}, 18_900, 18_901)

    ports = " and ".join(url.rpartition(":")[2] for url in (base, control))
    lost = "another program took a port of the simulator (18900 and 18901) while it started"
    assert reports == [f"{lost}: using {ports} instead"]
