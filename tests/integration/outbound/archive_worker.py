"""An archive worker as plain objects, with files from the simulator and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.process import Simulator
from simulator.server.media import file_of
from tasks.archive.downloader import Bounds, Fetcher
from tasks.archive.storage import Shelf
from tasks.archive.task import ArchiveServices, keep
from tests.integration.conftest import Clock
from tests.store.life import NOW, everything_agrees, one, song_of
from voicequeue import Clip, Job
from voicequeue.domain.timeouts import ArchivePatience
from voicequeue.net.address_policy import Allowed
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import Store

ALLOWED = Allowed.of("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOW")

#: The size of the simulator's files.
SIZE = 16_000


@contextmanager
def archiving_store(valkey_url: str, prefix: str) -> Iterator[Store]:
    """Connect to a store that schedules songs for archiving; check its consistency after the block."""
    with connect(valkey_url) as client:
        yield Store(client, prefix, archives=True)
        everything_agrees(client, prefix)


@dataclass(frozen=True)
class ArchiveWorker:
    """One process that archives songs; `links` is the base URL of the simulator's files."""

    services: ArchiveServices
    store: Store
    clock: Clock
    links: str

    @classmethod
    def build(cls, store: Store, simulator: Simulator, folder: Path) -> ArchiveWorker:
        """Build a worker that archives into the folder."""
        simulator.turn(media_bytes=SIZE)
        clock = Clock(NOW + 60)
        timeouts = ArchivePatience(first_s=30, most_s=3_600, for_s=86_400, lease_s=60)
        fetcher, shelf = Fetcher(allowed=ALLOWED, bounds=Bounds()), Shelf.at(str(folder))
        services = ArchiveServices(store.archive, store.pulses["archive"], fetcher, shelf, timeouts, clock)
        return cls(services, store, clock, f"{simulator.api_url}/media")

    def song(self, *clip_ids: str, **fields: Any) -> Job:
        """Create a job with finished songs."""
        clips = tuple(
            Clip(clip_id, "succeeded", "T", f"{self.links}/{number}.mp3", f"{self.links}/{number}.png", 60.0)
            for number, clip_id in enumerate(clip_ids)
        )
        return song_of(self.store, clips, **fields)

    def archive(self, *jobs: Job) -> list[Job]:
        """Run the task `song.archive`; return the jobs after it."""
        keep(self.services, [job.id for job in jobs])
        return [one(self.store, job.id) for job in jobs]

    def archive_when_due(self, *jobs: Job) -> list[Job]:
        """Set the clock to the next attempt, and run the task."""
        self.clock.now = max(entry.due or 0.0 for entry in self.store.archive.pending())
        return self.archive(*jobs)

    def with_storage(self, shelf: Shelf) -> ArchiveWorker:
        """Return the same worker with another storage."""
        return replace(self, services=replace(self.services, shelf=shelf))


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file below the folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def served(number: int, suffix: str) -> bytes:
    """Return the simulator's file behind a link."""
    return file_of(str(number), suffix, SIZE).body
