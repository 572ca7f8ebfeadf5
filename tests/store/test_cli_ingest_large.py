"""The command `ingest` for large files: recording checks, dry runs, resuming, gzip."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.conftest import eventually
from tests.store.conftest import Command
from tests.store.life import brought_to, dump
from tests.store.test_cli_ingest import rejected, write
from tests.support.jobs import numbered
from tests.support.recordings import mp3, redirect, sent, serving, wav, xing
from tests.support.scripted import Request, Scripted
from voicequeue import State, VoiceQueue
from voicequeue.domain.spec import parse
from voicequeue.ingest.checkpoint import Progress
from voicequeue.ingest.row_reader import Rows
from voicequeue.storage.job_store import Store

VOICEQUEUE = str(Path(sys.executable).with_name("voicequeue"))


# ── checks of recordings ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with recordings allowed from this machine."""
    settings = {"ALLOW": "127.0.0.1", "SLOW_S": "0.3", "ANSWER_S": "0.5", "AGAIN_S": "0.01"}
    for name, value in settings.items():
        monkeypatch.setenv(f"VOICEQUEUE_AUDIO_{name}", value)
    return at_home


FILES = {
    "/ana.wav": sent(wav(12)),
    "/bo.mp3": sent(xing(459, 459 * 417) + mp3(12)),
    "/page.mp3": sent(b"<!doctype html><html>sign in</html>"),
    "/short.wav": sent(wav(5)),
    "/cut.mp3": sent((xing(459, 459 * 417) + mp3(12))[:90_000]),
    "/private.wav": redirect("http://192.168.0.1/ana.wav"),
}
#: By row: the path, and the reason if it is bad.
ROWS = [
    ("/ana.wav", ""),
    ("/page.mp3", "not MP3 or WAV: it is an HTML page"),
    ("/short.wav", "5.0 s long; more than 10 s are needed"),
    ("/bo.mp3", ""),
    ("/cut.mp3", "truncated MP3"),
    ("/private.wav", "redirected: its host leads to a private address"),
    ("/missing.wav", "HTTP 404"),
]


def table(server: Scripted, folder: Path) -> Path:
    """Return a file of rows with these recordings, and one invalid row."""
    return write(folder / "voices.csv", "audio_url", *(f"{server.url}{path}" for path, _ in ROWS), "nowhere")


def test_bad_recordings_are_rejected_before_they_cost(
    command: Command, queue: VoiceQueue, store: Store, here: Path
) -> None:
    """Each with its reason, beside invalid rows; the good rows are enqueued in order."""
    with serving(FILES) as server:
        file = table(server, here)
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--json")

    kinds = {"http_error", "wrong_format", "too_short", "truncated", "forbidden_address", "invalid_row"}
    assert (ended.code, ended.json()["new"], ended.json()["reasons"]) == (1, 2, dict.fromkeys(kinds, 1))
    assert [job.spec.audio_url for job in queue.jobs(batch="spring")] == [
        f"{server.url}/{a}" for a in ("ana.wav", "bo.mp3")
    ]
    output = {int(row["line"]): row["reason"] for row in rejected(here / "voices.csv.rejected.csv")}
    expected = {line: reason for line, (_, reason) in enumerate(ROWS, start=2) if reason} | {9: "audio_url: must be"}
    assert list(output) == list(expected)
    assert all(reason in output[line] for line, reason in expected.items())


def test_the_hash_of_a_recording_is_stored_with_its_job(
    command: Command, queue: VoiceQueue, redis: Redis, prefix: str, here: Path
) -> None:
    """Jobs share voices by it; a row with another hash is rejected."""
    with serving(FILES) as server:
        file = write(
            here / "voices.csv", "audio_url,audio_sha256", f"{server.url}/ana.wav,", f"{server.url}/bo.mp3,{'0' * 64}"
        )
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--json")

    [job] = queue.jobs(batch="spring")
    assert len(redis.hget(f"{{{prefix}}}:job:{job.id}", "sha256") or "") == 64
    assert ended.json()["reasons"] == {"other_content": 1}


def test_recordings_of_known_jobs_are_not_fetched_again(command: Command, here: Path) -> None:
    """Nor is a recording that occurs in many rows."""
    with serving(FILES) as server:
        file = write(here / "voices.csv", "audio_url,name", *(f"{server.url}/ana.wav,{n}" for n in range(20)))
        first = command("ingest", file, "--batch", "spring", "--preflight", "--json")
        again = command("ingest", file, "--batch", "spring", "--preflight", "--json")

        assert (first.json()["new"], again.json()["known"]) == (20, 20)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_MB", "much"), ("SLOW_S", "-1"), ("WHOLE_S", "inf"), ("PER_HOST", "1.5"), ("AT_ONCE", "0")]
)
def test_the_error_of_an_invalid_setting_names_it(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Exit code 2."""
    monkeypatch.setenv(f"VOICEQUEUE_AUDIO_{name}", value)

    ended = command("ingest", write(here / "a.csv", "audio_url"), "--batch", "b", "--preflight")

    assert (ended.code, f"VOICEQUEUE_AUDIO_{name} must be" in ended.err) == (2, True)


# ── dry runs ──────────────────────────────────────────────────────────────────────────────────────

EXISTING = {"audio_url": "https://a.example/2.wav", "batch": "spring"}
HEADER = "audio_url,prompt,voice"
MIXED = [
    "https://a.example/1.wav,la,ana",
    "https://a.example/1.wav,lo,ana",
    f"{EXISTING['audio_url']},,",
    *["bad,,"] * 7,
]


def set_balance(store: Store, credits: int) -> None:
    """Set the balance that upstream reports."""
    store.controls.note_balance(credits, spent_before=store.credits(), asked=time.time(), now=time.time())


def test_a_dry_run_reports_and_changes_nothing(
    command: Command, queue: VoiceQueue, store: Store, redis: Redis, prefix: str, at_home: Path
) -> None:
    """New, known and rejected jobs, the first reasons, and the cost, in which a shared voice counts once."""
    file = write(at_home / "voices.csv", HEADER, *MIXED)
    queue.enqueue(parse(EXISTING).with_row_key())
    set_balance(store, 34)
    stale = write(at_home / "voices.csv.rejected.csv", "of an earlier run")
    before = dump(redis, prefix)

    ended = command("ingest", file, "--batch", "spring", "--dry-run", "--max-credits", "5", "--json")

    output = ended.json()
    assert ended.code == 1
    assert (output["new"], output["known"], output["rejected"], output["reasons"]) == (2, 1, 7, {"invalid_row": 7})
    assert [problem["line"] for problem in output["problems"]] == [5, 6, 7, 8, 9]
    assert (output["credits"], output["credits_left"], output["suffices"], output["unsettled"]) == (
        19 + 15,
        34,
        True,
        1,
    )
    assert dump(redis, prefix) == before
    assert (stale.read_text(), sorted(at_home.iterdir())) == ("of an earlier run\n", [file, stale])


def test_a_dry_run_says_whether_credits_suffice_and_how_long_it_takes(
    command: Command, queue: VoiceQueue, store: Store, at_home: Path
) -> None:
    """By the balance above the minimum and the present pace; or that these are not known."""
    file = write(at_home / "voices.csv", HEADER, *MIXED)
    output_before = command("ingest", file, "--batch", "spring", "--dry-run").out
    assert "the balance is not known yet" in output_before
    assert "no job has succeeded in the last minutes" in output_before

    queue.set_limits(credit_floor=10)
    for spec in numbered(5):
        brought_to(store, State.SUCCEEDED, spec, time.time())
    set_balance(store, 20)
    output = command("ingest", file, "--batch", "spring", "--dry-run").out

    assert "the new jobs cost 38; the balance was 20" in output
    assert "of which 10 are the minimum: 28 too few" in output
    assert "about 3 min at the present pace of 1.0 a minute" in output
    assert "line 5: audio_url: must be an http" in output


def test_a_dry_run_can_check_the_recordings(command: Command, redis: Redis, prefix: str, here: Path) -> None:
    """Rejections are reported, and nothing is written."""
    with serving(FILES) as server:
        file = table(server, here)
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--dry-run", "--json")

    assert (ended.code, ended.json()["new"], ended.json()["rejected"]) == (1, 2, 6)
    assert dump(redis, prefix) == {}
    assert list(here.iterdir()) == [file]


def test_a_dry_run_cannot_resume(command: Command, at_home: Path) -> None:
    """Exit code 2."""
    assert command("ingest", "-", "--batch", "spring", "--dry-run", "--resume").code == 2


# ── resuming after an interruption ────────────────────────────────────────────────────────────────

MANY = 20_000


def kill_ingest(file: Path, *options: str, after: int) -> None:
    """Ingest the file, and kill the process once that many lines are done."""
    kept = file.with_name(f"{file.name}.progress.json")
    command = [VOICEQUEUE, "ingest", str(file), "--batch", "spring", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: kept.exists() and json.loads(kept.read_text())["lines"] >= after)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_an_interrupted_run_says_how_to_resume(at_home: Path) -> None:
    """Ctrl-C ends it at once."""
    file = write(at_home / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(8_000)))
    command = [VOICEQUEUE, "ingest", str(file), "--batch", "spring"]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(Progress.path(file).exists)
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=20)

    assert process.returncode not in (0, -signal.SIGINT)
    assert "run the same command with --resume" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("packed", "count"), [(False, MANY), (True, 4_000)], ids=["plain", "gzip"])
def test_a_killed_run_resumes_and_takes_each_row_once(
    command: Command, queue: VoiceQueue, at_home: Path, packed: bool, count: int
) -> None:
    """Rejected rows too; finished rows are not read again, and no file is left over."""
    urls = ["nowhere" if number % 100 == 7 else f"https://a.example/{number}.wav" for number in range(count)]
    file = write(at_home / "voices.csv", "audio_url,prompt", *(f'{url},"la\nla"' for url in urls))
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))

    kill_ingest(file, after=2 * count // 10)
    kill_ingest(file, "--resume", after=12 * count // 10)  # two lines a row
    ended = command("ingest", file, "--batch", "spring", "--resume", "--json")

    output = ended.json()
    assert output["resumed_after"] >= 12 * count // 10
    assert (output["new"] + output["known"], output["rejected"]) == (count * 0.99, count * 0.01)
    assert queue.batch("spring").total == count * 0.99
    lines = [int(row["line"]) for row in rejected(at_home / "voices.csv.rejected.csv")]
    assert lines == [2 + 2 * number for number in range(7, count, 100)]
    assert len(list(at_home.iterdir())) == 2


def test_recordings_of_rows_that_are_done_are_not_fetched_again(
    command: Command, queue: VoiceQueue, here: Path
) -> None:
    """Only those of rows fetched but not written yet."""
    count, is_free = 250, threading.Event()

    def blocked(_: Request) -> Iterator[bytes]:
        is_free.wait(20)
        yield sent(wav(12))

    files: dict[str, Any] = {f"/{n}.wav": sent(wav(5 if n == 3 else 12)) for n in range(count)} | {"/150.wav": blocked}
    with serving(files) as server:
        file = write(here / "voices.csv", "audio_url", *(f"{server.url}{path}" for path in files))
        kill_ingest(file, "--preflight", after=100)
        is_free.set()
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--resume", "--json")
        fetched = Counter(request.path for request in server.requests)

    assert (ended.json()["resumed_after"], ended.json()["new"], ended.json()["reasons"]) == (100, 249, {"too_short": 1})
    assert {fetched[f"/{n}.wav"] for n in range(100)} == {1}
    assert queue.batch("spring").total == 249


@pytest.fixture
def halfway(at_home: Path, queue: VoiceQueue) -> Path:
    """Return a file whose first 600 rows were ingested."""
    file = write(at_home / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(600)), "bad", "bad")
    [*rows] = (row.job("spring") for row, _ in zip(Rows(io.BytesIO(file.read_bytes())), range(600), strict=False))
    queue.enqueue_many(rows)
    progress = Progress.of(file, "spring")
    progress.lines, progress.last_job, progress.counts.new = 600, rows[-1].id(), 600
    progress.write(file)
    return file


def test_the_counts_are_those_of_the_whole_file(command: Command, halfway: Path) -> None:
    """Not only of the resumed part."""
    ended = command("ingest", halfway, "--batch", "spring", "--resume")

    assert (ended.code, "600 new, 0 known already, 2 rejected" in ended.out) == (1, True)
    assert "2  invalid row" in ended.out


def test_without_resume_it_starts_at_the_first_row(command: Command, halfway: Path) -> None:
    """Which adds no job twice."""
    output = command("ingest", halfway, "--batch", "spring", "--json").json()

    assert (output["known"], output["rejected"], output["resumed_after"]) == (600, 2, None)
    assert not Progress.path(halfway).exists()


def test_resume_without_progress_starts_at_the_first_row(command: Command, at_home: Path) -> None:
    """So scripts can always pass --resume."""
    file = write(at_home / "voices.csv", "audio_url", "https://a.example/1.wav")

    output = command("ingest", file, "--batch", "spring", "--resume", "--json").json()

    assert (output["new"], output["resumed_after"]) == (1, None)


def spoil(how: str, file: Path, queue: VoiceQueue) -> None:
    """Make the saved progress unusable."""
    kept = Progress.path(file)
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
        ("rejected rows gone", "voices.csv.rejected.csv: No such file or directory; ingest without --resume"),
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

    assert (ended.code, "is about the batch spring, not autumn" in ended.err) == (2, True)


def test_standard_input_cannot_be_resumed(command: Command, at_home: Path) -> None:
    """It cannot be read a second time."""
    ended = command("ingest", "-", "--batch", "spring", "--resume", stdin=b"audio_url\n")

    assert (ended.code, "--resume needs a file" in ended.err) == (2, True)


def test_rejected_rows_of_an_earlier_run_are_not_mistaken_for_this_ones(command: Command, at_home: Path) -> None:
    """They are deleted when a run writes its first rows."""
    file = write(at_home / "voices.csv", "audio_url", "https://a.example/1.wav")
    stale = write(at_home / "voices.csv.rejected.csv", "line,reason,audio_url", "2,nonsense,x")

    assert command("ingest", file, "--batch", "spring").code == 0
    assert not stale.exists()


# ── packed files ──────────────────────────────────────────────────────────────────────────────────

PLAIN = b"audio_url\nhttps://a.example/1.wav\nhttps://a.example/2.wav\n"


@pytest.mark.parametrize("parts", [[PLAIN], [PLAIN[:20], PLAIN[20:]]], ids=["one part", "two parts"])
def test_gzip_is_detected_by_content(command: Command, queue: VoiceQueue, at_home: Path, parts: list[bytes]) -> None:
    """Under any file name, on standard input, and in several members."""
    packed = b"".join(map(gzip.compress, parts))
    (at_home / "voices.csv").write_bytes(packed)

    assert command("ingest", "voices.csv", "--batch", "a").code == 0
    assert command("ingest", "-", "--batch", "b", stdin=packed).code == 0
    assert [queue.batch(name).total for name in "ab"] == [2, 2]


def test_a_damaged_gzip_is_an_error(command: Command, at_home: Path) -> None:
    """Exit code 2."""
    ended = command("ingest", "-", "--batch", "spring", stdin=gzip.compress(PLAIN)[:-12])

    assert (ended.code, "packed with gzip, and damaged or cut" in ended.err) == (2, True)


def test_several_songs_in_a_row_are_a_job_each(command: Command, at_home: Path) -> None:
    """In JSON Lines; the voice is paid for once."""
    row = {"audio_url": "https://a.example/1.wav", "songs": [{"prompt": "la"}, {"prompt": "lo"}]}
    file = write(at_home / "voices.jsonl", json.dumps(row))

    output = command("ingest", file, "--batch", "spring", "--dry-run", "--json").json()

    assert (output["new"], output["credits"]) == (2, 4 + 2 * 15)
