"""The step behind `song.archive`: each song and cover of a job is fetched once, checked, and put where it stays.

A try may end at any point: what was put and recorded by then is not fetched again, the rest is.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from tasks.archive.downloader import Fetcher, NotFetched
from tasks.archive.file_types import ending
from tasks.archive.storage import Shelf, Unusable, safe
from voicequeue.domain import timeouts
from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.job import Job, Part
from voicequeue.domain.serialization import OF_UPSTREAM
from voicequeue.storage.archive import Archive, ArchiveClaim
from voicequeue.storage.clock import Clock
from voicequeue.storage.heartbeats import Pulses

log = logging.getLogger("voicequeue")

#: Where the jobs of no batch lie; no batch can have this name.
NO_BATCH = "_"

#: Files on their way are called so, and locked by whoever is at it; what a dead process left is removed.
SPOOLED = "voicequeue-song-"
_JUST_MADE_S = 60

#: Of what is not removed so many are named.
_NAMED_MAX = 5


@dataclass(frozen=True)
class ArchiveServices:
    """What one process archives with."""

    archive: Archive
    pulses: Pulses
    fetcher: Fetcher
    shelf: Shelf
    patience: timeouts.ArchivePatience
    #: The queue's time (voicequeue/storage/clock.py).
    clock: Clock


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file of a job that is still to be fetched."""

    clip: Clip
    part: Part
    url: str

    def __str__(self) -> str:
        return f"{self.part} of the song {self.clip.clip_id}"


def wanted(job: Job) -> list[Wanted]:
    """Audio and cover of each song that is there, less what is archived already."""
    found: dict[tuple[str, Part], Wanted] = {}
    for clip in job.clips:
        links = ((Part.AUDIO, clip.audio_url, clip.archived_audio), (Part.IMAGE, clip.image_url, clip.archived_image))
        for part, url, archived in links:
            if url and archived is None and clip.is_finished:
                found.setdefault((clip.clip_id, part), Wanted(clip, part, url))
    return list(found.values())


def keep(services: ArchiveServices, job_ids: Sequence[str]) -> None:
    """Try the songs of each of these jobs that are still to be archived."""
    for job_id in job_ids:
        try:
            _keep_job(services, job_id)
        except Exception as error:
            # It is due again when its claim has run out. Redis quotes what it was sent: the name must do.
            defect = not isinstance(error, RedisError)
            log.error("its songs: %s", type(error).__name__, exc_info=defect, extra={"job": job_id})


def _keep_job(services: ArchiveServices, job_id: str) -> None:
    holder = secrets.token_hex(8)
    claim = services.archive.claim(job_id, holder, services.clock(), lease=services.patience.lease_s)
    if claim is None:
        return
    try:
        job = claim.job()
    except ValueError as error:
        _give_up(services, claim, str(error))
        return
    with _held(services, claim):
        failures = [failure for each in wanted(job) if (failure := _try(services, claim, job, each)) is not None]
    _settle(services, claim, failures + missing(job))


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    for_good: bool = False
    after: float = 0.0


def missing(job: Job) -> list[_Failure]:
    """What keeps the job from being archived as a whole: songs of which upstream has given no link yet."""
    return [_Failure(f"song {clip.clip_id}: no link yet") for clip in job.clips if clip.is_missing]


def _try(services: ArchiveServices, claim: ArchiveClaim, job: Job, file: Wanted) -> _Failure | None:
    """Archive one file, and give what keeps it from that; None if all went well. Raises RedisError."""
    try:
        return _archive(services, claim, job, file)
    except NotFetched as error:
        return _Failure(f"{file}: {error}", error.for_good, error.after)
    except Unusable as error:
        return _Failure(f"{file}: {error}")
    except OSError as error:
        return _Failure(f"{file}: it finds no room on this machine: {os.strerror(error.errno or 0)}")
    except RedisError:
        raise
    except Exception as error:  # a defect of ours: it counts as a try, or it would be tried for ever
        log.exception("a defect", extra={"job": job.id})
        return _Failure(f"{file}: a defect of voicequeue: {type(error).__name__}")


def _archive(services: ArchiveServices, claim: ArchiveClaim, job: Job, file: Wanted) -> _Failure | None:
    """Bring one file from its link to its place and its record."""
    with _spooled() as spool:
        with spool.open("w+b") as into:
            came = services.fetcher.fetch(file.url, into)
        name = ending(file.part, came.beginning)
        if name is None:
            return _Failure(f"{file}: what came is no {file.part}")
        # A process that was frozen meanwhile must not overwrite what another one has put there since.
        if not services.archive.renew(claim, services.clock(), lease=services.patience.lease_s):
            return None
        folders = (safe(job.spec.batch or NO_BATCH), safe(job.id))
        link = services.shelf.put(spool, *folders, f"{safe(file.clip.clip_id)}.{name}")
    if file.part is Part.AUDIO:
        _put_beside(services.shelf, job, file.clip, *folders)
    kept = ArchivedFile(link, came.size, came.sha256)
    services.archive.kept(claim, file.clip.clip_id, file.part, kept, services.clock(), lease=services.patience.lease_s)
    return None


def _put_beside(shelf: Shelf, job: Job, clip: Clip, *folders: str) -> None:
    """All that is known of a song, as JSON beside its audio: it outlives the job's record."""
    with _spooled() as spool:
        spool.write_text(json.dumps(described(job, clip), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        shelf.put(spool, *folders, f"{safe(clip.clip_id)}.json")


def described(job: Job, clip: Clip) -> dict[str, Any]:
    """A song as upstream gave it, and the job that it is of."""
    spec = job.spec
    of_it = {"job": job.id, "key": spec.key, "batch": spec.batch, "name": spec.name, "metadata": spec.metadata}
    voice = {"persona_id": job.persona_id, "voice_name": job.voice_name}
    return {**of_it, **voice, **{field: getattr(clip, field) for field in OF_UPSTREAM}}


def _settle(services: ArchiveServices, claim: ArchiveClaim, failures: Sequence[_Failure]) -> None:
    now = services.clock()
    if not failures:
        services.archive.done(claim, now)
        log.info("archived", extra={"job": claim.job_id})
        return
    reason = "; ".join(failure.reason for failure in failures)
    after = max(failure.after for failure in failures)
    due = services.patience.next_try(claim.since, claim.tries + 1, now, at_least=after)
    if due is None or all(failure.for_good for failure in failures):
        _give_up(services, claim, reason)
    else:
        services.archive.later(claim, now, due, reason)


def _give_up(services: ArchiveServices, claim: ArchiveClaim, reason: str) -> None:
    if services.archive.give_up(claim, services.clock(), reason):
        log.warning("its songs are not archived: %s", reason, extra={"job": claim.job_id})


@contextmanager
def _held(services: ArchiveServices, claim: ArchiveClaim) -> Iterator[None]:
    """Nobody else takes the job meanwhile, however long a file takes; who is frozen or dead holds it no longer."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(services.patience.lease_s / 3):
            with suppress(RedisError):
                services.archive.renew(claim, services.clock(), lease=services.patience.lease_s)

    thread = threading.Thread(target=renew, name="archive claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _spooled() -> Iterator[Path]:
    """A file of one's own on this machine, for as long as the block lasts."""
    handle, name = tempfile.mkstemp(prefix=SPOOLED)
    file = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield file
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def sweep(now: float) -> None:
    """Remove what killed processes left on this machine.

    The folder is open to every user of the machine: what is no plain file there is none of ours, and stays.
    """
    strange = [file.name for file in sorted(Path(tempfile.gettempdir()).glob(f"{SPOOLED}*")) if not _swept(file, now)]
    if strange:
        log.warning("not removed, for these are no plain files: %r", strange[:_NAMED_MAX])


def _swept(file: Path, now: float) -> bool:
    """Remove a file that no process holds any more; False if it is no plain file."""
    with suppress(OSError):  # a process is writing it, it is another user's, or it is just gone
        if not stat.S_ISREG(file.lstat().st_mode):
            return False
        # By now it may be a pipe, which would be waited for, or a link, which leads elsewhere.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(held.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_mtime < now - _JUST_MADE_S:
                file.unlink()
    return True
