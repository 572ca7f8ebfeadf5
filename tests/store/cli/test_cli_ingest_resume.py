"""The command `ingest --resume`: interrupted runs continue, and each row is ingested once."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from openpyxl import Workbook

from tests.conftest import eventually
from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from voicequeue import VoiceQueue
from voicequeue.ingest.checkpoint import IngestProgress
from voicequeue.ingest.row_reader import RowReader

VOICEQUEUE = (sys.executable, "-m", "voicequeue.cli")


def kill_ingest(file: Path, *options: str, after: int) -> None:
    """Ingest the file, and kill the process once that many lines are done."""
    kept = file.with_name(f"{file.name}.progress.json")
    command = [*VOICEQUEUE, "ingest", str(file), "--batch", "spring", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: kept.exists() and json.loads(kept.read_text())["lines"] >= after)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.endurance
def test_an_interrupted_run_says_how_to_resume(working_folder: Path) -> None:
    """Ctrl-C ends it at once."""
    file = write(working_folder / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(8_000)))
    command = [*VOICEQUEUE, "ingest", str(file), "--batch", "spring"]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(IngestProgress.path(file).exists)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=20)

    assert process.returncode not in (0, -signal.SIGINT)
    assert "run the same command with --resume" in output
    assert "Traceback" not in output


@pytest.mark.endurance
@pytest.mark.parametrize(("packed", "count"), [(False, 8_000), (True, 4_000)], ids=["plain", "gzip"])
def test_a_killed_run_resumes_and_takes_each_row_once(
    command: Command, queue: VoiceQueue, working_folder: Path, packed: bool, count: int
) -> None:
    """Rejected rows too; finished rows are not read again, and no file is left over."""
    urls = ["nowhere" if number % 100 == 7 else f"https://a.example/{number}.wav" for number in range(count)]
    file = write(working_folder / "voices.csv", "audio_url,prompt", *(f'{url},"la\nla"' for url in urls))
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))

    kill_ingest(file, after=2 * count // 10)
    kill_ingest(file, "--resume", after=12 * count // 10)  # two lines a row
    ended = command("ingest", file, "--batch", "spring", "--resume", "--json")

    assert ended.json()["resumed_after"] >= 12 * count // 10
    output = ended.json()["file"]
    assert (output["new"] + output["existing"], output["rejected"]) == (count * 0.99, count * 0.01)
    assert queue.batch("spring").total == count * 0.99
    lines = [int(row["line"]) for row in rejected(working_folder / "voices.csv.rejected.csv")]
    assert lines == [2 + 2 * number for number in range(7, count, 100)]
    assert len(list(working_folder.iterdir())) == 2


@pytest.fixture
def halfway(working_folder: Path, queue: VoiceQueue) -> Path:
    """Return a file whose first 600 rows were ingested."""
    file = write(
        working_folder / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(600)), "bad", "bad"
    )
    [*rows] = (
        row.to_job("spring") for row, _ in zip(RowReader(io.BytesIO(file.read_bytes())), range(600), strict=False)
    )
    queue.enqueue_many(rows)
    progress = IngestProgress.start(file, "spring")
    progress.lines, progress.last_job, progress.counts.new = 600, queue.enqueue(rows[-1]).id, 600
    progress.save(file)
    return file


def test_the_counts_are_those_of_this_run(command: Command, halfway: Path) -> None:
    """The totals of the whole file are shown beside them."""
    ended = command("ingest", halfway, "--batch", "spring", "--resume")

    assert (ended.code, "0 new, 0 existing, 2 rejected" in ended.out) == (1, True)
    assert "the whole file, with the runs before: 600 new, 0 existing, 2 rejected" in ended.out
    assert "2  invalid row" in ended.out


def test_a_dry_run_counts_only_the_rows_that_are_left(command: Command, halfway: Path) -> None:
    """With --resume; the progress stays as it is."""
    before = IngestProgress.path(halfway).read_bytes()

    output = command("ingest", halfway, "--batch", "spring", "--dry-run", "--resume", "--json").json()

    assert (output["new"], output["existing"], output["rejected"], output["credits"]) == (0, 0, 2, 0)
    assert IngestProgress.path(halfway).read_bytes() == before


def test_without_resume_it_starts_at_the_first_row(command: Command, halfway: Path) -> None:
    """It adds no job twice."""
    output = command("ingest", halfway, "--batch", "spring", "--json").json()

    assert (output["existing"], output["rejected"], output["resumed_after"]) == (600, 2, None)
    assert not IngestProgress.path(halfway).exists()


def test_resume_without_progress_starts_at_the_first_row(command: Command, working_folder: Path) -> None:
    """So scripts can always pass --resume."""
    file = write(working_folder / "voices.csv", "audio_url", "https://a.example/1.wav")

    output = command("ingest", file, "--batch", "spring", "--resume", "--json").json()

    assert (output["new"], output["resumed_after"]) == (1, None)


def spoil(how: str, file: Path, queue: VoiceQueue) -> None:
    """Make the saved progress unusable."""
    kept = IngestProgress.path(file)
    match how:
        case "changed":
            file.write_text(file.read_text().replace("/1.wav", "/x.wav"))
        case "unreadable":
            kept.write_text("{")
        case "rejected rows gone":
            kept.write_text(kept.read_text().replace('"rejected_bytes": 0', '"rejected_bytes": 99'))
        case "another queue":
            kept.write_text(kept.read_text().replace('"last_job": "', '"last_job": "x'))


@pytest.mark.parametrize(
    ("how", "output"),
    [
        ("changed", "has changed since; ingest it without --resume"),
        ("unreadable", "voices.csv.progress.json cannot be read; ingest it without --resume"),
        ("rejected rows gone", "voices.csv.rejected.part.csv: No such file or directory; ingest without --resume"),
        ("another queue", "this queue does not hold the jobs that"),
    ],
)
def test_it_resumes_only_if_the_progress_matches(
    command: Command, queue: VoiceQueue, halfway: Path, how: str, output: str
) -> None:
    """Exit code 2; no row is skipped that was not ingested."""
    spoil(how, halfway, queue)

    ended = command("ingest", halfway, "--batch", "spring", "--resume")

    assert (ended.code, output in ended.err) == (2, True), ended.err
    assert queue.batch("spring").total == 600


def test_it_does_not_resume_for_another_batch(command: Command, halfway: Path) -> None:
    """Rows are skipped only for the batch into which they were ingested."""
    ended = command("ingest", halfway, "--batch", "autumn", "--resume")

    assert (ended.code, "belongs to the batch spring, not autumn" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "output"),
    [
        (["--extra", "ignore"], "with --extra error, now with --extra ignore"),
        (["--encoding", "cp1252"], "without --encoding, now with --encoding cp1252"),
        (["--accept-incomplete"], "without --accept-incomplete, now with --accept-incomplete"),
    ],
)
def test_it_does_not_resume_with_other_options(
    command: Command, queue: VoiceQueue, working_folder: Path, options: list[str], output: str
) -> None:
    """Rows that these would reject or read differently would be skipped."""
    file = write(working_folder / "voices.csv", "audio_url", *["bad"] * 501)
    command("ingest", file, "--batch", "spring", "--max-rejected", "500")

    ended = command("ingest", file, "--batch", "spring", "--resume", *options)

    assert (ended.code, f"is of a run {output}. Resume with the same options" in ended.err) == (2, True), ended.err
    assert command("ingest", file, "--batch", "spring", "--resume").code == 1


def test_it_does_not_resume_on_another_sheet(command: Command, queue: VoiceQueue, working_folder: Path) -> None:
    """The first sheet may be named or not."""
    book = Workbook()
    for name in ("North", "South"):
        sheet = book.create_sheet(name)
        for url in ("audio_url", *["bad"] * 501):
            sheet.append([url])
    del book["Sheet"]
    file = working_folder / "voices.xlsx"
    book.save(file)
    command("ingest", file, "--batch", "spring", "--max-rejected", "500")

    ended = command("ingest", file, "--batch", "spring", "--resume", "--sheet", "South")

    assert (ended.code, "with --sheet North, now with --sheet South" in ended.err) == (2, True), ended.err
    assert command("ingest", file, "--batch", "spring", "--resume", "--sheet", "North").code == 1


def test_standard_input_cannot_be_resumed(command: Command, working_folder: Path) -> None:
    """It cannot be read a second time."""
    ended = command("ingest", "-", "--batch", "spring", "--resume", stdin=b"audio_url\n")

    assert (ended.code, "--resume needs a file" in ended.err) == (2, True)


def test_rejected_rows_of_an_earlier_run_are_not_mistaken_for_this_ones(command: Command, working_folder: Path) -> None:
    """They are deleted when a run writes its first rows."""
    file = write(working_folder / "voices.csv", "audio_url", "https://a.example/1.wav")
    stale = write(working_folder / "voices.csv.rejected.csv", "line,reason,audio_url", "2,nonsense,x")

    assert command("ingest", file, "--batch", "spring").code == 0
    assert not stale.exists()
