"""The songs of a job are downloaded once and archived completely, and failed attempts are repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from simulator.process import Simulator
from tasks.archive.downloader import Download, Downloader, DownloadLimits
from tasks.archive.task import archive_jobs
from tests.conftest import eventually
from tests.integration.outbound.archive_worker import ALLOWED, ArchiveWorker, archiving_store, files_in, served
from tests.store.life import apply_transition, get_job, job_with_song
from tests.support.clips import clip_values, full_clip
from tests.support.scripted import ScriptedServer
from voicequeue import ArchiveState, Clip, State
from voicequeue.domain import serialization
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore


@pytest.fixture
def store(valkey_url: str, prefix: str) -> Iterator[JobStore]:
    """Return a store that schedules songs for archiving."""
    with archiving_store(valkey_url, prefix) as store:
        yield store


@pytest.fixture
def worker(store: JobStore, simulator: Simulator, tmp_path: Path) -> ArchiveWorker:
    """Return a worker that archives into the folder `songs`."""
    return ArchiveWorker.build(store, simulator, tmp_path / "songs")


# ── complete ──────────────────────────────────────────────────────────────────────────────────────


def test_every_field_that_musicapi_gives_of_a_song_is_beside_its_audio(worker: ArchiveWorker, tmp_path: Path) -> None:
    """It was paid for, and the archive outlives the job. A new field of `Clip` is covered by itself."""
    song = full_clip(audio_url=f"{worker.links}/0.mp3", image_url=None, archived_audio=None, archived_image=None)
    [job] = worker.archive(job_with_song(worker.store, (song,), batch="spring"))

    metadata = json.loads((tmp_path / "songs" / "spring" / job.id / f"{song.clip_id}.json").read_text(encoding="utf-8"))
    assert {name: metadata[name] for name in clip_values(song)} == clip_values(song)


def test_the_metadata_of_a_song_is_stored_beside_its_audio(worker: ArchiveWorker, tmp_path: Path) -> None:
    """With its job, so that it outlives the job's record."""
    more: dict[str, Any] = {
        "tags": "calm, pop",
        "lyrics": "Ü la",
        "mv": "sonic-v5",
        "video_url": f"{worker.links}/0.mp4",
    }
    song = Clip("c", "succeeded", "T", f"{worker.links}/0.mp3", duration=60.0, created_at="2026-03-01", **more)
    [job] = worker.archive(
        job_with_song(worker.store, (song,), batch="spring", name="Ana", metadata={"customer": "17"})
    )

    metadata = json.loads((tmp_path / "songs" / "spring" / job.id / "c.json").read_text(encoding="utf-8"))
    assert metadata == {
        **{
            "job": job.id,
            "namespace": "",
            "key": None,
            "batch": "spring",
            "name": "Ana",
            "metadata": {"customer": "17"},
        },
        **{
            "source_row": None,
            "persona_id": "p-1",
            "voice_name": "ana",
            "clip_id": "c",
            "state": "succeeded",
            "title": "T",
            "duration": 60.0,
        },
        **{"audio_url": song.audio_url, "image_url": None, "created_at": "2026-03-01", "gpt_description_prompt": None},
        **more,
    }


def test_a_job_is_archived_when_all_of_its_songs_are_finished(worker: ArchiveWorker) -> None:
    """A finished song is archived at once; an unfinished one keeps the job pending, also if it has a stream."""
    [first, second] = (Clip(name, "succeeded", audio_url=f"{worker.links}/{name}.mp3") for name in "01")
    unfinished = replace(second, state="streaming")
    job = job_with_song(worker.store, (first, unfinished))

    [partial] = worker.archive(job)
    assert partial.archive is ArchiveState.PENDING
    assert [clip.archived_audio is not None for clip in partial.clips] == [True, False]
    [pending] = worker.store.archive.pending()
    assert "song 1: no link yet" in pending.last_error

    fields = {"clips": serialization.clips_text((first, second))}
    complete = apply_transition(worker.store, partial, State.SUCCEEDED, worker.clock.now, fields=fields)
    [complete] = worker.archive(complete)
    assert complete.archive is ArchiveState.DONE
    assert [clip.archived_audio is not None for clip in complete.clips] == [True, True]


def test_a_failed_song_is_not_archived(worker: ArchiveWorker) -> None:
    """The other song of the job is."""
    clips = (
        Clip("bad", "failed", None, f"{worker.links}/0.mp3"),
        Clip("good", "complete", None, f"{worker.links}/1.mp3", ""),
    )
    [job] = worker.archive(job_with_song(worker.store, clips))

    assert job.archive is ArchiveState.DONE
    assert [clip.archived_audio is not None for clip in job.clips] == [False, True]


# ── once ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_archived_file_is_not_downloaded_again(worker: ArchiveWorker, simulator: Simulator) -> None:
    """However often the job's message is delivered."""
    job = worker.song("c")
    worker.archive(job, job)
    worker.archive(job)

    assert simulator.ledger()["media"] == {"asked": 2, "whole": 2, "parts": 0}


def test_an_attempt_downloads_only_what_earlier_ones_did_not(worker: ArchiveWorker) -> None:
    """The audio is archived and recorded; the cover follows when its link works."""
    not_found = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"
    cover = served(0, "png")
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(cover), cover)
    answers = [not_found, ok]
    with ScriptedServer(lambda _: iter((answers.pop(0),))) as images:
        job = job_with_song(worker.store, (Clip("c", "succeeded", None, f"{worker.links}/0.mp3", f"{images.url}/0"),))
        [first] = worker.archive(job)
        [pending] = worker.store.archive.pending()
        [second] = worker.archive_when_due(job)

    assert (first.archive, first.clips[0].archived_image) == (ArchiveState.PENDING, None)
    assert first.clips[0].archived_audio is not None
    assert (pending.attempts, pending.last_error) == (1, "image of the song c: HTTP 404")
    assert pending.due_at == worker.clock.now
    assert second.archive is ArchiveState.DONE
    assert second.clips[0].archived_audio == first.clips[0].archived_audio


def test_a_worker_that_lost_its_claim_writes_nothing(worker: ArchiveWorker, tmp_path: Path) -> None:
    """A worker that was suspended during a download must not overwrite what another one stored since."""
    job = worker.song("c")

    class Suspended(Downloader):
        def download(self, url: str, into: BinaryIO) -> Download:
            download = super().download(url, into)
            worker.clock.now += 61
            worker.store.archive.claim(job.id, "another", worker.clock.now, lease_s=60)
            return download

    archive_jobs(replace(worker.services, downloader=Suspended(allowed=ALLOWED, bounds=DownloadLimits())), [job.id])

    assert files_in(tmp_path) == {}
    assert get_job(worker.store, job.id).clips[0].archived_audio is None
    assert get_job(worker.store, job.id).archive is ArchiveState.PENDING


def test_a_claim_is_renewed_during_a_slow_download(worker: ArchiveWorker, simulator: Simulator) -> None:
    """The download takes longer than the lease, and the job is not handed out again."""
    simulator.set_dials(media_s=1.4)
    timeouts = replace(worker.services.timeouts, lease_s=0.8)
    job = job_with_song(worker.store, (Clip("c", "succeeded", None, f"{worker.links}/0.mp3"),))
    handed_out = []

    with ThreadPoolExecutor(1) as thread:
        archiving = thread.submit(archive_jobs, replace(worker.services, timeouts=timeouts, clock=time.time), [job.id])
        eventually(lambda: simulator.ledger()["media"]["asked"])
        while not archiving.done():
            handed_out += worker.store.archive.lease(time.time(), lease_s=60)
            time.sleep(0.05)

    assert handed_out == []
    assert get_job(worker.store, job.id).archive is ArchiveState.DONE


# ── retried or failed ─────────────────────────────────────────────────────────────────────────────


def test_archiving_is_retried_with_backoff_and_fails_after_the_retry_period(
    worker: ArchiveWorker, simulator: Simulator
) -> None:
    """The delays grow; a failed job can be retried."""
    simulator.set_dials(media_faults={"lost": 1})
    job = worker.song("c", batch="b")
    started, delays = worker.clock.now, []
    [job] = worker.archive(job)
    while job.archive is ArchiveState.PENDING:
        before = worker.clock.now
        [job] = worker.archive_when_due(job)
        delays.append(worker.clock.now - before)

    assert delays[:5] == [30, 90, 270, 810, 2430]
    assert max(delays) == 3_600
    assert worker.clock.now == pytest.approx(started + 86_400, abs=200)
    [entry] = worker.store.archive.failed()
    assert (entry.job_id, entry.batch, entry.attempts) == (job.id, "b", len(delays) + 1)
    assert entry.last_error == "audio of the song c: HTTP 404; image of the song c: HTTP 404"

    simulator.set_dials(media_faults={})
    assert worker.store.archive.retry([job.id], worker.clock.now) == [True]
    assert worker.archive(job)[0].archive is ArchiveState.DONE


def test_a_link_into_an_internal_network_fails_without_a_retry(worker: ArchiveWorker, simulator: Simulator) -> None:
    """Another attempt would lead to the same address; nothing is downloaded from it."""
    simulator.set_dials(media_redirect="http://127.0.0.2:1/secret")
    [job] = worker.archive(worker.song("c"))
    [entry] = worker.store.archive.failed()

    assert job.archive is ArchiveState.FAILED
    assert "resolves to a loopback address, which VOICEQUEUE_AUDIO_ALLOWED_HOSTS does not allow" in entry.last_error
    assert "secret" not in entry.last_error


def test_an_html_page_is_not_archived_as_a_song(worker: ArchiveWorker, simulator: Simulator, tmp_path: Path) -> None:
    """The Content-Type that the server sends is not trusted."""
    simulator.set_dials(media_faults={"page": 1})
    [job] = worker.archive(worker.song("c"))
    [pending] = worker.store.archive.pending()

    assert job.archive is ArchiveState.PENDING
    assert "the downloaded file is not of type audio" in pending.last_error
    assert files_in(tmp_path) == {}


def test_an_unreadable_record_fails_without_a_retry(worker: ArchiveWorker, valkey_url: str, prefix: str) -> None:
    """Another release may have written it."""
    job = worker.song("c")
    with connect(valkey_url) as redis:
        redis.hset(f"{{{prefix}}}:job:{job.id}", "clips", "not JSON")

    archive_jobs(worker.services, [job.id])

    [entry] = worker.store.archive.failed()
    assert entry.last_error == "this release cannot read the job's record"
