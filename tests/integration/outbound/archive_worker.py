"""An archive worker as plain objects, with files from the simulator and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simulator.process import Simulator
from simulator.server.media import build_file
from tasks.archive.downloader import Downloader, DownloadLimits
from tasks.archive.storage import ArchiveStorage
from tasks.archive.task import ArchiveServices, archive_jobs
from tests.integration.conftest import Clock
from tests.store.life import NOW, assert_consistent, get_job, job_with_song
from voicequeue import Clip, Job
from voicequeue.domain.timeouts import ArchiveTimeouts
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.storage.connection.client import connect
from voicequeue.storage.job_store import JobStore

ALLOWED = AddressPolicy.parse("127.0.0.1", setting="VOICEQUEUE_AUDIO_ALLOWED_HOSTS")

#: The size of the simulator's files.
SIZE = 16_000


@contextmanager
def archiving_store(valkey_url: str, prefix: str) -> Iterator[JobStore]:
    """Connect to a store that schedules songs for archiving; check its consistency after the block."""
    with connect(valkey_url) as client:
        yield JobStore(client, prefix, archives=True)
        assert_consistent(client, prefix)


@dataclass(frozen=True)
class ArchiveWorker:
    """One process that archives songs; `links` is the base URL of the simulator's files."""

    services: ArchiveServices
    store: JobStore
    clock: Clock
    links: str

    @classmethod
    def build(cls, store: JobStore, simulator: Simulator, folder: Path) -> ArchiveWorker:
        """Build a worker that archives into the folder."""
        simulator.set_dials(media_bytes=SIZE)
        clock = Clock(NOW + 60)
        timeouts = ArchiveTimeouts(backoff_initial_s=30, backoff_max_s=3_600, give_up_after_s=86_400, lease_s=60)
        downloader, storage = Downloader(allowed=ALLOWED, bounds=DownloadLimits()), ArchiveStorage.from_url(str(folder))
        services = ArchiveServices(store.archive, store.heartbeats["archive"], downloader, storage, timeouts, clock)
        return cls(services, store, clock, f"{simulator.api_url}/media")

    def song(self, *clip_ids: str, **fields: Any) -> Job:
        """Create a job with finished songs."""
        clips = tuple(
            Clip(clip_id, "succeeded", "T", f"{self.links}/{number}.mp3", f"{self.links}/{number}.png", 60.0)
            for number, clip_id in enumerate(clip_ids)
        )
        return job_with_song(self.store, clips, **fields)

    def archive(self, *jobs: Job) -> list[Job]:
        """Run the task `song.archive`; return the jobs after it."""
        archive_jobs(self.services, [job.id for job in jobs])
        return [get_job(self.store, job.id) for job in jobs]

    def archive_when_due(self, *jobs: Job) -> list[Job]:
        """Set the clock to the next attempt, and run the task."""
        self.clock.now = max(entry.due_at or 0.0 for entry in self.store.archive.pending())
        return self.archive(*jobs)

    def with_storage(self, storage: ArchiveStorage) -> ArchiveWorker:
        """Return the same worker with another storage."""
        return replace(self, services=replace(self.services, storage=storage))


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file below the folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def served(number: int, suffix: str) -> bytes:
    """Return the simulator's file behind a link."""
    return build_file(str(number), suffix, SIZE).body
