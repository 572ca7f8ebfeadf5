"""Songs on their way into the archive: real files from the simulator, in a folder, in memory and on an S3."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from simulator.media import file_of
from simulator.process import Simulator
from tasks.archive.downloader import Bounds, Download, Fetcher
from tasks.archive.storage import Shelf, Unusable, safe
from tasks.archive.task import SPOOLED, ArchiveServices, keep, sweep
from tests.conftest import eventually
from tests.integration.conftest import Clock
from tests.store.life import NOW, everything_agrees, make, one, song_of
from tests.support.scripted import Scripted
from voicequeue import Clip, InArchive, Job, State
from voicequeue.domain import serialization
from voicequeue.domain.timeouts import ArchivePatience
from voicequeue.net.address_policy import Allowed
from voicequeue.storage.job_store import Store, connect

HERE = Allowed.of("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOW")
BYTES = 16_000


@pytest.fixture
def store(valkey_url: str, prefix: str) -> Iterator[Store]:
    """A store that has songs archived, and agrees with itself afterwards."""
    with connect(valkey_url) as client:
        yield Store(client, prefix, archives=True)
        everything_agrees(client, prefix)


@dataclass(frozen=True)
class Keeper:
    """One worker that archives, on a shelf; `links` begins the links of the simulator."""

    services: ArchiveServices
    store: Store
    clock: Clock
    links: str

    def song(self, *clip_ids: str, **fields: Any) -> Job:
        """A job whose songs are there."""
        clips = tuple(
            Clip(each, "succeeded", "T", f"{self.links}/{number}.mp3", f"{self.links}/{number}.png", 60.0)
            for number, each in enumerate(clip_ids)
        )
        return song_of(self.store, clips, **fields)

    def keep(self, *jobs: Job) -> list[Job]:
        """What the task `song.archive` does; the jobs as they are then."""
        keep(self.services, [job.id for job in jobs])
        return [one(self.store, job.id) for job in jobs]

    def again(self, *jobs: Job) -> list[Job]:
        """The same, when the next try is due."""
        self.clock.now = max(each.due or 0.0 for each in self.store.archive.pending())
        return self.keep(*jobs)

    def with_shelf(self, shelf: Shelf) -> Keeper:
        """The same worker with another place."""
        return replace(self, services=replace(self.services, shelf=shelf))


@pytest.fixture
def keeper(store: Store, simulator: Simulator, tmp_path: Path) -> Keeper:
    """A worker whose archive is a folder."""
    simulator.turn(media_bytes=BYTES)
    clock = Clock(NOW + 60)
    fetcher = Fetcher(allowed=HERE, bounds=Bounds())
    patience = ArchivePatience(first_s=30, most_s=3_600, for_s=86_400, lease_s=60)
    services = ArchiveServices(
        store.archive, store.pulses["archive"], fetcher, Shelf.at(str(tmp_path / "songs")), patience, clock
    )
    return Keeper(services, store, clock, f"{simulator.api_url}/media")


def lying_in(folder: Path) -> dict[str, bytes]:
    """Every file there, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def served(number: int, suffix: str) -> bytes:
    """What the simulator has behind a link."""
    return file_of(str(number), suffix, BYTES).body


# ── whole, wherever ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 of the tests' own, with a bucket; gives its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket there, found as its users find theirs: by what stands in the environment."""
    names = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "ENDPOINT_URL": s3, "DEFAULT_REGION": "us-east-1"}
    for name, value in names.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    files = fsspec.filesystem("s3")
    files.makedirs("songs", exist_ok=True)
    yield "s3://songs/kept"
    S3FileSystem.close_session(files.loop, files.s3)
    S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "memory", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """A place of each kind."""
    urls: dict[str, Callable[[], str]] = {
        "folder": lambda: f"file://{tmp_path}/else",
        "memory": lambda: f"memory://{tmp_path.name}",
        "s3": lambda: str(request.getfixturevalue("bucket")),
    }
    return Shelf.at(urls[request.param]())


def test_finished_songs_lie_there_whole(keeper: Keeper, shelf: Shelf) -> None:
    """Audio and cover of each, by batch and job; the job tells where, how long they are, and their hashes."""
    [job] = keeper.with_shelf(shelf).keep(keeper.song("c-a", "c-b", batch="spring"))

    assert job.archive is InArchive.DONE
    for number, clip in enumerate(job.clips):
        for file, suffix in ((clip.archived_audio, "mp3"), (clip.archived_image, "png")):
            expected, place = served(number, suffix), f"spring/{job.id}/{clip.clip_id}.{suffix}"
            assert file is not None
            assert shelf.files.cat_file(f"{shelf.root}/{place}") == expected
            assert (file.url, file.size) == (f"{shelf.link}/{place}", len(expected))
            assert file.sha256 == sha256(expected).hexdigest()
    assert [clip.audio_url for clip in job.clips] == [f"{keeper.links}/{number}.mp3" for number in range(2)]


def test_a_song_larger_than_one_part_of_an_upload_is_whole(keeper: Keeper, simulator: Simulator, bucket: str) -> None:
    """S3 takes it in pieces, and shows it when it has all of them."""
    simulator.turn(media_bytes=20_000_000)
    shelf = Shelf.at(bucket)

    [job] = keeper.with_shelf(shelf).keep(keeper.song("c"))

    file = job.clips[0].archived_audio
    assert file is not None
    found = shelf.files.cat_file(f"{shelf.root}/_/{job.id}/c.mp3")
    assert (len(found), sha256(found).hexdigest()) == (file.size, file.sha256)
    assert file.url == f"s3://songs/kept/_/{job.id}/c.mp3"
    assert shelf.files.info(f"{shelf.root}/_/{job.id}/c.mp3")["ContentType"] == "audio/mpeg"


def test_nothing_but_whole_files_is_left(keeper: Keeper, tmp_path: Path) -> None:
    """In their folder; whoever may read the folder may read them."""
    [job] = keeper.keep(keeper.song("c"))

    assert set(lying_in(tmp_path / "songs")) == {f"_/{job.id}/c.{ending}" for ending in ("mp3", "png", "json")}
    assert stat.S_IMODE((tmp_path / "songs" / "_" / job.id / "c.mp3").stat().st_mode) & 0o044 == 0o044


def test_what_is_known_of_a_song_lies_beside_its_audio(keeper: Keeper, tmp_path: Path) -> None:
    """With the job that it is of: it is there when the job's record is long gone."""
    more: dict[str, Any] = {
        "tags": "calm, pop",
        "lyrics": "Ü la",
        "mv": "sonic-v5",
        "video_url": f"{keeper.links}/0.mp4",
    }
    song = Clip("c", "succeeded", "T", f"{keeper.links}/0.mp3", duration=60.0, created_at="2026-03-01", **more)
    [job] = keeper.keep(song_of(keeper.store, (song,), batch="spring", name="Ana", metadata={"customer": "17"}))

    told = json.loads((tmp_path / "songs" / "spring" / job.id / "c.json").read_text(encoding="utf-8"))
    assert told == {
        **{"job": job.id, "key": None, "batch": "spring", "name": "Ana", "metadata": {"customer": "17"}},
        **{
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


def test_a_job_is_archived_when_all_of_its_songs_are_there(keeper: Keeper) -> None:
    """A song without its link keeps it pending; what is there is kept at once, and a streamed part is no song."""
    [first, second] = (Clip(name, "succeeded", audio_url=f"{keeper.links}/{name}.mp3") for name in "01")
    waiting = replace(second, state="streaming")
    job = song_of(keeper.store, (first, waiting))

    [partly] = keeper.keep(job)
    assert partly.archive is InArchive.PENDING
    assert [clip.archived_audio is not None for clip in partly.clips] == [True, False]
    [listed] = keeper.store.archive.pending()
    assert "song 1: no link yet" in listed.reason

    fields = {"clips": serialization.clips_text((first, second))}
    whole = make(keeper.store, partly, State.SUCCEEDED, keeper.clock.now, fields=fields)
    [whole] = keeper.keep(whole)
    assert whole.archive is InArchive.DONE
    assert [clip.archived_audio is not None for clip in whole.clips] == [True, True]


# ── once ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_archived_is_not_fetched_again(keeper: Keeper, simulator: Simulator) -> None:
    """However often its message comes."""
    job = keeper.song("c")
    keeper.keep(job, job)
    keeper.keep(job)

    assert simulator.ledger()["media"] == {"asked": 2, "whole": 2, "parts": 0}


def test_what_one_try_could_fetch_the_next_one_does_not(keeper: Keeper) -> None:
    """The audio is there and told; the cover follows when it can be had."""
    lost = b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n"
    cover = served(0, "png")
    there = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(cover), cover)
    answers = [lost, there]
    with Scripted(lambda _: iter((answers.pop(0),))) as images:
        job = song_of(keeper.store, (Clip("c", "succeeded", None, f"{keeper.links}/0.mp3", f"{images.url}/0"),))
        [first] = keeper.keep(job)
        [pending] = keeper.store.archive.pending()
        [second] = keeper.again(job)

    assert (first.archive, first.clips[0].archived_image) == (InArchive.PENDING, None)
    assert first.clips[0].archived_audio is not None
    assert (pending.tries, pending.reason) == (1, "image of the song c: HTTP 404")
    assert pending.due == keeper.clock.now
    assert second.archive is InArchive.DONE
    assert second.clips[0].archived_audio == first.clips[0].archived_audio


def test_a_claim_that_is_somebody_elses_by_now_writes_nothing(keeper: Keeper, tmp_path: Path) -> None:
    """Whoever was frozen in the middle of a file leaves what has become of it since."""
    job = keeper.song("c")

    class Frozen(Fetcher):
        def fetch(self, url: str, into: BinaryIO) -> Download:
            came = super().fetch(url, into)
            keeper.clock.now += 61
            keeper.store.archive.claim(job.id, "another", keeper.clock.now, lease=60)
            return came

    keep(replace(keeper.services, fetcher=Frozen(allowed=HERE, bounds=Bounds())), [job.id])

    assert lying_in(tmp_path) == {}
    assert one(keeper.store, job.id).clips[0].archived_audio is None
    assert one(keeper.store, job.id).archive is InArchive.PENDING


def test_a_claim_holds_as_long_as_somebody_is_at_it(keeper: Keeper, simulator: Simulator) -> None:
    """A slow file outlasts the time that a claim holds by itself, and is handed to nobody else."""
    simulator.turn(media_s=1.4)
    patience = replace(keeper.services.patience, lease_s=0.8)
    job = song_of(keeper.store, (Clip("c", "succeeded", None, f"{keeper.links}/0.mp3"),))
    handed_out = []

    with ThreadPoolExecutor(1) as thread:
        kept = thread.submit(keep, replace(keeper.services, patience=patience, clock=time.time), [job.id])
        eventually(lambda: simulator.ledger()["media"]["asked"])
        while not kept.done():
            handed_out += keeper.store.archive.hand_out(time.time(), patience=60)
            time.sleep(0.05)

    assert handed_out == []
    assert one(keeper.store, job.id).archive is InArchive.DONE


# ── not at all, or later ──────────────────────────────────────────────────────────────────────────


def test_songs_that_cannot_be_fetched_are_tried_for_days_and_then_kept_as_given_up(
    keeper: Keeper, simulator: Simulator
) -> None:
    """Each time after a longer while; then somebody may want it all the same."""
    simulator.turn(media_faults={"lost": 1})
    job = keeper.song("c", batch="b")
    began, waits = keeper.clock.now, []
    [job] = keeper.keep(job)
    while job.archive is InArchive.PENDING:
        before = keeper.clock.now
        [job] = keeper.again(job)
        waits.append(keeper.clock.now - before)

    assert waits[:5] == [30, 90, 270, 810, 2430]
    assert max(waits) == 3_600
    assert keeper.clock.now == pytest.approx(began + 86_400, abs=200)
    [given_up] = keeper.store.archive.failed()
    assert (given_up.job_id, given_up.batch, given_up.tries) == (job.id, "b", len(waits) + 1)
    assert given_up.reason == "audio of the song c: HTTP 404; image of the song c: HTTP 404"

    simulator.turn(media_faults={})
    assert keeper.store.archive.again([job.id], keeper.clock.now) == [True]
    assert keeper.keep(job)[0].archive is InArchive.DONE


def test_links_into_an_inner_network_are_given_up_at_once(keeper: Keeper, simulator: Simulator) -> None:
    """Asking again would lead to the same place; nothing of it is fetched."""
    simulator.turn(media_redirect="http://127.0.0.2:1/secret")
    [job] = keeper.keep(keeper.song("c"))
    [given_up] = keeper.store.archive.failed()

    assert job.archive is InArchive.FAILED
    assert "VOICEQUEUE_AUDIO_ALLOW does not name" in given_up.reason
    assert "secret" not in given_up.reason


def test_a_page_in_place_of_a_song_is_not_kept(keeper: Keeper, simulator: Simulator, tmp_path: Path) -> None:
    """Whatever the server calls it."""
    simulator.turn(media_faults={"page": 1})
    [job] = keeper.keep(keeper.song("c"))
    [pending] = keeper.store.archive.pending()

    assert job.archive is InArchive.PENDING
    assert "what came is no audio" in pending.reason
    assert lying_in(tmp_path) == {}


def test_a_song_that_failed_has_nothing_to_be_kept(keeper: Keeper) -> None:
    """The other one is."""
    clips = (
        Clip("bad", "failed", None, f"{keeper.links}/0.mp3"),
        Clip("good", "complete", None, f"{keeper.links}/1.mp3", ""),
    )
    [job] = keeper.keep(song_of(keeper.store, clips))

    assert job.archive is InArchive.DONE
    assert [clip.archived_audio is not None for clip in job.clips] == [False, True]


@pytest.mark.parametrize(
    "clip_id", ["../../../etc/cron.d/x", "/etc/passwd", "..", ".", "a/b", ".hidden", "a\nb", "é" * 300, "x" * 300]
)
def test_no_name_leaves_its_folder(keeper: Keeper, tmp_path: Path, clip_id: str) -> None:
    """Whatever upstream calls its songs."""
    [job] = keeper.keep(keeper.song(clip_id))

    folder = tmp_path / "songs" / "_" / job.id
    assert job.archive is InArchive.DONE
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder}
    lying = lying_in(folder)
    assert sorted(lying) == sorted(f"{safe(clip_id)}.{ending}" for ending in ("mp3", "png", "json"))
    assert {served(0, "mp3"), served(0, "png")} < set(lying.values())


def test_the_place_itself_takes_plain_names_alone(tmp_path: Path) -> None:
    """A second line, should the first one fail."""
    (tmp_path / "file").write_bytes(b"x")
    for name in ("..", "a/b", "", ".x"):
        with pytest.raises(ValueError, match="plain names"):
            Shelf.at(str(tmp_path / "songs")).put(tmp_path / "file", "b", name)


# ── the place ─────────────────────────────────────────────────────────────────────────────────────


def test_a_place_that_cannot_be_written_to_is_tried_again_later(keeper: Keeper, tmp_path: Path) -> None:
    """A full disk, a mount that is away; the reason names what the system says."""
    (tmp_path / "songs").write_text("a file where the folder should be")
    [job] = keeper.keep(keeper.song("c"))
    [pending] = keeper.store.archive.pending()

    assert job.archive is InArchive.PENDING
    assert "the archive cannot be written: " in pending.reason
    assert str(tmp_path) not in pending.reason


def test_a_machine_without_room_for_a_file_tries_again_later(
    keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary folder is full, or gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    [job] = keeper.keep(keeper.song("c"))
    [pending] = keeper.store.archive.pending()

    assert job.archive is InArchive.PENDING
    assert "it finds no room on this machine: No such file or directory" in pending.reason


def test_what_somebody_left_who_was_killed_is_cleared_away(keeper: Keeper, tmp_path: Path) -> None:
    """Half a file beside its place; one of another song that somebody is at stays."""
    job = keeper.song("c")
    folder = tmp_path / "songs" / "_" / job.id
    folder.mkdir(parents=True)
    (folder / ".c.mp3.0123abcd.part").write_bytes(b"half")
    (folder / ".other.mp3.0123abcd.part").write_bytes(b"half")

    keeper.keep(job)

    assert set(lying_in(folder)) == {"c.mp3", "c.png", "c.json", ".other.mp3.0123abcd.part"}


def test_spooled_files_of_the_dead_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that somebody holds, or has just made, are not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, held, new = (tmp_path / f"{SPOOLED}{name}" for name in ("dead", "held", "new"))
    other = tmp_path / "theirs"
    for path in (dead, held, new, other):
        path.touch()
    for path in (dead, held, other):
        os.utime(path, (1_000, 1_000))

    with held.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        sweep(new.stat().st_mtime + 1)

    assert set(tmp_path.iterdir()) == {held, new, other}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nothing-known://user:secret@host/x", "ValueError"),
        ("sftp://user:secret@host/x", "paramiko"),
        ("", "VOICEQUEUE_ARCHIVE is not set"),
    ],
)
def test_a_place_that_cannot_be_used_says_why_and_not_its_credentials(url: str, says: str) -> None:
    """An fsspec URL may hold them."""
    with pytest.raises(Unusable, match=says) as error:
        Shelf.at(url)

    assert "secret" not in str(error.value)


def test_links_carry_no_credentials() -> None:
    """Whatever else the URL names."""
    assert Shelf.at("memory://user:secret@songs/a?key=secret").link == "memory://songs/a"


def test_a_record_that_this_release_cannot_read_is_given_up(keeper: Keeper, valkey_url: str, prefix: str) -> None:
    """And does not come back for ever."""
    job = keeper.song("c")
    with connect(valkey_url) as redis:
        redis.hset(f"{{{prefix}}}:job:{job.id}", "clips", "not JSON")

    keep(keeper.services, [job.id])

    [given_up] = keeper.store.archive.failed()
    assert given_up.reason == "this release cannot read the job's record"
