"""The command `ingest`: recording checks, dry runs, gzip."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.cli.test_cli_ingest_resume import kill_ingest
from tests.store.conftest import Command
from tests.store.life import dump_keys
from tests.support.recordings import mp3, redirect, response, serving, wav, xing
from tests.support.scripted import Request, ScriptedServer
from voicequeue import VoiceQueue
from voicequeue.storage.job_store import JobStore

# ── checks of recordings ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with recordings allowed from this machine."""
    settings = {
        "ALLOWED_HOSTS": "127.0.0.1",
        "SLOW_TIMEOUT_S": "0.3",
        "FIRST_BYTE_TIMEOUT_S": "0.5",
        "RETRY_DELAY_S": "0.01",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"VOICEQUEUE_AUDIO_{name}", value)
    return working_folder


FILES = {
    "/ana.wav": response(wav(12)),
    "/bo.mp3": response(xing(459, 459 * 417) + mp3(12)),
    "/page.mp3": response(b"<!doctype html><html>sign in</html>"),
    "/short.wav": response(wav(5)),
    "/cut.mp3": response((xing(459, 459 * 417) + mp3(12))[:90_000]),
    "/private.wav": redirect("http://192.168.0.1/ana.wav"),
}
#: By row: the path, and the reason if it is bad.
ROWS = [
    ("/ana.wav", ""),
    ("/page.mp3", "not MP3 or WAV: it is an HTML page"),
    ("/short.wav", "5.0 s long; more than 10 s are required"),
    ("/bo.mp3", ""),
    ("/cut.mp3", "truncated MP3"),
    ("/private.wav", "redirected: its host resolves to a private address"),
    ("/missing.wav", "HTTP 404"),
]


def table(server: ScriptedServer, folder: Path) -> Path:
    """Return a file of rows with these recordings, and one invalid row."""
    return write(folder / "voices.csv", "audio_url", *(f"{server.url}{path}" for path, _ in ROWS), "nowhere")


def test_bad_recordings_are_rejected_before_they_cost(
    command: Command, queue: VoiceQueue, store: JobStore, here: Path
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

        assert (first.json()["new"], again.json()["existing"]) == (20, 20)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_MB", "much"),
        ("SLOW_TIMEOUT_S", "-1"),
        ("TIMEOUT_S", "inf"),
        ("CONCURRENCY_PER_HOST", "1.5"),
        ("CONCURRENCY", "0"),
    ],
)
def test_the_error_of_an_invalid_setting_names_it(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Exit code 2."""
    monkeypatch.setenv(f"VOICEQUEUE_AUDIO_{name}", value)

    ended = command("ingest", write(here / "a.csv", "audio_url"), "--batch", "b", "--preflight")

    assert (ended.code, f"VOICEQUEUE_AUDIO_{name} must be" in ended.err) == (2, True)


@pytest.mark.endurance
def test_recordings_of_rows_that_are_done_are_not_fetched_again(
    command: Command, queue: VoiceQueue, here: Path
) -> None:
    """Only those of rows fetched but not written yet."""
    count, is_free = 250, threading.Event()

    def blocked(_: Request) -> Iterator[bytes]:
        is_free.wait(20)
        yield response(wav(12))

    files: dict[str, Any] = {f"/{n}.wav": response(wav(5 if n == 3 else 12)) for n in range(count)} | {
        "/150.wav": blocked
    }
    with serving(files) as server:
        file = write(here / "voices.csv", "audio_url", *(f"{server.url}{path}" for path in files))
        kill_ingest(file, "--preflight", after=100)
        is_free.set()
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--resume", "--json")
        fetched = Counter(request.path for request in server.requests)

    output = ended.json()
    assert (output["resumed_after"], output["new"], output["file"]["new"]) == (100, 150, 249)
    assert output["file"]["reasons"] == {"too_short": 1}
    assert {fetched[f"/{n}.wav"] for n in range(100)} == {1}
    assert queue.batch("spring").total == 249


def test_a_dry_run_can_check_the_recordings(command: Command, redis: Redis, prefix: str, here: Path) -> None:
    """Rejections are reported with their reasons; nothing is enqueued."""
    with serving(FILES) as server:
        file = table(server, here)
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--dry-run", "--json")

    assert (ended.code, ended.json()["new"], ended.json()["rejected"]) == (1, 2, 6)
    assert dump_keys(redis, prefix) == {}
    assert len(rejected(here / "voices.csv.dry-run.rejected.csv")) == 6


# ── packed files ──────────────────────────────────────────────────────────────────────────────────

PLAIN = b"audio_url\nhttps://a.example/1.wav\nhttps://a.example/2.wav\n"


@pytest.mark.parametrize("parts", [[PLAIN], [PLAIN[:20], PLAIN[20:]]], ids=["one part", "two parts"])
def test_gzip_is_detected_by_content(
    command: Command, queue: VoiceQueue, working_folder: Path, parts: list[bytes]
) -> None:
    """Under any file name, on standard input, and in several members."""
    packed = b"".join(map(gzip.compress, parts))
    (working_folder / "voices.csv").write_bytes(packed)

    assert command("ingest", "voices.csv", "--batch", "a").code == 0
    assert command("ingest", "-", "--batch", "b", stdin=packed).code == 0
    assert [queue.batch(name).total for name in "ab"] == [2, 2]


def test_a_damaged_gzip_is_an_error(command: Command, working_folder: Path) -> None:
    """Exit code 2."""
    ended = command("ingest", "-", "--batch", "spring", stdin=gzip.compress(PLAIN)[:-12])

    assert (ended.code, "compressed with gzip, and damaged or truncated" in ended.err) == (2, True)


def test_several_songs_in_a_row_are_a_job_each(command: Command, working_folder: Path) -> None:
    """In JSON Lines; the voice is paid for once."""
    row = {"audio_url": "https://a.example/1.wav", "songs": [{"prompt": "la"}, {"prompt": "lo"}]}
    file = write(working_folder / "voices.jsonl", json.dumps(row))

    output = command("ingest", file, "--batch", "spring", "--dry-run", "--json").json()

    assert (output["new"], output["credits"]) == (2, 4 + 2 * 15)
