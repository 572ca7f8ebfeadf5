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


#: What most commands need, and their list does not.
NOT_OF_THE_HELP = {"pydantic", "redis", "rich", "cryptography", "requests", "urllib3", "asyncio", "voicequeue.client"}


#: What the processes of a worker share.
WORKER = """
import os
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
import tasks.celery_tasks
from tasks.musicapi import preload
preload("https://musicapi.example")
"""


def loaded_by(program: str) -> set[str]:
    """Return the modules that a process has loaded after running this program."""
    return set(output_of(f"import sys\n{program}\nprint(*sys.modules)").splitlines()[-1].split())


def output_of(program: str) -> str:
    """Run a program in a process of its own; return what it prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("import voicequeue", {"pydantic", "redis", "rich", "typer", "asyncio"}),
        (
            "from voicequeue import VoiceQueue",
            NOT_OF_THE_PACKAGE | {"requests", "rich", "typer", "voicequeue.client.async_queue"},
        ),
        ("import voicequeue.cli", NOT_OF_THE_HELP),
        (WORKER, {"requests", "urllib3", "charset_normalizer"}),
    ],
    ids=["the package", "a producer", "the command", "a worker without a proxy"],
)
def test_a_process_loads_no_large_unused_package(program: str, forbidden: set[str]) -> None:
    """This shortens the start, and saves memory."""
    assert forbidden & loaded_by(program) == set()


# ── the command ───────────────────────────────────────────────────────────────────────────────────


RUN_COMMAND = """
import voicequeue.cli
sys.argv = ["voicequeue", {option!r}]
try:
    voicequeue.cli.main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("option", ["--help", "--version", "--no-such-option"])
def test_the_help_loads_no_command(option: str) -> None:
    """No rich, pydantic and redis, which take most of the time of a start."""
    loaded = loaded_by(RUN_COMMAND.format(option=option))

    assert NOT_OF_THE_HELP & loaded == set()
    assert {name for name in loaded if name.startswith("voicequeue.cli.")} == {
        f"voicequeue.cli.{name}"
        for name in (
            "batch_names",
            "completion",
            "errors",
            "help_text",
            "lazy_group",
            "namespace",
            "parsing",
            "terminal",
        )
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


# ── the processes ─────────────────────────────────────────────────────────────────────────────────

#: Celery's other commands with their libraries, and the libraries of other processes.
NOT_OF_A_WORKER = {
    *("flower", "tornado", "click_repl", "prompt_toolkit", "fastapi", "uvicorn", "fsspec", "requests"),
    *("aiohttp", "uvloop"),  # imported before the fork, in workers that submit orders only
    *("cffi", "colorama", "greenlet", "pygments", "rich", "yaml"),  # optional for libraries that we use
}

RUN_HELP = """
from workers.__main__ import main
sys.argv = ["workers", {command!r}, "--help"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.endurance
@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        (RUN_HELP.format(command="worker"), NOT_OF_A_WORKER | {"celery.bin.celery"}),
        (
            RUN_HELP.format(command="flower"),
            NOT_OF_A_WORKER - {"flower", "tornado"} | {"celery.bin.celery", "celery.bin.worker"},
        ),
        (
            "from workers.startup import lean_imports\nwith lean_imports():\n    import workers.gateway.serving",
            NOT_OF_A_WORKER - {"fastapi", "uvicorn"} | {"celery.bin.base"},
        ),
    ],
    ids=["worker", "flower", "gateway"],
)
def test_a_process_loads_neither_other_processes_nor_disabled_tracing(program: str, forbidden: set[str]) -> None:
    """Celery's own entry point would import all its commands and plugins, and redis-py the SDK of OpenTelemetry."""
    assert (forbidden | {"opentelemetry.sdk"}) & loaded_by(program) == set()


def test_tracing_that_is_enabled_finds_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is hidden from redis-py only while a process without traces starts."""
    start = "from workers.startup import lean_imports\nwith lean_imports():\n    import redis\n"
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    assert "opentelemetry.sdk.metrics" in loaded_by(f"{start}import opentelemetry.sdk.metrics")

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert "opentelemetry.sdk.metrics" in loaded_by(start)


def test_collections_are_enabled_again_after_the_start() -> None:
    """A start that fails enables them too."""
    program = """
import gc
from workers.startup import lean_imports
try:
    with lean_imports():
        is_paused = not gc.isenabled()
        raise ImportError
except ImportError:
    pass
print("paused" if is_paused else "running", "enabled" if gc.isenabled() else "disabled")
"""

    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout

    assert output.split() == ["paused", "enabled"]
