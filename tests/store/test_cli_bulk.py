"""The command: files in bulk, with a look at their recordings, as a dry run, interrupted, packed."""

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


# ── a look at each recording ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def here(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, where recordings may come from this machine."""
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
    """A file of rows with these recordings, and one more that is no job."""
    return write(folder / "voices.csv", "audio_url", *(f"{server.url}{path}" for path, _ in ROWS), "nowhere")


def test_bad_recordings_are_rejected_before_they_cost(
    command: Command, queue: VoiceQueue, store: Store, here: Path
) -> None:
    """Each with its reason, beside rows that are wrong themselves; the good ones go on, in their order."""
    with serving(FILES) as server:
        file = table(server, here)
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--json")

    kinds = {"http_error", "wrong_format", "too_short", "truncated", "forbidden_address", "invalid_row"}
    assert (ended.code, ended.json()["new"], ended.json()["reasons"]) == (1, 2, dict.fromkeys(kinds, 1))
    assert [job.spec.audio_url for job in queue.jobs(batch="spring")] == [
        f"{server.url}/{a}" for a in ("ana.wav", "bo.mp3")
    ]
    told = {int(row["line"]): row["reason"] for row in rejected(here / "voices.csv.rejected.csv")}
    expected = {line: reason for line, (_, reason) in enumerate(ROWS, start=2) if reason} | {9: "audio_url: must be"}
    assert list(told) == list(expected)
    assert all(reason in told[line] for line, reason in expected.items())


def test_the_hash_of_a_recording_stands_beside_its_job(
    command: Command, queue: VoiceQueue, redis: Redis, prefix: str, here: Path
) -> None:
    """What shares a voice by content goes by it; a row that says another is rejected."""
    with serving(FILES) as server:
        file = write(
            here / "voices.csv", "audio_url,audio_sha256", f"{server.url}/ana.wav,", f"{server.url}/bo.mp3,{'0' * 64}"
        )
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--json")

    [job] = queue.jobs(batch="spring")
    assert len(redis.hget(f"{{{prefix}}}:job:{job.id}", "sha256") or "") == 64
    assert ended.json()["reasons"] == {"other_content": 1}


def test_recordings_of_known_jobs_are_not_fetched_again(command: Command, here: Path) -> None:
    """Nor one that stands in many rows."""
    with serving(FILES) as server:
        file = write(here / "voices.csv", "audio_url,name", *(f"{server.url}/ana.wav,{n}" for n in range(20)))
        first = command("ingest", file, "--batch", "spring", "--preflight", "--json")
        again = command("ingest", file, "--batch", "spring", "--preflight", "--json")

        assert (first.json()["new"], again.json()["known"]) == (20, 20)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("MAX_MB", "much"), ("SLOW_S", "-1"), ("WHOLE_S", "inf"), ("PER_HOST", "1.5"), ("AT_ONCE", "0")]
)
def test_a_bad_setting_names_itself(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Exit code 2."""
    monkeypatch.setenv(f"VOICEQUEUE_AUDIO_{name}", value)

    ended = command("ingest", write(here / "a.csv", "audio_url"), "--batch", "b", "--preflight")

    assert (ended.code, f"VOICEQUEUE_AUDIO_{name} must be" in ended.err) == (2, True)


# ── dry runs ──────────────────────────────────────────────────────────────────────────────────────

KNOWN = {"audio_url": "https://a.example/2.wav", "batch": "spring"}
HEADER = "audio_url,prompt,voice"
MIXED = ["https://a.example/1.wav,la,ana", "https://a.example/1.wav,lo,ana", f"{KNOWN['audio_url']},,", *["bad,,"] * 7]


def left(store: Store, credits: int) -> None:
    """Upstream says what is left."""
    store.controls.note_balance(credits, spent_before=store.credits(), asked=time.time(), now=time.time())


def test_a_dry_run_tells_and_changes_nothing(
    command: Command, queue: VoiceQueue, store: Store, redis: Redis, prefix: str, at_home: Path
) -> None:
    """New, known, rejected with the first reasons, and the cost, in which a shared voice counts once."""
    file = write(at_home / "voices.csv", HEADER, *MIXED)
    queue.enqueue(parse(KNOWN).with_row_key())
    left(store, 34)
    stale = write(at_home / "voices.csv.rejected.csv", "of an earlier run")
    before = dump(redis, prefix)

    ended = command("ingest", file, "--batch", "spring", "--dry-run", "--max-credits", "5", "--json")

    told = ended.json()
    assert ended.code == 1
    assert (told["new"], told["known"], told["rejected"], told["reasons"]) == (2, 1, 7, {"invalid_row": 7})
    assert [each["line"] for each in told["problems"]] == [5, 6, 7, 8, 9]
    assert (told["credits"], told["credits_left"], told["suffices"], told["unsettled"]) == (19 + 15, 34, True, 1)
    assert dump(redis, prefix) == before
    assert (stale.read_text(), sorted(at_home.iterdir())) == ("of an earlier run\n", [file, stale])


def test_a_dry_run_says_whether_credits_suffice_and_how_long_it_takes(
    command: Command, queue: VoiceQueue, store: Store, at_home: Path
) -> None:
    """By what is left above the floor, and by what succeeded of late; or that nobody knows."""
    file = write(at_home / "voices.csv", HEADER, *MIXED)
    unknown = command("ingest", file, "--batch", "spring", "--dry-run").out
    assert "the balance is not known yet" in unknown
    assert "no job has succeeded in the last minutes" in unknown

    queue.set_limits(credit_floor=10)
    for spec in numbered(5):
        brought_to(store, State.SUCCEEDED, spec, time.time())
    left(store, 20)
    told = command("ingest", file, "--batch", "spring", "--dry-run").out

    assert "the new jobs cost 38; the balance was 20" in told
    assert "of which 10 are the minimum: 28 too few" in told
    assert "about 3 min at the present pace of 1.0 a minute" in told
    assert "line 5: audio_url: must be an http" in told


def test_a_dry_run_can_look_at_the_recordings(command: Command, redis: Redis, prefix: str, here: Path) -> None:
    """What would be rejected for them is told as well, and still nothing is written."""
    with serving(FILES) as server:
        file = table(server, here)
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--dry-run", "--json")

    assert (ended.code, ended.json()["new"], ended.json()["rejected"]) == (1, 2, 6)
    assert dump(redis, prefix) == {}
    assert list(here.iterdir()) == [file]


def test_a_dry_run_of_the_rest_is_refused(command: Command, at_home: Path) -> None:
    """Exit code 2."""
    assert command("ingest", "-", "--batch", "spring", "--dry-run", "--resume").code == 2


# ── going on after an interruption ────────────────────────────────────────────────────────────────

MANY = 20_000


def killed(file: Path, *options: str, after: int) -> None:
    """Ingest the file, and kill the process as soon as so many lines are done."""
    kept = file.with_name(f"{file.name}.progress.json")
    command = [VOICEQUEUE, "ingest", str(file), "--batch", "spring", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: kept.exists() and json.loads(kept.read_text())["lines"] >= after)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_who_interrupts_it_is_told_how_to_go_on(at_home: Path) -> None:
    """Ctrl-C ends it at once."""
    file = write(at_home / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(8_000)))
    command = [VOICEQUEUE, "ingest", str(file), "--batch", "spring"]

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(Progress.path(file).exists)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)

    assert process.returncode not in (0, -signal.SIGINT)
    assert "run the same command with --resume" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("packed", "count"), [(False, MANY), (True, 4_000)], ids=["plain", "gzip"])
def test_a_killed_ingestion_goes_on_and_each_row_is_taken_once(
    command: Command, queue: VoiceQueue, at_home: Path, packed: bool, count: int
) -> None:
    """Also those that are rejected; what was done is not read again; nothing is left beside the file."""
    urls = ["nowhere" if number % 100 == 7 else f"https://a.example/{number}.wav" for number in range(count)]
    file = write(at_home / "voices.csv", "audio_url,prompt", *(f'{url},"la\nla"' for url in urls))
    if packed:
        file.write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))

    killed(file, after=2 * count // 10)
    killed(file, "--resume", after=12 * count // 10)  # two lines a row
    ended = command("ingest", file, "--batch", "spring", "--resume", "--json")

    told = ended.json()
    assert told["resumed_after"] >= 12 * count // 10
    assert (told["new"] + told["known"], told["rejected"]) == (count * 0.99, count * 0.01)
    assert queue.batch("spring").total == count * 0.99
    lines = [int(row["line"]) for row in rejected(at_home / "voices.csv.rejected.csv")]
    assert lines == [2 + 2 * number for number in range(7, count, 100)]
    assert len(list(at_home.iterdir())) == 2


def test_recordings_of_rows_that_are_done_are_not_fetched_again(
    command: Command, queue: VoiceQueue, here: Path
) -> None:
    """Only those that had come and were not written yet."""
    count, is_free = 250, threading.Event()

    def held(_: Request) -> Iterator[bytes]:
        is_free.wait(20)
        yield sent(wav(12))

    files: dict[str, Any] = {f"/{n}.wav": sent(wav(5 if n == 3 else 12)) for n in range(count)} | {"/150.wav": held}
    with serving(files) as server:
        file = write(here / "voices.csv", "audio_url", *(f"{server.url}{path}" for path in files))
        killed(file, "--preflight", after=100)
        is_free.set()
        ended = command("ingest", file, "--batch", "spring", "--preflight", "--resume", "--json")
        asked = Counter(request.path for request in server.requests)

    assert (ended.json()["resumed_after"], ended.json()["new"], ended.json()["reasons"]) == (100, 249, {"too_short": 1})
    assert {asked[f"/{n}.wav"] for n in range(100)} == {1}
    assert queue.batch("spring").total == 249


@pytest.fixture
def halfway(at_home: Path, queue: VoiceQueue) -> Path:
    """A file whose first 600 rows were ingested."""
    file = write(at_home / "voices.csv", "audio_url", *(f"https://a.example/{n}.wav" for n in range(600)), "bad", "bad")
    [*rows] = (row.job("spring") for row, _ in zip(Rows(io.BytesIO(file.read_bytes())), range(600), strict=False))
    queue.enqueue_many(rows)
    progress = Progress.of(file, "spring")
    progress.lines, progress.last_job, progress.counts.new = 600, rows[-1].id(), 600
    progress.write(file)
    return file


def test_the_counts_are_those_of_the_whole_file(command: Command, halfway: Path) -> None:
    """Not only of the rest."""
    ended = command("ingest", halfway, "--batch", "spring", "--resume")

    assert (ended.code, "600 new, 0 known already, 2 rejected" in ended.out) == (1, True)
    assert "2  invalid row" in ended.out


def test_without_the_option_it_begins_anew(command: Command, halfway: Path) -> None:
    """Which adds nothing either."""
    told = command("ingest", halfway, "--batch", "spring", "--json").json()

    assert (told["known"], told["rejected"], told["resumed_after"]) == (600, 2, None)
    assert not Progress.path(halfway).exists()


def test_there_may_be_nothing_to_go_on_with(command: Command, at_home: Path) -> None:
    """Then it begins at the beginning: scripts may always say so."""
    file = write(at_home / "voices.csv", "audio_url", "https://a.example/1.wav")

    told = command("ingest", file, "--batch", "spring", "--resume", "--json").json()

    assert (told["new"], told["resumed_after"]) == (1, None)


def spoil(how: str, file: Path, queue: VoiceQueue) -> None:
    """Make what is kept wrong."""
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
    ("how", "told"),
    [
        ("changed", "has changed since; ingest it without --resume"),
        ("unreadable", "voices.csv.progress.json cannot be read; ingest it without --resume"),
        ("rejected rows gone", "voices.csv.rejected.csv: No such file or directory; ingest without --resume"),
        ("another queue", "this queue does not hold the jobs that"),
    ],
)
def test_it_goes_on_only_with_what_it_can_trust(
    command: Command, queue: VoiceQueue, halfway: Path, how: str, told: str
) -> None:
    """Exit code 2; no row is passed over that was not ingested."""
    spoil(how, halfway, queue)

    ended = command("ingest", halfway, "--batch", "spring", "--resume")

    assert (ended.code, told in ended.err) == (2, True), ended.err
    assert queue.batch("spring").total == 600


def test_another_batch_is_another_matter(command: Command, halfway: Path) -> None:
    """Rows are passed over only for the batch that they are in."""
    ended = command("ingest", halfway, "--batch", "autumn", "--resume")

    assert (ended.code, "is about the batch spring, not autumn" in ended.err) == (2, True)


def test_standard_input_cannot_be_taken_up(command: Command, at_home: Path) -> None:
    """Nobody knows what it held."""
    ended = command("ingest", "-", "--batch", "spring", "--resume", stdin=b"audio_url\n")

    assert (ended.code, "--resume needs a file" in ended.err) == (2, True)


def test_rejected_rows_of_an_earlier_run_are_not_mistaken_for_this_ones(command: Command, at_home: Path) -> None:
    """They are gone as soon as a run writes its first rows."""
    file = write(at_home / "voices.csv", "audio_url", "https://a.example/1.wav")
    stale = write(at_home / "voices.csv.rejected.csv", "line,reason,audio_url", "2,nonsense,x")

    assert command("ingest", file, "--batch", "spring").code == 0
    assert not stale.exists()


# ── packed files ──────────────────────────────────────────────────────────────────────────────────

PLAIN = b"audio_url\nhttps://a.example/1.wav\nhttps://a.example/2.wav\n"


@pytest.mark.parametrize("parts", [[PLAIN], [PLAIN[:20], PLAIN[20:]]], ids=["one part", "two parts"])
def test_gzip_is_found_by_content(command: Command, queue: VoiceQueue, at_home: Path, parts: list[bytes]) -> None:
    """Whatever the file's name, also on standard input, also in several parts."""
    packed = b"".join(map(gzip.compress, parts))
    (at_home / "voices.csv").write_bytes(packed)

    assert command("ingest", "voices.csv", "--batch", "a").code == 0
    assert command("ingest", "-", "--batch", "b", stdin=packed).code == 0
    assert [queue.batch(name).total for name in "ab"] == [2, 2]


def test_a_damaged_gzip_is_told(command: Command, at_home: Path) -> None:
    """Exit code 2."""
    ended = command("ingest", "-", "--batch", "spring", stdin=gzip.compress(PLAIN)[:-12])

    assert (ended.code, "packed with gzip, and damaged or cut" in ended.err) == (2, True)


def test_several_songs_in_a_row_are_a_job_each(command: Command, at_home: Path) -> None:
    """In JSON Lines; the voice is paid once."""
    row = {"audio_url": "https://a.example/1.wav", "songs": [{"prompt": "la"}, {"prompt": "lo"}]}
    file = write(at_home / "voices.jsonl", json.dumps(row))

    told = command("ingest", file, "--batch", "spring", "--dry-run", "--json").json()

    assert (told["new"], told["credits"]) == (2, 4 + 2 * 15)
