"""Archived files are complete in a folder, in memory and on S3, under safe names, and storage errors are retried."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from simulator.process import Simulator
from tasks.archive.storage import ArchiveStorage, ArchiveStorageError, safe_name
from tasks.archive.storage_check import TIMEOUT_S, StorageCheck
from tasks.archive.task import TEMPORARY_PREFIX, remove_stale_files
from tests.conftest import eventually
from tests.integration.conftest import Clock
from tests.integration.outbound.archive_worker import ArchiveWorker, archiving_store, files_in, served
from voicequeue import ArchiveState
from voicequeue.storage.heartbeats import ProcessHeartbeat
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


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Start an S3 server for these tests; return its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a bucket on it; credentials and endpoint come from the environment, as in production."""
    variables = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "ENDPOINT_URL": s3, "DEFAULT_REGION": "us-east-1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    files = fsspec.filesystem("s3")
    files.makedirs("songs", exist_ok=True)
    yield "s3://songs/kept"
    S3FileSystem.close_session(files.loop, files.s3)
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> ArchiveStorage:
    """Return a storage of each kind."""
    urls: dict[str, Callable[[], str]] = {
        "folder": lambda: f"file://{tmp_path}/else",
        "memory": lambda: f"memory://{tmp_path.name}",
        "s3": lambda: str(request.getfixturevalue("bucket")),
    }
    return ArchiveStorage.from_url(urls[request.param]())


# ── complete files ────────────────────────────────────────────────────────────────────────────────


def test_finished_songs_are_stored_completely(worker: ArchiveWorker, storage: ArchiveStorage) -> None:
    """Audio and cover of each song, by batch and job; the job has their URLs, sizes and hashes."""
    [job] = worker.with_storage(storage).archive(worker.song("c-a", "c-b", batch="spring"))

    assert job.archive is ArchiveState.DONE
    for number, clip in enumerate(job.clips):
        for file, suffix in ((clip.archived_audio, "mp3"), (clip.archived_image, "png")):
            expected, path = served(number, suffix), f"spring/{job.id}/{clip.clip_id}.{suffix}"
            assert file is not None
            assert storage.filesystem.cat_file(f"{storage.root}/{path}") == expected
            assert (file.url, file.size) == (f"{storage.url}/{path}", len(expected))
            assert file.sha256 == sha256(expected).hexdigest()
    assert [clip.audio_url for clip in job.clips] == [f"{worker.links}/{number}.mp3" for number in range(2)]


def test_a_song_larger_than_one_part_of_an_upload_is_complete(
    worker: ArchiveWorker, simulator: Simulator, bucket: str
) -> None:
    """S3 receives it in several parts, and shows it when it has all of them."""
    simulator.set_dials(media_bytes=20_000_000)
    storage = ArchiveStorage.from_url(bucket)

    [job] = worker.with_storage(storage).archive(worker.song("c"))

    file = job.clips[0].archived_audio
    assert file is not None
    stored = storage.filesystem.cat_file(f"{storage.root}/_/{job.id}/c.mp3")
    assert (len(stored), sha256(stored).hexdigest()) == (file.size, file.sha256)
    assert file.url == f"s3://songs/kept/_/{job.id}/c.mp3"
    assert storage.filesystem.info(f"{storage.root}/_/{job.id}/c.mp3")["ContentType"] == "audio/mpeg"


def test_a_folder_contains_only_complete_files(worker: ArchiveWorker, tmp_path: Path) -> None:
    """Every user who can read the folder can read them."""
    [job] = worker.archive(worker.song("c"))

    assert set(files_in(tmp_path / "songs")) == {f"_/{job.id}/c.{ending}" for ending in ("mp3", "png", "json")}
    assert stat.S_IMODE((tmp_path / "songs" / "_" / job.id / "c.mp3").stat().st_mode) & 0o044 == 0o044


def test_partial_files_of_a_killed_worker_are_removed(worker: ArchiveWorker, tmp_path: Path) -> None:
    """Those of another song stay: a worker may be writing it."""
    job = worker.song("c")
    folder = tmp_path / "songs" / "_" / job.id
    folder.mkdir(parents=True)
    (folder / ".c.mp3.0123abcd.part").write_bytes(b"half")
    (folder / ".other.mp3.0123abcd.part").write_bytes(b"half")

    worker.archive(job)

    assert set(files_in(folder)) == {"c.mp3", "c.png", "c.json", ".other.mp3.0123abcd.part"}


# ── names ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "clip_id", ["../../../etc/cron.d/x", "/etc/passwd", "..", ".", "a/b", ".hidden", "a\nb", "é" * 300, "x" * 300]
)
def test_no_song_id_leads_out_of_its_folder(worker: ArchiveWorker, tmp_path: Path, clip_id: str) -> None:
    """Unsafe ids are replaced by safe names."""
    [job] = worker.archive(worker.song(clip_id))

    folder = tmp_path / "songs" / "_" / job.id
    assert job.archive is ArchiveState.DONE
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder}
    files = files_in(folder)
    assert sorted(files) == sorted(f"{safe_name(clip_id)}.{ending}" for ending in ("mp3", "png", "json"))
    assert {served(0, "mp3"), served(0, "png")} < set(files.values())


def test_the_storage_accepts_plain_names_only(tmp_path: Path) -> None:
    """It does not rely on its caller to make names safe."""
    (tmp_path / "file").write_bytes(b"x")
    for name in ("..", "a/b", "", ".x"):
        with pytest.raises(ValueError, match="plain names"):
            ArchiveStorage.from_url(str(tmp_path / "songs")).put(tmp_path / "file", "b", name)


# ── errors ────────────────────────────────────────────────────────────────────────────────────────


def test_a_storage_that_cannot_be_written_is_retried(worker: ArchiveWorker, tmp_path: Path) -> None:
    """The disk is full or the mount is gone; the reason quotes the system's error, but no path."""
    (tmp_path / "songs").write_text("a file where the folder should be")
    [job] = worker.archive(worker.song("c"))
    [pending] = worker.store.archive.pending()

    assert job.archive is ArchiveState.PENDING
    assert "the archive cannot be written: " in pending.last_error
    assert str(tmp_path) not in pending.last_error


def test_a_machine_without_space_for_temporary_files_is_retried(
    worker: ArchiveWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary folder is full, or does not exist."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    [job] = worker.archive(worker.song("c"))
    [pending] = worker.store.archive.pending()

    assert job.archive is ArchiveState.PENDING
    assert "cannot write a temporary file: No such file or directory" in pending.last_error


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nothing-known://user:secret@host/x", "ValueError"),
        ("sftp://user:secret@host/x", "paramiko"),
        ("", "VOICEQUEUE_ARCHIVE_URL is not set"),
    ],
)
def test_an_unusable_url_raises_an_error_without_its_credentials(url: str, expected: str) -> None:
    """An fsspec URL can contain credentials."""
    with pytest.raises(ArchiveStorageError, match=expected) as error:
        ArchiveStorage.from_url(url)

    assert "secret" not in str(error.value)


def test_links_contain_no_credentials() -> None:
    """Nor the query of the URL."""
    assert ArchiveStorage.from_url("memory://user:secret@songs/a?key=secret").url == "memory://songs/a"


# ── temporary files ───────────────────────────────────────────────────────────────────────────────


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locked and recent files stay, and files of other programs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stale, locked, recent = (tmp_path / f"{TEMPORARY_PREFIX}{name}" for name in ("stale", "locked", "recent"))
    other = tmp_path / "other"
    for path in (stale, locked, recent, other):
        path.touch()
    for path in (stale, locked, other):
        os.utime(path, (1_000, 1_000))

    with locked.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        remove_stale_files(recent.stat().st_mtime + 1)

    assert set(tmp_path.iterdir()) == {locked, recent, other}


# ── checks ─────────────────────────────────────────────────────────────────────────────────────


def _report(check: StorageCheck, now: float) -> tuple[str, float]:
    """Return the error that the heartbeat of the process shows, and for how long it has lasted."""
    process = ProcessHeartbeat("archive", "a", now, check.facts)
    return process.storage_error, process.storage_failing_s(now)


def test_a_storage_that_cannot_be_written_shows_without_a_song(tmp_path: Path) -> None:
    """The process says why, and since when, until it can write again. Nothing is left in the archive."""
    folder, clock = tmp_path / "songs", Clock(1_000)
    check = StorageCheck(ArchiveStorage.from_url(str(folder)), clock, min_free_bytes=1)
    folder.touch()  # a file where the folder should be

    check.check()
    clock.now += 90
    check.check()
    error, failing_s = _report(check, clock.now)
    folder.unlink()
    check.check()

    assert error.startswith("the archive cannot be written: ")
    assert failing_s == 90
    assert _report(check, clock.now) == ("", 0)
    assert files_in(folder) == {}


def test_a_disk_without_space_for_a_file_shows_before_a_song_fails(tmp_path: Path) -> None:
    """A small file may still fit where a song does not."""
    check = StorageCheck(ArchiveStorage.from_url(str(tmp_path / "songs")), Clock(), min_free_bytes=10**18)

    check.check()

    assert "MB left, and a file may take 1,000,000,000,000 MB" in _report(check, 0)[0]


def test_a_storage_that_does_not_answer_shows() -> None:
    """A check that hangs counts as failed, and the process still sends its heartbeats."""
    clock, stopping = Clock(1_000), threading.Event()
    storage = ArchiveStorage(HangingFiles(), "/hanging", "memory:///hanging")
    check = StorageCheck(storage, clock, min_free_bytes=1)
    check.start(stopping)
    eventually(lambda: storage.filesystem.is_waiting)

    clock.now += TIMEOUT_S + 1
    check.watch()
    error = _report(check, clock.now)[0]
    storage.filesystem.release()
    stopping.set()

    assert error == "the archive has not answered for 30 s"
    eventually(lambda: _report(check, clock.now)[0] == "")


def test_an_object_store_is_checked_with_the_rights_that_songs_need(bucket: str) -> None:
    """It is written and read, nothing is deleted, and each check overwrites the file of the last one."""
    storage = ArchiveStorage.from_url(f"{bucket}/checked")
    check = StorageCheck(storage, Clock(), min_free_bytes=10**18)

    check.check()
    check.check()

    assert _report(check, 0) == ("", 0)
    assert [path.rpartition("/")[2] for path in storage.filesystem.find(storage.root)] == ["file"]
    storage.filesystem.rm(storage.root, recursive=True)


class HangingFiles(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A storage whose uploads wait for `release`."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.is_waiting = False
        self._may_continue = threading.Event()

    def put_file(self, *args: Any, **options: Any) -> None:
        """Wait, then store the file."""
        self.is_waiting = True
        self._may_continue.wait(20)
        super().put_file(*args, **options)

    def release(self) -> None:
        """Let uploads continue."""
        self._may_continue.set()
