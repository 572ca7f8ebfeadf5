"""The command as a process: entry point, exit codes, pipes, terminals, and an unreachable Redis."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.store.life import NOW, apply_transition, job_in_state
from tests.support.jobs import numbered_voices, voice
from voicequeue import State, VoiceQueue
from voicequeue.storage.job_store import JobStore

VOICEQUEUE = str(Path(sys.executable).with_name("voicequeue"))
SECRET = "s3cr3t"

#: Every command, with arguments that would do.
EVERY = [
    ["enqueue", "--audio-url", "https://recordings.example/ana.wav"],
    ["ingest", "voices.csv", "--batch", "b"],
    ["export"],
    ["status"],
    ["jobs"],
    ["job", "x"],
    ["watch"],
    ["retry", "x"],
    ["cancel", "x"],
    ["doctor", "--audit"],
]


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the installed command to its end."""
    return subprocess.run([VOICEQUEUE, *arguments], input=stdin, capture_output=True, check=False, timeout=30)


# ── the process ───────────────────────────────────────────────────────────────────────────────────


def test_the_command_is_installed_by_its_name(working_folder: Path) -> None:
    """It prints its help; without arguments too, which is wrong usage."""
    helped, bare = run("--help"), run()

    assert (helped.returncode, bare.returncode) == (0, 2)
    for command, *_ in EVERY:
        assert command in helped.stdout.decode()


def test_the_module_is_the_command_too(working_folder: Path) -> None:
    """For environments whose scripts are not on the path."""
    module = [sys.executable, "-m", "voicequeue.cli", "status", "--json"]

    ended = subprocess.run(module, capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert json.loads(ended.stdout)["states"]["queued"] == 0


@pytest.mark.endurance
def test_rows_and_results_go_through_pipes(working_folder: Path, queue: VoiceQueue) -> None:
    """Bad rows exit with 1; the output is UTF-8."""
    rows = "audio_url,name\nhttps://recordings.example/a.wav,Åse\nnowhere,Bo\n"

    ended = run("ingest", "-", "--batch", "b", "--json", stdin=rows.encode())

    assert ended.returncode == 1
    assert (working_folder / "stdin.rejected.csv").exists()
    assert json.loads(ended.stdout)["new"] == 1
    assert json.loads(run("export", "--json").stdout.decode())["name"] == "Åse"


def test_a_reader_that_leaves_early_is_no_error(working_folder: Path, queue: VoiceQueue) -> None:
    """`voicequeue export | head -1` prints no traceback."""
    queue.enqueue_many(numbered_voices(3_000))

    with subprocess.Popen([VOICEQUEUE, "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        assert export.stdout.readline().startswith(b"id,")
        export.stdout.close()
        assert export.stderr.read() == b""


def test_settings_of_the_working_directory_are_read(
    working_folder: Path, queue: VoiceQueue, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """From `.env`, as by the workers; the environment takes precedence."""
    queue.enqueue(voice(batch="b"))
    (working_folder / ".env").write_text(f"VOICEQUEUE_PREFIX={prefix}\nREDIS_URL=redis://127.0.0.1:1/0\n")
    monkeypatch.delenv("VOICEQUEUE_PREFIX")

    assert json.loads(run("status", "--json").stdout)["states"]["queued"] == 1


def test_ctrl_c_ends_the_watching(working_folder: Path, queue: VoiceQueue) -> None:
    """At once, with the exit code that shells expect, and without a traceback."""
    queue.enqueue(voice(batch="b"))
    with subprocess.Popen(
        [VOICEQUEUE, "watch", "--batch", "b"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith(b"b: 1 queued")
        watching.send_signal(signal.SIGINT)
        _, output = watching.communicate(timeout=10)

    assert watching.returncode == 130
    assert b"Traceback" not in output


# ── a terminal ────────────────────────────────────────────────────────────────────────────────────


def on_a_terminal(*arguments: str, meanwhile: Callable[[bytes], None] = lambda _: None) -> tuple[int, str]:
    """Run the command on a terminal of its own; return its exit code and output."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    sent = b""
    with subprocess.Popen([VOICEQUEUE, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as command:
        os.close(theirs)
        while piece := _piece(ours):
            sent += piece
            meanwhile(sent)
    os.close(ours)
    return command.returncode, sent.decode()


def _piece(terminal: int) -> bytes:
    """Return the next bytes; none once the other side is closed."""
    select.select([terminal], [], [], 30)
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""


def test_a_terminal_gets_colours_and_no_escapes_of_others(working_folder: Path, queue: VoiceQueue) -> None:
    """Every escape in the output is our own."""
    queue.enqueue(voice(name="\x1b]0;owned\x07[red]\x9b31m"))

    code, sent = on_a_terminal("jobs")

    assert code == 0
    assert "\x1b[" in sent
    assert set(re.findall(r"\x1b.", sent)) == {"\x1b["}
    assert {escape[-1] for escape in re.findall(r"\x1b\[[0-9;]*.", sent)} == {"m"}
    assert not {"\x07", "\x9b"} & set(sent)
    assert "[red]" in sent


def test_watching_on_a_terminal_is_live_and_ends_by_itself(working_folder: Path, store: JobStore) -> None:
    """Bars are redrawn in place until the batch has settled."""
    job = job_in_state(store, State.PENDING, voice(batch="b"))
    shown: list[bytes] = []

    def settle(sent: bytes) -> None:
        if b"0 of 1" in sent and not shown:
            shown.append(sent)
            apply_transition(store, job, State.SUCCEEDED, NOW)

    code, sent = on_a_terminal("watch", "--batch", "b", "--interval", "0.05", meanwhile=settle)

    assert (code, len(shown)) == (0, 1)
    assert "1 of 1" in sent


# ── Redis away, and settings that cannot be ───────────────────────────────────────────────────────


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return the URL of a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"redis://:{SECRET}@127.0.0.1:{bound.getsockname()[1]}/0"


@pytest.mark.parametrize("arguments", EVERY, ids=lambda arguments: arguments[0])
def test_an_unreachable_redis_exits_with_3(
    command: Command, working_folder: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """For every command: one line on standard error, without the password."""
    (working_folder / "voices.csv").write_text("audio_url\nhttps://recordings.example/ana.wav\n")
    monkeypatch.setenv("REDIS_URL", nowhere)

    ended = command(*arguments)

    assert (ended.code, ended.out) == (3, "")
    assert "Redis does not answer" in ended.err
    assert "REDIS_URL" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert SECRET not in ended.err


@pytest.mark.endurance
def test_the_password_is_in_no_trace_of_the_process(
    working_folder: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither if Redis is unreachable nor if the URL is invalid."""
    for url, code in ((nowhere, 3), (f"redis://:{SECRET}#more@127.0.0.1:6379/0", 2), (f"{SECRET}@localhost", 2)):
        monkeypatch.setenv("REDIS_URL", url)
        ended = run("status")
        assert (ended.returncode, ended.stdout) == (code, b"")
        assert b"Traceback" not in ended.stderr
        assert SECRET.encode() not in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("REDIS_URL", "localhost:6379"), ("REDIS_URL", "http://localhost"), ("VOICEQUEUE_PREFIX", "a b")],
)
def test_an_invalid_setting_exits_with_2(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The message names it and what is allowed."""
    monkeypatch.setenv(name, value)

    ended = command("status")

    assert (ended.code, ended.out) == (2, "")
    assert name in ended.err


def test_a_redis_that_refuses_exits_with_3(command: Command, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And quotes the reason."""
    monkeypatch.setenv("REDIS_URL", valkey_url[:-1] + "99")

    ended = command("jobs")

    assert (ended.code, ended.out) == (3, "")
    assert "DB index is out of range" in ended.err
