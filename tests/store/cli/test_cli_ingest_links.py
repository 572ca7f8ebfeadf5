"""The command `ingest` and URLs that cannot be right: nothing is enqueued, requested or paid for them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.store.cli.test_cli_ingest import rejected, write
from tests.store.conftest import Command
from voicequeue import VoiceQueue
from voicequeue.cli.ingest import link_check
from voicequeue.ingest.links import LinkChecker
from voicequeue.net.address_policy import AddressPolicy

GOOD = "https://recordings.example/ana.wav"
PAGE = "https://www.dropbox.com/s/abc/ana.mp3?dl=0"
SIGNED = "https://bucket.shop.com/ana.wav?Expires=1800000000&Signature=0"


@pytest.fixture
def file(working_folder: Path) -> Path:
    """Return a file with a good row, rows that are rejected, and doubtful ones."""
    rows = [
        GOOD,
        PAGE,
        "http://nas.local/a.wav",
        "C:\\ana.wav",
        "https://cdn.shop.com/a.m4a",
        "https://example.com/a.wav",
    ]
    return write(working_folder / "voices.csv", "audio_url,name", *(f"{url},{n}" for n, url in enumerate(rows)))


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_rows_with_unusable_links_are_rejected_and_counted_by_kind(
    command: Command, queue: VoiceQueue, file: Path, options: list[str]
) -> None:
    """A dry run counts what a real run rejects; doubtful rows are enqueued."""
    ended = command("ingest", file, "--batch", "spring", "--json", *options)

    counts = ended.json()
    assert ended.code == 1
    assert (counts["new"], counts["rejected"]) == (3, 3)
    assert counts["reasons"] == {"share_link": 1, "private_host": 1, "invalid_row": 1}
    assert len(list(queue.jobs())) == (0 if options else 3)


def test_the_file_of_rejected_rows_says_the_cure(command: Command, file: Path) -> None:
    """In words, without the link."""
    command("ingest", file, "--batch", "spring")

    reasons = [row["reason"] for row in rejected(file.with_name("voices.csv.rejected.csv"))]
    assert [reason.partition(":")[0] for reason in reasons] == ["audio_url"] * 3
    assert "write dl=1 in place of dl=0" in reasons[0]
    assert "VOICEQUEUE_AUDIO_ALLOWED_HOSTS" in reasons[1]
    assert "not a path on a computer" in reasons[2]


def test_an_allowed_host_is_ingested(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting is that of the preflight."""
    monkeypatch.setenv("VOICEQUEUE_AUDIO_ALLOWED_HOSTS", "nas.local")

    counts = command("ingest", file, "--batch", "spring", "--json").json()
    assert counts["reasons"] == {"share_link": 1, "invalid_row": 1}


def test_a_job_whose_link_has_expired_since_still_exists(
    command: Command, working_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingesting a file again rejects no row whose job is in the queue, also among rows that are rejected."""
    clock = [1_700_000_000.0]
    checker = LinkChecker(AddressPolicy.parse("", setting="S"), lambda: clock[0])
    monkeypatch.setattr(link_check, "_checker", lambda: checker)
    signed = write(working_folder / "voices.csv", "audio_url", SIGNED)
    command("ingest", signed, "--batch", "spring")
    clock[0] = 1_900_000_000.0
    both = write(working_folder / "voices.csv", "audio_url,name", f"{SIGNED},new", f"{SIGNED},", f"{GOOD},", f"{PAGE},")

    for options in ([], ["--dry-run"]):
        counts = command("ingest", both, "--batch", "spring", "--json", *options).json()
        assert (counts["existing"], counts["rejected"]) == ((1, 2) if not options else (2, 2))
        assert counts["reasons"] == {"expired_link": 1, "share_link": 1}


def test_the_results_of_doubtful_rows_are_those_of_good_rows(command: Command, queue: VoiceQueue, file: Path) -> None:
    """A warning is no part of the job."""
    command("ingest", file, "--batch", "spring")

    with file.open(encoding="utf-8", newline="") as rows:
        names = [row["name"] for row in csv.DictReader(rows) if ".m4a" in row["audio_url"]]
    assert [job.spec.name for job in queue.jobs() if job.spec.audio_url == "https://cdn.shop.com/a.m4a"] == names
