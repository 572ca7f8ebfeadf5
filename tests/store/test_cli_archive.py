"""The command `archive`, and archived songs in other commands."""

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
    """Return a store that archives songs."""
    return Store(redis, prefix, archives=True)


def archived(store: Store, **fields: Any) -> Job:
    """Return a job whose songs and covers are archived."""
    job = song_of(store, **fields)
    fetch = store.archive.claim(job.id, "h", LATER, lease=60)
    assert fetch
    store.archive.kept(fetch, "c-1", Part.AUDIO, AUDIO, LATER, lease=60)
    store.archive.kept(fetch, "c-1", Part.IMAGE, COVER, LATER, lease=60)
    store.archive.done(fetch, LATER)
    return job


def given_up(store: Store, **fields: Any) -> Job:
    """Return a job whose songs could not be archived."""
    job = song_of(store, **fields)
    fetch = store.archive.claim(job.id, "h", LATER, lease=60)
    assert fetch
    store.archive.give_up(fetch, LATER, "audio of the song c-1: HTTP 404 [red]")
    return job


def test_pending_and_failed_jobs_are_listed(command: Command, archiving: Store) -> None:
    """With the reason, and the number of archived jobs."""
    pending, lost = song_of(archiving, key="p", batch="b"), given_up(archiving, key="f")
    archived(archiving, key="d")

    output = command("archive")
    listed = command("archive", "--json").json()

    assert output.code == 0
    assert pending.id in output.out
    assert "HTTP 404 [red]" in output.out
    assert "1 pending, 1 failed, 1 archived in 2 files" in output.out
    assert "none alive" in output.out
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
    assert [(entry["job"], entry["failed_at"]) for entry in listed["failed"]] == [(lost.id, iso(LATER))]
    assert command("archive", "--batch", "b", "--json").json()["failed"] == []


def test_failed_jobs_can_be_retried(command: Command, archiving: Store) -> None:
    """All, those of a batch, or one."""
    a, b, c = (given_up(archiving, key=key, batch=key) for key in "abc")

    assert command("archive", "--retry", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--retry", "--job", b.id, "--json").json() == {"jobs": 1}
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id}
    assert "the songs of 1 jobs are to be archived" in command("archive", "--retry").out
    assert {entry.job_id for entry in archiving.archive.pending()} == {a.id, b.id, c.id}
    assert command("archive", "--retry", "--job", "nobody").code == 1


def test_songs_created_before_archiving_can_be_archived(command: Command, store: Store, archiving: Store) -> None:
    """Of one batch or of all, once."""
    song_of(store, key="a", batch="a")
    song_of(store, key="b", batch="b")
    brought_to(store, State.FAILED)
    archived(archiving, key="c")

    assert command("archive", "--missing", "--batch", "a", "--json").json() == {"jobs": 1}
    assert command("archive", "--missing", "--json").json() == {"jobs": 1}
    assert command("archive", "--missing", "--json").json() == {"jobs": 0}
    assert command("archive", "--missing", "--batch", "nobody").code == 2


@pytest.mark.parametrize("wrong", [["--retry", "--missing"], ["--job", "x"]])
def test_conflicting_options_are_rejected(command: Command, wrong: list[str]) -> None:
    """With exit code 2."""
    assert command("archive", *wrong).code == 2


def test_a_job_shows_both_links(command: Command, archiving: Store, queue: VoiceQueue) -> None:
    """Upstream's, and the archive's with size and hash."""
    job = archived(archiving)

    output, listed = command("job", job.id).out, command("job", job.id, "--json").json()

    assert str(CLIPS[0].audio_url) in output
    assert "s3://songs/b/j/c-1.mp3  1,234,567 bytes" in output
    assert (listed["archive"], listed["clips"][0]["audio_url"]) == ("done", CLIPS[0].audio_url)
    assert listed["clips"][0]["archived_audio"] == {"url": AUDIO.url, "size": 1_234_567, "sha256": "a" * 64}
    assert queue.get(job.id).clips[0].archived_image == COVER
    assert queue.get(job.id).archive is InArchive.DONE


def test_a_job_shows_that_its_songs_are_not_archived_yet(command: Command, archiving: Store) -> None:
    """Or could not be archived."""
    assert "archive    pending" in command("job", song_of(archiving, key="a").id).out
    assert "archive    failed" in command("job", given_up(archiving, key="b").id).out


def test_an_export_has_both_links(command: Command, archiving: Store) -> None:
    """CSV in two columns; JSON Lines with all details."""
    archived(archiving)

    [row] = csv.DictReader(io.StringIO(command("export").out))
    line = command("export", "--format", "jsonl").json()

    assert (row["song_1_url"], row["song_1_archived"]) == (CLIPS[0].audio_url, AUDIO.url)
    assert (row["song_1_cover_archived"], row["song_2_archived"]) == (COVER.url, "")
    assert line["clips"][0]["archived_image"]["sha256"] == "b" * 64


def test_the_status_shows_that_no_worker_archives(command: Command, archiving: Store) -> None:
    """Only if there is something to archive."""
    assert "archive" not in command("status").out
    song_of(archiving, key="a")
    given_up(archiving, key="b")

    output = command("status")

    assert "archive    1 jobs pending and no worker to archive them, 1 failed" in output.out
    assert command("status", "--json").json()["archive"] == {"pending": 1, "failed": 1}
