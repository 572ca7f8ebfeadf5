"""The command `ingest`: one file has one ingestion at a time, and a kill at any moment loses no rejected row."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from voicequeue import VoiceQueue
from voicequeue.cli.ingest.lock import locked
from voicequeue.cli.ingest.rejects import sign
from voicequeue.ingest.checkpoint import IngestProgress

CHUNK = 10
ROWS = ["audio_url,key", *("bad," if n % 7 == 3 else f"https://a.example/{n}.wav,k{n % 20}" for n in range(28))]


@pytest.fixture
def voices(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of three chunks with invalid rows and conflicting keys."""
    monkeypatch.setattr("voicequeue.cli.ingest.command.PORTION_JOBS_MAX", CHUNK)
    return write(working_folder / "voices.csv", *ROWS)


# ── the lock ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["voices.csv", "./sub/../voices.csv", "link.csv", "voices.csv.rejected.csv"])
def test_a_file_is_not_ingested_twice_at_once(command: Command, queue: VoiceQueue, voices: Path, name: str) -> None:
    """Under any name, nor is the file of its rejected rows; exit code 2, and the other process is named."""
    (voices.parent / "sub").mkdir()
    (voices.parent / "link.csv").symlink_to(voices)
    write(voices.with_name("voices.csv.rejected.csv"), *ROWS)

    with locked(voices.with_name("voices.csv.lock"), "voices.csv"):
        ended = command("ingest", name, "--batch", "spring", "--resume")
        dry = command("ingest", name, "--batch", "spring", "--dry-run")

    message = (
        rf"another ingest of voices.csv runs \(pid {os.getpid()} on \S+, since \d{{4}}-.*\): wait for it, or stop it"
    )
    assert ended.code == 2
    assert re.search(message, ended.err)
    assert list(queue.jobs()) == []
    assert dry.code == 1
    assert not voices.with_name("voices.csv.lock").exists()


def test_the_lock_of_a_killed_process_is_free(command: Command, voices: Path) -> None:
    """Without an action of the user."""
    hold = (
        "import sys, time; from pathlib import Path; from voicequeue.cli.ingest.lock import locked\n"
        "with locked(Path(sys.argv[1]), 'x'): print(flush=True); time.sleep(60)"
    )
    lock = voices.with_name("voices.csv.lock")
    with subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert command("ingest", voices, "--batch", "spring").code == 2
        process.send_signal(signal.SIGKILL)

    eventually(lambda: process.poll() is not None)
    assert command("ingest", voices, "--batch", "spring").code == 1
    assert not lock.exists()


def test_streams_in_one_folder_have_a_file_of_rejected_rows_each(command: Command, voices: Path) -> None:
    """Several pipes are ingested at once; none replaces the rejected rows of another."""
    with locked(Path("stdin.lock"), "stdin"):
        output = command("ingest", "-", "--batch", "spring", "--json", stdin=voices.read_bytes()).json()

    assert output["rejected_file"] == "stdin-2.rejected.csv"


def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_row(
    command: Command, queue: VoiceQueue, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, with the cure; a stream needs no file."""
    monkeypatch.setattr("voicequeue.cli.ingest.lock.os.O_CREAT", 0)  # so that no file is created, for root neither

    ended = command("ingest", voices, "--batch", "spring")

    assert (ended.code, "copy it to a folder of your own" in ended.err) == (2, True)
    assert list(queue.jobs()) == []
    assert command("ingest", "-", "--batch", "spring", stdin=b"audio_url\nhttps://a.example/1.wav\n").code == 0


# ── kills ─────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The end of a process that gets no chance to clean up."""


class Kill:
    """Kills a run before or after its n-th step: a call to Redis or a change of a file.

    The folder is kept as it was at that moment, because the exception that ends the run closes its files.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.steps, self.at = 0, -1
        self._folder, self._kept = folder, folder.with_name(f"{folder.name}-kept")
        for owner, name in (
            (VoiceQueue, "enqueue_many"),
            (IngestProgress, "save"),
            (Path, "replace"),
            (Path, "unlink"),
        ):
            patch.setattr(owner, name, self._step(getattr(owner, name)))

    def _step(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            self._pass()
            result = call(*arguments, **options)
            self._pass()
            return result

        return step

    def _pass(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            shutil.copytree(self._folder, self._kept)
            raise Killed

    def run(self, command: Command, *arguments: object, at: int) -> bool:
        """Run the command, and kill it at that step; return whether it was killed."""
        self.steps, self.at = 0, at
        try:
            command(*arguments)
        except Killed:
            shutil.rmtree(self._folder)
            shutil.copytree(self._kept, self._folder)
            shutil.rmtree(self._kept)
            os.chdir(self._folder)
            return True
        finally:
            self.at = -1
        return False


@pytest.mark.endurance
def test_a_kill_at_any_moment_loses_no_rejected_row(
    command: Command, queue: VoiceQueue, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed, and killed once more, the file has the rejected rows of a run without interruption.

    At each moment, the file of rejected rows is that of an earlier run, or the new one, as a whole.
    """
    target = voices.with_name("voices.csv.rejected.csv")
    arguments = ("ingest", voices, "--batch", "spring")
    command(*arguments)
    expected, jobs = target.read_bytes(), queue.batch("spring").total
    kill, steps, chance = Kill(voices.parent, monkeypatch), 0, random.Random(20)

    while True:
        target.write_bytes(b"earlier")
        sign(target)
        steps += chance.choice((1, 2, 3))
        if not kill.run(command, *arguments, at=steps):
            break
        assert target.read_bytes() in (b"earlier", expected)
        kill.run(command, *arguments, "--resume", at=chance.randrange(1, 30))
        assert target.read_bytes() in (b"earlier", expected)
        assert command(*arguments, "--resume").code == 1
        assert target.read_bytes() == expected
        assert sorted(voices.parent.iterdir()) == [voices, target]

    assert steps > 30
    assert queue.batch("spring").total == jobs


# ── files that change ─────────────────────────────────────────────────────────────────────────────


def edit_quietly(file: Path) -> None:
    """Edit the file in place as `rsync --inplace --times` does: its size and time of modification stay."""
    before = file.stat()
    file.write_text(file.read_text().replace("/27.wav", "/99.wav"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "appended": lambda file: file.write_text(file.read_text() + "https://a.example/new.wav,new\n"),
    "cut": lambda file: os.truncate(file, 300),
    "edited": lambda file: file.write_text(file.read_text().replace("/27.wav", "/99.wav")),
    "replaced": lambda file: write(file.with_name("new"), *ROWS).replace(file),
    "deleted": lambda file: file.unlink(),
    "edited, with its time kept": edit_quietly,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("calls", [1, 3], ids=["in the middle", "at the end"])
def test_a_file_that_changes_while_it_is_read_stops_the_run(
    command: Command,
    queue: VoiceQueue,
    voices: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    calls: int,
) -> None:
    """Before rows that were read after the change are enqueued; exit code 2, and --resume does not mix both files."""
    enqueue, count = VoiceQueue.enqueue_many, 0

    def enqueue_and_change(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        result = enqueue(*arguments, **options)
        if count == calls:
            change(voices)
        return result

    monkeypatch.setattr(VoiceQueue, "enqueue_many", enqueue_and_change)
    ended = command("ingest", voices, "--batch", "spring", "--json")

    assert (ended.code, ended.json()["stopped"]) == (2, "file_changed")
    assert "while it was read" in ended.err
    assert ended.json()["new"] == queue.batch("spring").total
    assert count == calls
    assert ("Put it back" in ended.err) == (not voices.exists())
    if voices.exists() and change is not CHANGES["edited, with its time kept"]:
        assert command("ingest", voices, "--batch", "spring", "--resume").code == 2


def test_a_dry_run_of_a_file_that_changes_says_so(
    command: Command, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counts are of no use; exit code 2."""
    preview = VoiceQueue.preview

    def preview_and_change(*arguments: Any) -> Any:
        yield from preview(*arguments)
        CHANGES["appended"](voices)

    monkeypatch.setattr(VoiceQueue, "preview", preview_and_change)
    ended = command("ingest", voices, "--batch", "spring", "--dry-run", "--json")

    assert (ended.code, ended.json()["stopped"]) == (2, "file_changed")
    assert rejected(voices.with_name("voices.csv.dry-run.rejected.csv"))
