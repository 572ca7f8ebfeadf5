"""The command `archive` lists and retries; other commands show archived files."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from redis import Redis

from tests.store.conftest import Command
from tests.store.life import CLIPS, NOW, job_in_state, job_with_song
from voicequeue import ArchivedFile, ArchiveState, Job, State, VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.states import ClipPart
from voicequeue.storage.job_store import JobStore

AUDIO = ArchivedFile("s3://songs/b/j/c-1.mp3", 1_234_567, "a" * 64)
COVER = ArchivedFile("s3://songs/b/j/c-1.png", 1_000, "b" * 64)
LATER = NOW + 60


@pytest.fixture
def archiving(redis: Redis, prefix: str) -> JobStore:
    """Return a store that schedules songs for archiving."""
    return JobStore(redis, prefix, archives=True)


def archived(store: JobStore, **fields: Any) -> Job:
    """Create a job whose files are archived."""
    job = job_with_song(store, **fields)
    claim = store.archive.claim(job.id, "h", LATER, lease_s=60)
    assert claim
    store.archive.record_file(claim, "c-1", ClipPart.AUDIO, AUDIO, LATER, lease_s=60)
    store.archive.record_file(claim, "c-1", ClipPart.IMAGE, COVER, LATER, lease_s=60)
    store.archive.mark_done(claim, LATER)
    return job


def not_archived(store: JobStore, **fields: Any) -> Job:
    """Create a job that failed to be archived."""
    job = job_with_song(store, **fields)
    claim = store.archive.claim(job.id, "h", LATER, lease_s=60)
    assert claim
    store.archive.mark_failed(claim, LATER, "audio of the song c-1: HTTP 404 [red]")
    return job


def test_the_command_lists_pending_and_failed_jobs(command: Command, archiving: JobStore) -> None:
    """With the reasons, and the numbers of archived jobs and files."""
    pending, failed = job_with_song(archiving, key="p", batch="b"), not_archived(archiving, key="f")
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
            "job_id": pending.id,
            "namespace": "",
            "batch": "b",
            "since": to_iso8601(LATER),
            "attempts": 0,
            "last_error": None,
            "due_at": to_iso8601(LATER),
            "failed_at": None,
        }
    ]
    assert [(entry["job_id"], entry["failed_at"]) for entry in listed["failed"]] == [(failed.id, to_iso8601(LATER))]
    assert command("archive", "--batch", "b", "--json").json()["failed"] == []


def test_failed_jobs_can_be_retried(command: Command, archiving: JobStore) -> None:
    """All of them, those of a batch, or one job."""
    a, b, c = (not_archived(archiving, key=key, batch=key) for key in "abc")

    assert command("archive", "--retry", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--retry", "--job", b.id, "--json").json() == {"jobs": 1}
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id}
    assert "1 job scheduled for archiving" in command("archive", "--retry").out
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id, c.id}
    assert command("archive", "--retry", "--job", "unknown").code == 1


def test_songs_created_before_archiving_was_enabled_can_be_archived(
    command: Command, store: JobStore, archiving: JobStore
) -> None:
    """Those of one batch or of all, each once."""
    job_with_song(store, key="a", batch="a")
    job_with_song(store, key="b", batch="b")
    job_in_state(store, State.FAILED)
    archived(archiving, key="c")

    assert command("archive", "--backfill", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--backfill", "--json").json() == {"jobs": 1}
    assert command("archive", "--backfill", "--json").json() == {"jobs": 0}
    assert command("archive", "--backfill", "--batch", "unknown").code == 2


@pytest.mark.parametrize("options", [["--retry", "--backfill"], ["--job", "x"]])
def test_options_that_exclude_each_other_are_rejected(command: Command, options: list[str]) -> None:
    """With the exit code of wrong usage."""
    assert command("archive", *options).code == 2


def test_a_job_shows_both_links(command: Command, archiving: JobStore, queue: VoiceQueue) -> None:
    """Upstream's link, and the archived file with its size and hash."""
    job = archived(archiving)

    shown, listed = command("job", job.id).out, command("job", job.id, "--json").json()

    assert str(CLIPS[0].audio_url) in shown
    assert "s3://songs/b/j/c-1.mp3  1,234,567 bytes" in shown
    assert (listed["archive"], listed["clips"][0]["audio_url"]) == ("done", CLIPS[0].audio_url)
    assert listed["clips"][0]["archived_audio"] == {"url": AUDIO.url, "size": 1_234_567, "sha256": "a" * 64}
    assert queue.get(job.id).clips[0].archived_image == COVER
    assert queue.get(job.id).archive is ArchiveState.DONE


def test_a_job_shows_that_its_songs_are_not_archived(command: Command, archiving: JobStore) -> None:
    """Pending or failed."""
    assert "archive    pending" in command("job", job_with_song(archiving, key="a").id).out
    assert "archive    failed" in command("job", not_archived(archiving, key="b").id).out


def test_an_export_has_both_links(command: Command, archiving: JobStore) -> None:
    """In columns of the CSV, and with all details in JSON Lines."""
    archived(archiving)

    [row] = csv.DictReader(io.StringIO(command("export").out))
    line = command("export", "--format", "jsonl").json()

    assert (row["song_1_url"], row["song_1_archived"]) == (CLIPS[0].audio_url, AUDIO.url)
    assert (row["song_1_cover_archived"], row["song_2_archived"]) == (COVER.url, "")
    assert line["clips"][0]["archived_image"]["sha256"] == "b" * 64


def test_the_status_shows_pending_and_failed_jobs_and_missing_workers(command: Command, archiving: JobStore) -> None:
    """Nothing if there is nothing to archive."""
    assert "archive" not in command("status").out
    job_with_song(archiving, key="a")
    not_archived(archiving, key="b")

    status = command("status")

    assert "archive    1 job pending and no worker to archive them, 1 failed" in status.out
    assert command("status", "--json").json()["archive"] == {"pending": 1, "failed": 1}
