"""The library and the command on other systems: without what only POSIX has, and with other encodings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from openpyxl import Workbook

from tests.support.jobs import voice
from voicequeue import Song, VoiceQueue

ROOT = Path(__file__).parents[3]

PRODUCER = """
from tests.support.without_posix import become_windows, import_everything
become_windows()
import os
from voicequeue import VoiceJob, VoiceQueue
print(import_everything())
queue = VoiceQueue(os.environ["REDIS_URL"], prefix=os.environ["VOICEQUEUE_PREFIX"])
job = queue.enqueue(VoiceJob(audio_url="https://recordings.example/ana.wav"))
queue.cancel(job.id)
print(queue.wait(job.id, timeout=10).state)
"""


def python(*arguments: str, **environment: str) -> list[str]:
    """Run Python with these arguments, and return the lines of its output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


# ── Windows ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
def test_a_producer_needs_nothing_that_only_posix_systems_have(working_folder: Path) -> None:
    """Every module of the library is imported, a job is enqueued, cancelled and waited for."""
    modules, state = python("-c", PRODUCER)

    assert int(modules) > 150
    assert state == "cancelled"


@pytest.mark.endurance
def test_a_file_is_ingested_without_what_only_posix_systems_have(working_folder: Path, queue: VoiceQueue) -> None:
    """A workbook with shared texts, under the lock of that system."""
    book = Workbook()
    assert book.active is not None
    for row in (["audio_url", "name"], *([f"https://recordings.example/{n}.wav", f"Åse {n}"] for n in range(5))):
        book.active.append(row)
    book.save(working_folder / "voices.xlsx")

    output = python("-m", "tests.support.without_posix", "ingest", "voices.xlsx", "--batch", "b", "--json")

    assert json.loads("".join(output))["new"] == 5
    assert {job.spec.name for job in queue.jobs()} == {f"Åse {n}" for n in range(5)}
    assert sorted(path.name for path in working_folder.iterdir()) == ["voices.xlsx"]


# ── encodings ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.endurance
@pytest.mark.parametrize("arguments", [("jobs",), ("export", "--json")], ids=" ".join)
def test_output_to_a_file_is_utf8_in_every_locale(
    working_folder: Path, queue: VoiceQueue, arguments: tuple[str, ...]
) -> None:
    """Windows and old locales have encodings without most of the characters of names."""
    queue.enqueue(voice(batch="b", song=Song(prompt="[Verse] la", title="声 → 🎤")))

    output = python("-m", "voicequeue.cli", *arguments, PYTHONIOENCODING="cp1252")

    assert "声 → 🎤" in "\n".join(output)
