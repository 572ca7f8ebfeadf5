"""The start of each process: it imports no large package that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from voicequeue.cli import COMMANDS
from voicequeue.cli.lazy_group import LazyCommand

ROOT = Path(__file__).parents[3]

#: What no producer has, and what few commands need.
NOT_OF_THE_PACKAGE = {"celery", "kombu", "aiohttp", "fsspec", "structlog", "fastapi", "tasks", "workers", "config"}


def loaded_by(program: str) -> set[str]:
    """Return the modules that a process has loaded after running this program."""
    full = f"import sys\n{program}\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", full], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return set(output.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("import voicequeue", {"pydantic", "redis", "rich", "typer", "asyncio"}),
        (
            "from voicequeue import VoiceQueue",
            NOT_OF_THE_PACKAGE | {"requests", "rich", "typer", "voicequeue.client.async_queue"},
        ),
        ("import voicequeue.cli", {"pydantic", "redis", "requests", "urllib3", "asyncio", "rich.markdown"}),
        ("import workers.app", {"aiohttp", "uvloop", "fastapi", "uvicorn"}),
        ("import workers.gateway.app", {"aiohttp", "uvloop"}),
    ],
    ids=["the package", "a producer", "the command", "the app of Flower and callbacks", "the gateway"],
)
def test_a_process_loads_no_large_unused_package(program: str, forbidden: set[str]) -> None:
    """This shortens the start: aiohttp alone takes a quarter of a second."""
    assert forbidden & loaded_by(program) == set()


# ── the command ───────────────────────────────────────────────────────────────────────────────────


def test_the_help_loads_no_command() -> None:
    """Neither pydantic nor redis, which take most of the time of a start."""
    program = """
import voicequeue.cli
try:
    voicequeue.cli.app(["--help"])
except SystemExit:
    pass
"""

    loaded = loaded_by(program)

    assert {"pydantic", "redis", "voicequeue.client"} & loaded == set()
    assert {name for name in loaded if name.startswith("voicequeue.cli.")} == {
        "voicequeue.cli.lazy_group",
        "voicequeue.cli.terminal",
    }


def test_a_command_loads_neither_celery_nor_our_other_packages() -> None:
    """All commands together: an installation of the package alone has none of these."""
    program = "from voicequeue.cli import app\nfor name in app.commands:\n    app.load(name)"

    assert (NOT_OF_THE_PACKAGE | {"simulator", "requests"}) & loaded_by(program) == set()


@pytest.mark.parametrize(
    "command", [command for commands in COMMANDS.values() for command in commands], ids=lambda command: command.name
)
def test_the_help_gives_the_first_line_of_each_command(command: LazyCommand) -> None:
    """The list of commands repeats it, so that it needs no module of a command."""
    assert command.load().help.splitlines()[0] == command.summary
