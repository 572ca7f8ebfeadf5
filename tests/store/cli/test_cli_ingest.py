"""The command `ingest`: good rows are enqueued, bad rows are reported."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from pathlib import Path

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import dump_keys
from tests.support.jobs import numbered_voices
from voicequeue import VoiceQueue
from voicequeue.domain.portions import PORTION_JOBS_MAX

A, B, C, D = (f"https://recordings.example/{letter}.wav" for letter in "abcd")


def rejected(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of rejected rows."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, *lines: str) -> Path:
    """Write these lines to a file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# ── a file with everything wrong ──────────────────────────────────────────────────────────

HEADER = "audio_url,persona_id,name,mv,prompt,style_weight,max_credits,key"
BAD_ROWS = {
    4: (",,Bea,,,,,", "exactly one of audio_url and persona_id"),
    5: (f"{B},,Cy,chirp-v4,la,,,", "mv: must be a sonic model"),
    6: (f'{B},,Di,sonic-v4,"{"x" * 3_001}",,,', "prompt: has 3,001 characters; sonic-v4 takes at most 3,000"),
    7: (f"{B},p-1,Ed,,la,,,", "exactly one of audio_url and persona_id"),
    8: (f"{B},,Fe,,la,loud,,", "style_weight: "),
    9: (f"{B},,Gi,,la,,ten,", "max_credits: "),
    10: ("ftp://x/y.wav,,Hu,,la,,,", "audio_url: must be an http"),
    11: (f"{B},,Ib,,la,,,,,more", "has 10 cells, but the header names 8"),
    12: (f"{B},,Jo,,other,,,taken", "key: 'taken' already belongs to job"),
    13: (f'{B},,"Ka"x,,la,,,', "not readable as CSV"),
}
LINES = [
    HEADER,
    f"{A},,Ana,sonic-v5,la,0.5,20,",
    f"{A},,Abe,,,,,taken",
    *(row for row, _ in BAD_ROWS.values()),
    f'{C},,Last,,"two',
    'lines",,,',
    f"{D},,,,,,,",
]


@pytest.fixture
def voices(working_folder: Path) -> Path:
    """Return a file with good and bad rows."""
    return write(working_folder / "voices.csv", *LINES)


def test_the_good_rows_of_a_bad_file_are_enqueued(command: Command, queue: VoiceQueue, voices: Path) -> None:
    """In order, before, between and after the bad ones; the exit code is 1."""
    ended = command("ingest", voices, "--batch", "spring")

    assert ended.code == 1
    assert [job.spec.name for job in queue.jobs(batch="spring")] == ["Ana", "Abe", "Last", None]
    assert "4 new, 0 existing, 10 rejected" in ended.out
    assert f"{voices}.rejected.csv" in ended.err


def test_rows_over_a_hard_budget_are_rejected_and_can_be_ingested_later(
    command: Command, queue: VoiceQueue, working_folder: Path
) -> None:
    """They are counted by their own name, the others are jobs, and the file of rejected rows is ingested as it is."""
    file = write(working_folder / "voices.csv", "audio_url,key", *(f"https://a.example/{n}.wav,k{n}" for n in range(3)))
    queue.set_budget("account", day=8, hard=True)

    ended = command("ingest", file, "--batch", "spring", "--json").json()
    assert (ended["new"], ended["reasons"]) == (2, {"budget_exceeded": 1})
    queue.set_budget("account", hard=False)
    assert command("ingest", ended["rejected_file"], "--batch", "spring", "--json").json()["new"] == 1


def test_every_bad_row_is_explained_with_its_line(command: Command, voices: Path) -> None:
    """In FILE.rejected.csv, with its cells unchanged."""
    command("ingest", voices, "--batch", "spring")

    rows = rejected(voices.with_name("voices.csv.rejected.csv"))
    assert sorted(int(row["line"]) for row in rows) == sorted(BAD_ROWS)
    for row in rows:
        text, reason = BAD_ROWS[int(row["line"])]
        assert reason in row["reason"]
        [cells] = csv.DictReader([HEADER, text])
        assert int(row["line"]) == 13 or {name: row[name] for name in HEADER.split(",")} == {
            name: cells[name] for name in HEADER.split(",")
        }


def test_the_same_file_again_adds_nothing(command: Command, queue: VoiceQueue, voices: Path) -> None:
    """Nothing is paid for twice."""
    command("ingest", voices, "--batch", "spring")
    before = list(queue.jobs())

    ended = command("ingest", voices, "--batch", "spring", "--json")

    counts = {"new": 0, "existing": 4, "rejected": 10, "credits": 0, "warnings": {}}
    counts["reasons"] = {"invalid_row": 9, "key_conflict": 1}
    assert ended.json() == {
        **counts,
        "warned_rows": [],
        "rejected_file": f"{voices}.rejected.csv",
        "kept_file": None,
        "resumed_after": None,
        "file": counts,
        "stopped": None,
        "batch_hold": None,
    }
    assert list(queue.jobs()) == before


def test_a_corrected_file_of_rejected_rows_can_be_ingested_directly(
    command: Command, queue: VoiceQueue, voices: Path
) -> None:
    """Its first two columns are ignored; rows that are still bad replace it, under the same name."""
    command("ingest", voices, "--batch", "spring")
    file = voices.with_name("voices.csv.rejected.csv")
    text = file.read_text(encoding="utf-8").replace("chirp-v4", "sonic-v5").replace("loud", "0.5")
    file.write_text(text, encoding="utf-8")

    ended = command("ingest", file, "--batch", "spring", "--json")

    assert (ended.code, ended.json()["new"], ended.json()["rejected"]) == (1, 2, 8)
    assert {job.spec.name for job in queue.jobs(batch="spring")} == {"Ana", "Abe", "Last", None, "Cy", "Fe"}
    assert ended.json()["rejected_file"] == str(file)
    again = rejected(file)
    assert len(again) == 8
    assert list(again[0]) == ["row", "line", "reason", *HEADER.split(",")]
    assert sorted(voices.parent.iterdir()) == [voices, file]


def test_rejected_json_lines_can_be_corrected_and_ingested(
    command: Command, queue: VoiceQueue, working_folder: Path
) -> None:
    """Each is one cell, after its row, line and reason."""
    lines = [json.dumps({"audio_url": A}), '{"audio_url": ', json.dumps({"audio_url": B, "titel": "T", "prompt": "la"})]
    file = write(working_folder / "voices.jsonl", *lines)

    ended = command("ingest", file, "--batch", "spring", "--json")

    assert (ended.code, ended.json()["new"]) == (1, 1)
    bad = working_folder / "voices.jsonl.rejected.csv"
    assert [(row["row"], row["json"]) for row in rejected(bad)] == [("2", lines[1].strip()), ("3", lines[2])]
    assert "titel" in rejected(bad)[1]["reason"]
    bad.write_text(bad.read_text().replace('""titel""', '""title""'))
    assert command("ingest", bad, "--batch", "spring", "--json").json()["new"] == 1
    assert {job.spec.audio_url for job in queue.jobs()} == {A, B}


def test_bytes_that_are_not_utf8_are_preserved(command: Command, working_folder: Path) -> None:
    """In the file of rejected rows, so that they can be corrected. A named pipe cannot be checked as a whole."""
    pipe = working_folder / "voices.csv"
    os.mkfifo(pipe)
    content = b"audio_url,name\n" + A.encode() + b",Bj\xf6rn\n"
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()

    command("ingest", pipe, "--batch", "spring")

    writer.join()
    assert b",Bj\xf6rn" in (working_folder / "voices.csv.rejected.csv").read_bytes()


def test_a_conflict_late_in_a_long_file_names_its_own_line(
    command: Command, queue: VoiceQueue, working_folder: Path
) -> None:
    """Rows are written in chunks, and each rejection is of the right row."""
    queue.enqueue_many(numbered_voices(PORTION_JOBS_MAX * 3))
    bad = {7, PORTION_JOBS_MAX - 1, PORTION_JOBS_MAX, PORTION_JOBS_MAX * 2 + 3}
    rows = [f"https://recordings.example/{'other' if n in bad else n}.wav,key-{n}" for n in range(PORTION_JOBS_MAX * 3)]
    rows.insert(PORTION_JOBS_MAX + 9, "nowhere,key")
    file = write(working_folder / "voices.csv", "audio_url,key", *rows)

    command("ingest", file, "--batch", "spring")

    message = {int(row["line"]): row["key"] for row in rejected(working_folder / "voices.csv.rejected.csv")}
    assert len(message) == PORTION_JOBS_MAX * 3 + 1
    assert all(rows[line - 2].endswith(f",{key}") for line, key in message.items())


# ── files ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [f"audio_url,name\n{A},Ana\n{B},Bo\n", "".join(json.dumps({"audio_url": url}) + "\n" for url in (A, B))],
    ids=["CSV", "JSON Lines"],
)
def test_standard_input_is_read(command: Command, queue: VoiceQueue, text: str) -> None:
    """By the name `-`; the format is detected."""
    ended = command("ingest", "-", "--batch", "spring", "--yes", stdin=text.encode())

    assert (ended.code, ended.err) == (0, "")
    assert [job.spec.audio_url for job in queue.jobs(batch="spring")] == [A, B]


def test_rejected_rows_of_standard_input_have_a_file_too(command: Command, working_folder: Path) -> None:
    """In the working directory."""
    ended = command("ingest", "-", "--batch", "spring", "--json", stdin=f"audio_url\n{A}\nnowhere\n".encode())

    assert ended.code == 1
    assert ended.json()["rejected_file"] == "stdin.rejected.csv"
    assert rejected(working_folder / "stdin.rejected.csv")[0]["line"] == "3"


def test_a_named_pipe_is_read(command: Command, queue: VoiceQueue, working_folder: Path) -> None:
    """It has no size, and cannot be sought."""
    pipe = working_folder / "pipe.csv"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=(f"audio_url\n{A}\n",))
    writing.start()

    assert command("ingest", pipe, "--batch", "spring").code == 0
    writing.join()
    assert queue.batch("spring").total == 1


def test_a_file_without_rows_adds_nothing(command: Command, working_folder: Path) -> None:
    """A header alone is no error, and no file of rejected rows is written."""
    file = write(working_folder / "voices.csv", "audio_url")

    ended = command("ingest", file, "--batch", "spring", "--json")

    assert ended.code == 0
    output = ended.json()
    assert (output["new"], output["existing"], output["rejected"], output["rejected_file"]) == (0, 0, 0, None)
    assert list(working_folder.iterdir()) == [file]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["audio_url,promt", f"{A},la"], "unknown column 'promt'"),
        (["audio_url,name,name", f"{A},a,b"], "column 'name' occurs twice"),
        (["name", "Ana"], "no column is named audio_url"),
        ([], "empty"),
    ],
)
def test_an_unusable_file_is_rejected_as_a_whole(
    command: Command, redis: Redis, prefix: str, working_folder: Path, lines: list[str], message: str
) -> None:
    """Exit code 2 before any row: nothing is enqueued, and no file is written."""
    file = write(working_folder / "voices.csv", *lines)

    ended = command("ingest", file, "--batch", "spring")

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert dump_keys(redis, prefix) == {}
    assert list(working_folder.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuchfile.csv", "--batch", "b"], "nosuchfile.csv: there is no such file"),
        ([".", "--batch", "b"], "is a folder; name one file in it"),
        (["-", "--batch", "a b"], "batch: must be 1 to 100"),
        (["-"], "--batch"),
        ([], "FILE is required"),
    ],
)
def test_an_invalid_file_or_batch_is_an_error(command: Command, arguments: list[str], message: str) -> None:
    """Exit code 2, without a traceback."""
    ended = command("ingest", *arguments)

    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_the_error_of_a_folder_names_it_once(command: Command, working_folder: Path) -> None:
    """Nothing is written beside it."""
    folder = working_folder / "voices"
    folder.mkdir()

    assert command("ingest", "voices", "--batch", "b").err == "voices is a folder; name one file in it\n"
    assert list(working_folder.iterdir()) == [folder]


def test_rejected_rows_that_cannot_be_written_stop_the_ingestion(command: Command, working_folder: Path) -> None:
    """They are not lost: exit code 2, and the file that has them is named."""
    file = write(working_folder / "voices.csv", "audio_url", A, "nowhere")
    (working_folder / "voices.csv.rejected.csv").mkdir()

    ended = command("ingest", file, "--batch", "spring")

    assert ended.code == 2
    assert "voices.csv.rejected.csv cannot be written: Is a directory" in ended.err
    assert rejected(working_folder / "voices.csv.rejected.part.csv")[0]["audio_url"] == "nowhere"


def test_a_repeated_row_is_one_job(command: Command, working_folder: Path) -> None:
    """Also within one file."""
    file = write(working_folder / "voices.csv", "audio_url", A, A)

    summary = command("ingest", file, "--batch", "spring", "--json").json()

    assert (summary["new"], summary["existing"], summary["credits"]) == (1, 1, 4)


def test_an_export_of_rejected_rows_keeps_their_line_ends(command: Command, working_folder: Path) -> None:
    """Lyrics of several lines stay one cell."""
    file = write(working_folder / "voices.csv", "audio_url,prompt", 'nowhere,"[Verse]', "la", 'la"')

    command("ingest", file, "--batch", "spring")

    [row] = csv.DictReader(io.StringIO((working_folder / "voices.csv.rejected.csv").read_text()))
    assert row["prompt"] == "[Verse]\nla\nla"
