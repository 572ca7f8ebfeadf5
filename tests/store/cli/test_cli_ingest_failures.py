"""The command `ingest`: files that cannot be written, and corrections that it must not lose."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from voicequeue import VoiceQueue
from voicequeue.cli.ingest import rejects
from voicequeue.ingest.checkpoint import IngestProgress

GOOD = "https://a.example/1.wav"
FULL = Path("/dev/full")


@pytest.fixture
def voices(working_folder: Path) -> Path:
    """Return a file with a good and a bad row."""
    return write(working_folder / "voices.csv", "audio_url", GOOD, "bad")


# ── files that cannot be written ──────────────────────────────────────────────────────────────────


def fail(*arguments: Any, **options: Any) -> Any:
    """Fail as a write on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("owner", ["progress", "workbook"])
def test_a_full_disk_is_an_error_with_its_cure(
    command: Command, working_folder: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    """In each file that is written; exit code 2, and --resume continues."""
    book = Workbook()
    for cell in ("audio_url", GOOD, "bad"):
        book.worksheets[0].append([cell])
    file = working_folder / "voices.xlsx"
    book.save(file)
    arguments = ("ingest", file, "--batch", "spring")
    with monkeypatch.context() as patch:
        if owner == "progress":
            patch.setattr(Path, "write_text", fail)
        else:
            file.with_name("voices.xlsx.rejected.part.xlsx").symlink_to(FULL)
        ended = command(*arguments)

    assert (ended.code, "cannot be written: no space left; free some and run the same command" in ended.err) == (
        2,
        True,
    )
    assert "with --resume" in ended.err
    output = command(*arguments, "--resume", "--json").json()
    assert (output["file"]["new"] + output["file"]["existing"], output["file"]["rejected"]) == (1, 1)
    assert sorted(path.name for path in working_folder.iterdir()) == ["voices.xlsx", "voices.xlsx.rejected.xlsx"]


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--max-rejected", "0"]])
def test_a_full_disk_below_the_rejected_rows_is_an_error(command: Command, voices: Path, options: list[str]) -> None:
    """In every kind of run."""
    for run in ("", ".dry-run"):
        voices.with_name(f"voices.csv{run}.rejected.part.csv").symlink_to(FULL)

    ended = command("ingest", voices, "--batch", "spring", *options)

    assert (ended.code, "rejected.part.csv cannot be written: no space left" in ended.err) == (2, True), ended.err
    assert ("with --resume" in ended.err) == (options != ["--dry-run"])


def test_rejected_rows_that_are_deleted_while_they_are_written_are_an_error(
    command: Command, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot be continued, so that the cure is a new run."""
    flush = rejects.RejectsFile.flush

    def delete_and_flush(file: rejects.RejectsFile) -> int:
        voices.with_name("voices.csv.rejected.part.csv").unlink()
        return flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(rejects.RejectsFile, "flush", delete_and_flush)
        ended = command("ingest", voices, "--batch", "spring")

    assert (ended.code, "was deleted or moved; run the same command again, without --resume" in ended.err) == (2, True)
    assert command("ingest", voices, "--batch", "spring").code == 1
    assert len(rejected(voices.with_name("voices.csv.rejected.csv"))) == 1


def test_resume_finishes_rejected_rows_that_could_not_be_put_in_their_place(
    command: Command, queue: VoiceQueue, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while Excel has the file open on Windows; no row is read again."""
    with monkeypatch.context() as patch:
        patch.setattr(rejects, "sign", fail)
        ended = command("ingest", voices, "--batch", "spring")

    assert (ended.code, "voices.csv.rejected.part.csv)" in ended.err) == (2, True), ended.err
    output = command("ingest", voices, "--batch", "spring", "--resume", "--json").json()
    assert (output["resumed_after"], output["new"], output["existing"]) == (2, 0, 0)
    assert len(rejected(Path(output["rejected_file"]))) == 1
    assert not IngestProgress.path(voices).exists()


# ── corrections ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_corrected", [False, True], ids=["rejected again", "all corrected in the input"])
@pytest.mark.parametrize("option", [[], ["--dry-run"]], ids=["real", "dry run"])
def test_corrections_in_the_rejected_rows_are_kept(
    command: Command, voices: Path, option: list[str], is_corrected: bool
) -> None:
    """If the original file is ingested again; under a name that is reported. An unchanged file is replaced."""
    arguments = ("ingest", voices, "--batch", "spring", *option)
    output = command(*arguments, "--json").json()
    path = Path(output["rejected_file"])
    assert command(*arguments, "--json").json()["kept_file"] is None
    corrections = path.read_text().replace(",bad", ",https://a.example/2.wav")
    path.write_text(corrections)
    if is_corrected:
        write(voices, "audio_url", GOOD)

    ended = command(*arguments)

    kept = path.with_suffix(".1.csv")
    assert kept.read_text() == corrections
    assert str(kept) in ended.err
    assert path.exists() != is_corrected
    path.write_text("other corrections")
    assert command(*arguments, "--json").json()["kept_file"] == str(path.with_suffix(".2.csv"))
