"""Completion in the shell: the script, and the answers that it asks the command for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.store.conftest import Command
from tests.support.jobs import numbered_voices, voice
from voicequeue import VoiceQueue
from voicequeue.cli import batch_names

VOICEQUEUE = str(Path(sys.executable).with_name("voicequeue"))

#: What each shell's script puts into the environment of the command.
REQUESTS: dict[str, Callable[[str], dict[str, str]]] = {
    "bash": lambda line: {"COMP_WORDS": "\n".join(line.split(" ")), "COMP_CWORD": str(len(line.split(" ")) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}


def completed(line: str, shell: str = "bash", **environment: str) -> str:
    """Return what the command answers to a shell that completes this line."""
    request = {"_VOICEQUEUE_COMPLETE": f"complete_{shell}", **REQUESTS[shell](line), **environment}
    run = subprocess.run(
        [VOICEQUEUE], env={**os.environ, **request}, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stderr == ""
    return run.stdout


@pytest.mark.endurance
@pytest.mark.parametrize("shell", list(REQUESTS))
def test_commands_options_and_values_are_completed(working_folder: Path, shell: str) -> None:
    """By the protocol of each shell; of groups too."""
    commands = completed("voicequeue ba", shell)
    assert "batches" in commands
    assert "callbacks" not in commands
    assert "rotate" in completed("voicequeue keys ro", shell)
    options = completed("voicequeue jobs --s", shell)
    assert all(option in options for option in ("--state", "--stage", "--since", "--source", "--search"))
    assert "succeeded" in completed("voicequeue jobs --state su", shell)


@pytest.mark.endurance
def test_names_of_batches_are_completed_from_redis(working_folder: Path, queue: VoiceQueue) -> None:
    """The newest first; `--namespace` is respected."""
    for batch in ("spring-1", "spring-2", "summer"):
        queue.enqueue(voice(batch=batch, key=batch))

    assert completed("voicequeue status --batch sp").split() == ["spring-2", "spring-1"]
    assert completed("voicequeue cancel --batch su").split() == ["summer"]
    assert completed("voicequeue jobs --namespace shop --batch sp").split() == []


@pytest.mark.endurance
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "nonsense", "redis://192.0.2.1:6379/0"])
def test_a_redis_that_does_not_answer_completes_nothing(working_folder: Path, url: str) -> None:
    """Silently; an error would be written into the command line that is being typed."""
    assert completed("voicequeue status --batch sp", REDIS_URL=url).strip() == ""


def test_names_that_arrive_too_late_are_left_out(
    working_folder: Path, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell does not wait for them."""
    monkeypatch.setattr(batch_names, "ANSWER_TIMEOUT_S", 0.05)

    def read_slowly(*_: object, **__: object) -> list[str]:
        time.sleep(2)
        return ["late"]

    monkeypatch.setattr("voicequeue.VoiceQueue.batch_names", read_slowly)

    started_at = time.monotonic()
    assert batch_names.complete_batches(SimpleNamespace(params={}), "") == []  # type: ignore[arg-type]
    assert time.monotonic() - started_at < 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(command: Command, shell: str) -> None:
    """It asks the command in the way that the tests above answer."""
    script = command("completion", shell).out

    assert f"_VOICEQUEUE_COMPLETE=complete_{shell}" in script
    assert command("completion", shell, "--json").json() == {"shell": shell, "script": script.rstrip("\n")}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_with_the_script(working_folder: Path, queue: VoiceQueue) -> None:
    """A real bash sources it, and calls the function that it has registered for the command."""
    queue.enqueue_many(numbered_voices(1, batch="spring"))
    program = """
        source <(voicequeue completion bash)
        complete -p voicequeue
        COMP_WORDS=(voicequeue watch --batch spr) COMP_CWORD=3
        _voicequeue_completion voicequeue
        echo "${COMPREPLY[@]}"
    """
    path = f"{Path(VOICEQUEUE).parent}{os.pathsep}{os.environ['PATH']}"

    run = subprocess.run(
        ["bash", "--norc", "-c", program], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )

    assert run.stdout.splitlines() == ["complete -o default -F _voicequeue_completion voicequeue", "spring"]


def test_an_unknown_shell_is_wrong_usage(command: Command) -> None:
    """The message names those that are supported."""
    ended = command("completion", "tcsh")

    assert (ended.code, ended.out) == (2, "")
    assert "'bash', 'zsh', 'fish'" in ended.err
