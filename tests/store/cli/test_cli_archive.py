"""The command `archive` lists and retries; other commands show archived files."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import CLIPS, NOW, brought_to, song_of
from voicequeue import ArchivedFile, InArchive, Job, State, VoiceQueue
from voicequeue.domain.job import Part, iso
from voicequeue.storage.job_store import Store

AUDIO = ArchivedFile("s3://songs/b/j/c-1.mp3", 1_234_567, "a" * 64)
COVER = ArchivedFile("s3://songs/b/j/c-1.png", 1_000, "b" * 64)
LATER = NOW + 60


@pytest.fixture
def archiving(redis: Redis, prefix: str) -> Store:
    """Return a store that schedules songs for archiving."""
    return Store(redis, prefix, archives=True)


def archived(store: Store, **fields: Any) -> Job:
    """Create a job whose files are archived."""
    job = song_of(store, **fields)
    claim = store.archive.claim(job.id, "h", LATER, lease=60)
    assert claim
    store.archive.kept(claim, "c-1", Part.AUDIO, AUDIO, LATER, lease=60)
    store.archive.kept(claim, "c-1", Part.IMAGE, COVER, LATER, lease=60)
    store.archive.done(claim, LATER)
    return job


def not_archived(store: Store, **fields: Any) -> Job:
    """Create a job that failed to be archived."""
    job = song_of(store, **fields)
    claim = store.archive.claim(job.id, "h", LATER, lease=60)
    assert claim
    store.archive.give_up(claim, LATER, "audio of the song c-1: HTTP 404 [red]")
    return job


def test_the_command_lists_pending_and_failed_jobs(command: Command, archiving: Store) -> None:
    """With the reasons, and the numbers of archived jobs and files."""
    pending, failed = song_of(archiving, key="p", batch="b"), not_archived(archiving, key="f")
    archived(archiving, key="d")

    shown = command("archive")
    listed = command("archive", "--json").json()

    assert shown.code == 0
    assert pending.id in shown.out
    assert "HTTP 404 [red]" in shown.out
    assert "1 pending, 1 failed, 1 archived in 2 files" in shown.out
    assert "none alive" in shown.out
    assert listed["counts"] == {"pending": 1, "failed": 1, "jobs": 1, "files": 2, "workers": 0}
    assert listed["pending"] == [
        {
            "job": pending.id,
            "batch": "b",
            "since": iso(LATER),
            "tries": 0,
            "reason": None,
            "due": iso(LATER),
            "failed_at": None,
        }
    ]
    assert [(entry["job"], entry["failed_at"]) for entry in listed["failed"]] == [(failed.id, iso(LATER))]
    assert command("archive", "--batch", "b", "--json").json()["failed"] == []


def test_failed_jobs_can_be_retried(command: Command, archiving: Store) -> None:
    """All of them, those of a batch, or one job."""
    a, b, c = (not_archived(archiving, key=key, batch=key) for key in "abc")

    assert command("archive", "--retry", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--retry", "--job", b.id, "--json").json() == {"jobs": 1}
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id}
    assert "1 jobs scheduled for archiving" in command("archive", "--retry").out
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id, c.id}
    assert command("archive", "--retry", "--job", "unknown").code == 1


def test_songs_created_before_archiving_was_enabled_can_be_archived(
    command: Command, store: Store, archiving: Store
) -> None:
    """Those of one batch or of all, each once."""
    song_of(store, key="a", batch="a")
    song_of(store, key="b", batch="b")
    brought_to(store, State.FAILED)
    archived(archiving, key="c")

    assert command("archive", "--missing", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--missing", "--json").json() == {"jobs": 1}
    assert command("archive", "--missing", "--json").json() == {"jobs": 0}
    assert command("archive", "--missing", "--batch", "unknown").code == 2


@pytest.mark.parametrize("options", [["--retry", "--missing"], ["--job", "x"]])
def test_options_that_exclude_each_other_are_rejected(command: Command, options: list[str]) -> None:
    """With the exit code of wrong usage."""
    assert command("archive", *options).code == 2


def test_a_job_shows_both_links(command: Command, archiving: Store, queue: VoiceQueue) -> None:
    """Upstream's link, and the archived file with its size and hash."""
    job = archived(archiving)

    shown, listed = command("job", job.id).out, command("job", job.id, "--json").json()

    assert str(CLIPS[0].audio_url) in shown
    assert "s3://songs/b/j/c-1.mp3  1,234,567 bytes" in shown
    assert (listed["archive"], listed["clips"][0]["audio_url"]) == ("done", CLIPS[0].audio_url)
    assert listed["clips"][0]["archived_audio"] == {"url": AUDIO.url, "size": 1_234_567, "sha256": "a" * 64}
    assert queue.get(job.id).clips[0].archived_image == COVER
    assert queue.get(job.id).archive is InArchive.DONE


def test_a_job_shows_that_its_songs_are_not_archived(command: Command, archiving: Store) -> None:
    """Pending or failed."""
    assert "archive    pending" in command("job", song_of(archiving, key="a").id).out
    assert "archive    failed" in command("job", not_archived(archiving, key="b").id).out


def test_an_export_has_both_links(command: Command, archiving: Store) -> None:
    """In columns of the CSV, and with all details in JSON Lines."""
    archived(archiving)

    [row] = csv.DictReader(io.StringIO(command("export").out))
    line = command("export", "--format", "jsonl").json()

    assert (row["song_1_url"], row["song_1_archived"]) == (CLIPS[0].audio_url, AUDIO.url)
    assert (row["song_1_cover_archived"], row["song_2_archived"]) == (COVER.url, "")
    assert line["clips"][0]["archived_image"]["sha256"] == "b" * 64


def test_the_status_shows_pending_and_failed_jobs_and_missing_workers(command: Command, archiving: Store) -> None:
    """Nothing if there is nothing to archive."""
    assert "archive" not in command("status").out
    song_of(archiving, key="a")
    not_archived(archiving, key="b")

    status = command("status")

    assert "archive    songs of 1 jobs pending and nobody archives them, of 1 failed" in status.out
    assert command("status", "--json").json()["archive"] == {"pending": 1, "failed": 1}
