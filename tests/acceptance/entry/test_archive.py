"""The archive on real processes: killed during downloads, with truncated files, and beside jobs in progress."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from simulator.server.media import build_file
from tests.acceptance.conftest import SECRET, Build, System, jobs, settled, verified_states
from tests.conftest import eventually
from voicequeue import ArchivedFile, ArchiveState, State, VoiceQueue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the archive."""
    return tmp_path_factory.mktemp("songs")


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of temporary files."""
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def shared_system(build_shared: Build, folder: Path, spool: Path) -> System:
    """Start a worker and an archive worker."""
    system = build_shared(
        workers=1,
        VOICEQUEUE_ARCHIVE_URL=str(folder),
        TMPDIR=str(spool),
        VOICEQUEUE_AUDIO_ALLOWED_HOSTS="localhost 127.0.0.1",
        VOICEQUEUE_ARCHIVE_BACKOFF_INITIAL_S="0.2",
        VOICEQUEUE_ARCHIVE_BACKOFF_MAX_S="0.5",
        VOICEQUEUE_ARCHIVE_LEASE_S="0.6",
        VOICEQUEUE_ARCHIVE_READ_TIMEOUT_S="2",
    )
    system.stack.start_archive()
    with system.queue() as queue:
        eventually(lambda: queue.archive_counts().workers == 1)
    return system


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """Yield the system for one test; afterwards reset the simulator's media dials."""
    yield shared_system.reset()
    shared_system.dial(media_faults={}, media_s=0, media_bytes=16_000)


def check_archive(queue: VoiceQueue, batch: str, folder: Path) -> int:
    """Check every song and cover of the jobs by length and hash, and that there are no other files; return their
    number."""
    expected: dict[str, ArchivedFile] = {}
    for job in queue.jobs(batch=batch):
        assert job.archive is ArchiveState.DONE
        for clip in job.clips:
            assert clip.archived_audio is not None
            assert clip.archived_image is not None
            expected |= {file.url: file for file in (clip.archived_audio, clip.archived_image)}
    files = {path for path in (folder / batch).rglob("*") if path.is_file()}
    descriptions = {path for path in files if path.suffix == ".json"}
    assert {path.with_suffix(".mp3") for path in descriptions} == {path for path in files if path.suffix == ".mp3"}
    stored = {path.as_uri(): path.read_bytes() for path in files - descriptions}
    assert {url: (len(body), sha256(body).hexdigest()) for url, body in stored.items()} == {
        url: (file.size, file.sha256) for url, file in expected.items()
    }
    return len(stored)


def has_started(system: System, files: int) -> bool:
    """Return whether this many downloads have started."""
    return bool(system.ledger()["media"]["asked"] >= files)


def all_named_files_are_complete(folder: Path, size: int) -> bool:
    """Return whether every file under its final name is complete."""
    named = [path for path in folder.rglob("*") if path.suffix in (".mp3", ".png")]
    return all(path.read_bytes() == build_file(path.stem, path.suffix[1:], size).body for path in named)


def is_archived(queue: VoiceQueue, batch: str) -> bool:
    """Return whether all songs of a batch are archived."""
    return all(job.archive is ArchiveState.DONE for job in queue.jobs(batch=batch))


def test_archived_songs_are_complete_after_many_failed_downloads(system: System, folder: Path) -> None:
    """Truncated, longer than declared, reset, missing for a while, an HTML page instead: in the end each file is
    there."""
    faults = {"cut": 0.15, "overlong": 0.1, "reset": 0.1, "error": 0.05, "lost": 0.1, "page": 0.1}
    system.dial(media_faults=faults, media_bytes=60_000)
    with system.queue() as queue:
        queue.enqueue_many(jobs(12, "cut"))
        eventually(lambda: settled(queue, "cut") and is_archived(queue, "cut"), within_s=40)

        assert check_archive(queue, "cut", folder) == 48
    assert verified_states(system, 12, "cut")[State.SUCCEEDED] == 12
    assert system.ledger()["media"]["parts"] > 0


def test_a_process_killed_during_downloads_leaves_no_partial_songs(system: System, folder: Path) -> None:
    """The next process continues; jobs do not wait for slow files."""
    system.dial(media_s=0.3, media_bytes=200_000)
    with system.queue() as queue:
        queue.enqueue_many(jobs(6, "killed"))
        for started in (6, 12):
            eventually(partial(has_started, system, started))
            with system.supervisor.held_down("archive"):
                eventually(lambda: settled(queue, "killed"))
                assert all_named_files_are_complete(folder / "killed", 200_000)
        eventually(lambda: is_archived(queue, "killed"), within_s=40)

        assert check_archive(queue, "killed", folder) == 24


def test_messages_and_logs_contain_only_the_id_of_a_job(system: System) -> None:
    """Neither a link nor the archive's URL, which may hold credentials."""
    with system.queue() as queue:
        queue.enqueue_many(jobs(1, "logged"))
        eventually(lambda: settled(queue, "logged") and is_archived(queue, "logged"))
    log = (system.home / "log" / "archive.log").read_text()

    assert '"event": "archived"' in log
    assert not [word for word in (SECRET, "/media/", "http://", "lyrics") if word in log.replace(system.redis_url, "")]
