"""The step behind `song.archive`: download each song and cover of a job once, check it, and store a copy.

An attempt may be interrupted at any point. Files recorded by then are not downloaded again.
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

from tasks.archive.downloader import Downloader, DownloadFailed
from tasks.archive.file_types import file_extension
from tasks.archive.storage import ArchiveStorage, ArchiveStorageError, safe_name
from voicequeue.domain import timeouts
from voicequeue.domain.clip import ArchivedFile, Clip
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import split
from voicequeue.domain.serialization import UPSTREAM_CLIP_FIELDS
from voicequeue.domain.states import ClipPart
from voicequeue.storage.archive import ArchiveClaim, ArchiveOutbox
from voicequeue.storage.connection.clock import Clock
from voicequeue.storage.erasure import Erasure
from voicequeue.storage.heartbeats import Heartbeats

log = logging.getLogger("voicequeue")

#: The folder of jobs without a batch; no batch can have this name.
NO_BATCH = "_"

#: Prefix of temporary files. The process that uses one holds a lock on it; unlocked ones are removed by
#: `remove_stale_files`.
TEMPORARY_PREFIX = "voicequeue-song-"

#: Files younger than this (seconds) are never removed: they may not be locked yet.
_MIN_AGE_S = 60

#: At most this number of files is named in the warning about those that are not removed.
_NAMED_MAX = 5


@dataclass(frozen=True)
class ArchiveServices:
    """The dependencies of archiving, one set per process."""

    archive: ArchiveOutbox
    heartbeats: Heartbeats
    downloader: Downloader
    storage: ArchiveStorage
    timeouts: timeouts.ArchiveTimeouts
    #: The queue's time (voicequeue/storage/connection/clock.py).
    clock: Clock
    #: Jobs whose files are to be deleted.
    erasure: Erasure | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """One file of a job that is not archived yet."""

    clip: Clip
    part: ClipPart
    url: str

    def __str__(self) -> str:
        return f"{self.part} of the song {self.clip.clip_id}"


def _unarchived(job: Job) -> list[_File]:
    """Return the audio and cover files of the job's finished songs that are not archived."""
    files: dict[tuple[str, ClipPart], _File] = {}
    for clip in job.clips:
        links = (
            (ClipPart.AUDIO, clip.audio_url, clip.archived_audio),
            (ClipPart.IMAGE, clip.image_url, clip.archived_image),
        )
        for part, url, archived in links:
            if url and archived is None and clip.is_finished:
                files.setdefault((clip.clip_id, part), _File(clip, part, url))
    return list(files.values())


def archive_jobs(services: ArchiveServices, job_ids: Sequence[str]) -> None:
    """Archive the songs of each of these jobs that can be claimed."""
    for job_id in job_ids:
        try:
            _archive_job(services, job_id)
        except Exception as error:
            # The job is due again when its claim expires. Redis errors can quote the data: log the type only.
            is_defect = not isinstance(error, RedisError)
            log.error("archiving failed: %s", type(error).__name__, exc_info=is_defect, extra={"job": job_id})


def _archive_job(services: ArchiveServices, job_id: str) -> None:
    holder = secrets.token_hex(8)
    claim = services.archive.claim(job_id, holder, services.clock(), lease_s=services.timeouts.lease_s)
    if claim is None:
        return
    try:
        job = claim.job()
    except ValueError as error:
        _give_up(services, claim, str(error))
        return
    with _renewed(services, claim):
        attempts = [_attempt(services, claim, job, file) for file in _unarchived(job)]
    failures = [failure for failure in attempts if failure is not None]
    _finish(services, claim, failures + _missing_links(job))


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    is_permanent: bool = False
    retry_after_s: float = 0.0


def _missing_links(job: Job) -> list[_Failure]:
    """Return a failure for each song that upstream has not given a link for."""
    return [_Failure(f"song {clip.clip_id}: no link yet") for clip in job.clips if clip.is_missing]


def _attempt(services: ArchiveServices, claim: ArchiveClaim, job: Job, file: _File) -> _Failure | None:
    """Archive one file; return None or the failure. Raises RedisError."""
    try:
        return _archive_file(services, claim, job, file)
    except DownloadFailed as error:
        return _Failure(f"{file}: {error}", error.is_permanent, error.retry_after_s)
    except ArchiveStorageError as error:
        return _Failure(f"{file}: {error}")
    except OSError as error:
        return _Failure(f"{file}: cannot write a temporary file: {os.strerror(error.errno or 0)}")
    except RedisError:
        raise
    except Exception as error:  # a defect counts as an attempt; otherwise it would be retried forever
        log.exception("a defect", extra={"job": job.id})
        return _Failure(f"{file}: a defect of voicequeue: {type(error).__name__}")


def _archive_file(services: ArchiveServices, claim: ArchiveClaim, job: Job, file: _File) -> _Failure | None:
    """Download the file, store it, and record it."""
    with _temporary_file() as path:
        with path.open("w+b") as into:
            download = services.downloader.download(file.url, into)
        extension = file_extension(file.part, download.head)
        if extension is None:
            return _Failure(f"{file}: the downloaded file is not of type {file.part}")
        # If this process was suspended meanwhile, it must not overwrite what another worker has stored since.
        if not services.archive.renew(claim, services.clock(), lease_s=services.timeouts.lease_s):
            return None
        folders = job_folders(job.id, job.namespace, job.spec.batch)
        url = services.storage.put(path, *folders, f"{safe_name(file.clip.clip_id)}.{extension}")
    if file.part is ClipPart.AUDIO:
        _store_description(services.storage, job, file.clip, *folders)
    archived = ArchivedFile(url, download.size, download.sha256)
    now, lease_s = services.clock(), services.timeouts.lease_s
    is_recorded = services.archive.record_file(claim, file.clip.clip_id, file.part, archived, now, lease_s=lease_s)
    if not is_recorded and not services.archive.has_job(job.id):  # it was erased meanwhile
        services.storage.remove_folder(*folders)
    return None


def job_folders(job_id: str, namespace: str, batch: str | None) -> tuple[str, ...]:
    """Return the folders of the files of a job."""
    owner = (safe_name(namespace),) if namespace else ()
    return (*owner, safe_name(batch or NO_BATCH), safe_name(job_id))


def delete_erased(services: ArchiveServices) -> None:
    """Delete the files of erased jobs. What cannot be deleted now is tried again by the next call."""
    if services.erasure is None:
        return
    for files in services.erasure.files_due(services.clock()):
        namespace, batch = split(files.batch)
        try:
            services.storage.remove_folder(*job_folders(files.job_id, namespace, batch))
        except ArchiveStorageError as error:
            log.warning("archived files not deleted: %s", error, extra={"job": files.job_id})
            continue
        services.erasure.files_deleted(files)


def _store_description(storage: ArchiveStorage, job: Job, clip: Clip, *folders: str) -> None:
    """Store the song's metadata as JSON beside its audio; it outlives the job's record."""
    with _temporary_file() as path:
        path.write_text(json.dumps(_description(job, clip), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        storage.put(path, *folders, f"{safe_name(clip.clip_id)}.json")


def _description(job: Job, clip: Clip) -> dict[str, Any]:
    """Return the song's fields as upstream gave them, with those of its job."""
    spec = job.spec
    origin = {
        "job": job.id,
        "namespace": job.namespace,
        "key": spec.key,
        "batch": spec.batch,
        "name": spec.name,
        "metadata": spec.metadata,
    }
    voice = {"persona_id": job.persona_id, "voice_name": job.voice_name}
    return {
        **origin,
        "source_row": job.source_row,
        **voice,
        **{field: getattr(clip, field) for field in UPSTREAM_CLIP_FIELDS},
    }


def _finish(services: ArchiveServices, claim: ArchiveClaim, failures: Sequence[_Failure]) -> None:
    now = services.clock()
    if not failures:
        services.archive.mark_done(claim, now)
        log.info("archived", extra={"job": claim.job_id})
        return
    reason = "; ".join(failure.reason for failure in failures)
    retry_after_s = max(failure.retry_after_s for failure in failures)
    due = services.timeouts.next_attempt_at(claim.since, claim.attempts + 1, now, min_delay_s=retry_after_s)
    if due is None or all(failure.is_permanent for failure in failures):
        _give_up(services, claim, reason)
    else:
        services.archive.schedule_retry(claim, now, due, reason)


def _give_up(services: ArchiveServices, claim: ArchiveClaim, reason: str) -> None:
    if services.archive.mark_failed(claim, services.clock(), reason):
        log.warning("songs not archived: %s", reason, extra={"job": claim.job_id})


@contextmanager
def _renewed(services: ArchiveServices, claim: ArchiveClaim) -> Iterator[None]:
    """Renew the claim within the block, however long a download takes; a suspended or killed process stops renewing."""
    is_over = threading.Event()

    def renew() -> None:
        while not is_over.wait(services.timeouts.lease_s / 3):
            with suppress(RedisError):
                services.archive.renew(claim, services.clock(), lease_s=services.timeouts.lease_s)

    thread = threading.Thread(target=renew, name="archive claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _temporary_file() -> Iterator[Path]:
    """Create a locked temporary file, and remove it after the block."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX)
    path = Path(name)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def remove_stale_files(now: float) -> None:
    """Remove temporary files of killed processes on this machine.

    Any user can write to the folder: entries that are not regular files are not ours, and stay.
    """
    paths = sorted(Path(tempfile.gettempdir()).glob(f"{TEMPORARY_PREFIX}*"))
    if foreign := [path.name for path in paths if not _remove_stale(path, now)]:
        log.warning("temporary files not removed, because they are not regular files: %r", foreign[:_NAMED_MAX])


def _remove_stale(path: Path, now: float) -> bool:
    """Remove a file that no process locks; return False if it is not a regular file."""
    with suppress(OSError):  # another process writes it or has just removed it, or it belongs to another user
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        # Another user may replace it with a pipe, which would block, or with a link to another file.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mtime < now - _MIN_AGE_S:
                path.unlink()
    return True
