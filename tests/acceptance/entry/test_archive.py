"""The archive on real processes: killed in the middle, with files that are cut, and beside jobs that go on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from simulator.media import file_of
from tests.acceptance.conftest import SECRET, Build, House, jobs, nothing_lost_nothing_paid_twice, settled
from tests.conftest import eventually
from voicequeue import ArchivedFile, InArchive, State, VoiceQueue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the songs go."""
    return tmp_path_factory.mktemp("songs")


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are on their way."""
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def standing(build_for_all: Build, folder: Path, spool: Path) -> House:
    """A worker, and one that archives."""
    house = build_for_all(
        workers=1,
        VOICEQUEUE_ARCHIVE=str(folder),
        TMPDIR=str(spool),
        VOICEQUEUE_AUDIO_ALLOW="localhost 127.0.0.1",
        VOICEQUEUE_ARCHIVE_FIRST_S="0.2",
        VOICEQUEUE_ARCHIVE_MAX_S="0.5",
        VOICEQUEUE_ARCHIVE_LEASE_S="0.6",
        VOICEQUEUE_ARCHIVE_SILENT_S="2",
    )
    house.stack.start_archive()
    with house.queue() as queue:
        eventually(lambda: queue.archive_counts().workers == 1)
    return house


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    """The house, for one test."""
    yield standing.renew()
    standing.dial(media_faults={}, media_s=0, media_bytes=16_000)


def lies_there_whole(queue: VoiceQueue, batch: str, folder: Path) -> int:
    """Every song and cover that the jobs tell of, by length and hash, and nothing else; how many that are."""
    told: dict[str, ArchivedFile] = {}
    for job in queue.jobs(batch=batch):
        assert job.archive is InArchive.DONE
        for clip in job.clips:
            assert clip.archived_audio is not None
            assert clip.archived_image is not None
            told |= {file.url: file for file in (clip.archived_audio, clip.archived_image)}
    files = {path for path in (folder / batch).rglob("*") if path.is_file()}
    beside = {path for path in files if path.suffix == ".json"}
    assert {path.with_suffix(".mp3") for path in beside} == {path for path in files if path.suffix == ".mp3"}
    found = {path.as_uri(): path.read_bytes() for path in files - beside}
    assert {url: (len(body), sha256(body).hexdigest()) for url, body in found.items()} == {
        url: (file.size, file.sha256) for url, file in told.items()
    }
    return len(found)


def has_asked_for(house: House, files: int) -> bool:
    """Whether so many files were begun."""
    return bool(house.ledger()["media"]["asked"] >= files)


def nothing_half_has_its_name(folder: Path, size: int) -> bool:
    """Whether every file that has its name is what the simulator serves."""
    named = [path for path in folder.rglob("*") if path.suffix in (".mp3", ".png")]
    return all(path.read_bytes() == file_of(path.stem, path.suffix[1:], size).body for path in named)


def archived(queue: VoiceQueue, batch: str) -> bool:
    """Whether all of a batch is."""
    return all(job.archive is InArchive.DONE for job in queue.jobs(batch=batch))


def test_finished_songs_lie_there_whole_however_often_downloads_are_cut(house: House, folder: Path) -> None:
    """Cut, said to be longer than they are, reset, gone for a while, a page instead: in the end each is there."""
    faults = {"cut": 0.15, "overlong": 0.1, "reset": 0.1, "error": 0.05, "lost": 0.1, "page": 0.1}
    house.dial(media_faults=faults, media_bytes=60_000)
    with house.queue() as queue:
        queue.enqueue_many(jobs(12, "cut"))
        eventually(lambda: settled(queue, "cut") and archived(queue, "cut"), within_s=40)

        assert lies_there_whole(queue, "cut", folder) == 48
    assert nothing_lost_nothing_paid_twice(house, 12, "cut")[State.SUCCEEDED] == 12
    assert house.ledger()["media"]["parts"] > 0


def test_a_process_that_is_killed_in_the_middle_of_songs_leaves_no_half_of_them(house: House, folder: Path) -> None:
    """The next one goes on; jobs do not wait for slow files."""
    house.dial(media_s=0.3, media_bytes=200_000)
    with house.queue() as queue:
        queue.enqueue_many(jobs(6, "killed"))
        for asked in (6, 12):
            eventually(partial(has_asked_for, house, asked))
            with house.supervisor.held_down("archive"):
                eventually(lambda: settled(queue, "killed"))
                assert nothing_half_has_its_name(folder / "killed", 200_000)
        eventually(lambda: archived(queue, "killed"), within_s=40)

        assert lies_there_whole(queue, "killed", folder) == 24


def test_nothing_of_a_job_but_its_id_stands_in_messages_and_logs(house: House) -> None:
    """Neither a link nor the place, which may hold credentials."""
    with house.queue() as queue:
        queue.enqueue_many(jobs(1, "told"))
        eventually(lambda: settled(queue, "told") and archived(queue, "told"))
    log = (house.home / "log" / "archive.log").read_text()

    assert '"event": "archived"' in log
    assert not [word for word in (SECRET, "/media/", "http://", "lyrics") if word in log.replace(house.redis_url, "")]
