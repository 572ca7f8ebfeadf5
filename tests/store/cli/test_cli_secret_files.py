"""Secrets of the command line from files: `REDIS_URL_FILE` and the like."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.store.conftest import Command
from tests.support.jobs import voice
from voicequeue import VoiceQueue

CALLBACK_SECRET = f"whsec_{'YWFh' * 8}"


@pytest.fixture
def url_file(working_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the URL of this test's Redis as a file only."""
    file = tmp_path / "redis_url"
    file.write_text(os.environ["REDIS_URL"] + "\n")
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL_FILE", str(file))
    return file


@pytest.mark.usefixtures("url_file")
def test_commands_find_the_redis_that_a_file_names(command: Command, queue: VoiceQueue) -> None:
    """Also the doctor, which reads the environment by itself."""
    job = queue.enqueue(voice())

    assert job.id in command("jobs").out
    assert "Redis does not respond" not in command("doctor").out


@pytest.mark.parametrize("arguments", [("status",), ("doctor",)])
def test_a_command_does_not_use_another_redis_if_its_file_is_unusable(
    command: Command, url_file: Path, arguments: tuple[str, ...]
) -> None:
    """Such as the default one, with another queue. The error names the setting and the file."""
    url_file.unlink()

    ended = command(*arguments)

    assert ended.code == 2
    assert f"REDIS_URL_FILE: {url_file} cannot be read: No such file or directory" in ended.err.replace("\n", " ")


def test_the_callback_secret_of_a_receiver_comes_from_a_file_too(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the process `callbacks` reads it."""
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", CALLBACK_SECRET)
    expected = command("callbacks", "--root-secret").out
    (tmp_path / "secret").write_text(CALLBACK_SECRET)
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET", "")
    monkeypatch.setenv("VOICEQUEUE_CALLBACK_SECRET_FILE", str(tmp_path / "secret"))

    assert command("callbacks", "--root-secret").out == expected == f"{CALLBACK_SECRET}\n"
