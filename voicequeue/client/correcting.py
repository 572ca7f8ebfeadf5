"""Correcting the recording of a failed job: its URL changes, its key stays, and nothing is paid twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice

from voicequeue.domain import transitions
from voicequeue.domain.job import Job
from voicequeue.domain.spec import VoiceJob, is_named_voice, recording_url
from voicequeue.domain.states import State
from voicequeue.errors import ErasedError, InvalidStateError, check_field
from voicequeue.ingest.links import LinkChecker
from voicequeue.net.address_policy import AddressPolicy
from voicequeue.storage.job_store import JobStore
from voicequeue.storage.recordings import CorrectedJob

#: The number of jobs that are read or written by one call.
_PAGE = 500

#: States of a job that may follow a correction, because no order for its voice was sent.
_FOLLOWING = (State.FAILED, State.WAITING, State.QUEUED)


def correct_recording(
    store: JobStore, job: Job, audio_url: str, now: float, *, source: str, allowed_hosts: str | None = None
) -> bool:
    """Give a failed job another recording, and with it all jobs that share its voice by name.

    Return False if one of them has changed meanwhile: then read the job and call again. `allowed_hosts`: the hosts
    whose links are not judged; None: as the environment names them. Raises InvalidJobError, InvalidStateError,
    ErasedError.
    """
    url = check_field("audio_url", partial(_usable_url, allowed_hosts, now), audio_url.strip())
    transitions.require_correctable(job)
    if True in store.erasure.are_erased([VoiceJob(audio_url=url).recording_voice(job.namespace)]):
        raise ErasedError
    if job.spec.audio_url == url:
        return True
    jobs = [job, *(other for other in _sharing_by_name(store, job) if other.spec.audio_url != url)]
    reason = f"audio_url corrected by {source}"
    for start in range(0, len(jobs), _PAGE):
        page = [_corrected(sharing_job, url) for sharing_job in jobs[start : start + _PAGE]]
        if not all(store.recordings.correct(page, now, reason=reason)):
            return False
    return True


def _usable_url(allowed_hosts: str | None, now: float, text: str) -> str:
    """Return the URL if `ingest` would accept it, too. Raises ValueError."""
    from voicequeue.ingest.preflight import ALLOWED_HOSTS_SETTING  # noqa: PLC0415  most commands correct nothing

    url = recording_url(_lower_scheme(text))
    allowed = os.environ.get(ALLOWED_HOSTS_SETTING, "") if allowed_hosts is None else allowed_hosts
    checker = LinkChecker(AddressPolicy.parse(allowed, setting=ALLOWED_HOSTS_SETTING), lambda: now)
    finding = checker.check(url)
    if finding is not None and finding.is_certain:
        raise ValueError(finding.sentence)
    return url


def _lower_scheme(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    return f"{scheme.lower()}://{rest}" if separator and scheme.lower() == "s3" else text


def _corrected(job: Job, url: str) -> CorrectedJob:
    """Return the job with its new recording. The hash was that of the old one, so the voice is shared by URL."""
    spec = job.spec.copy_unchecked(audio_url=url, audio_sha256=None)
    voice, recording = job.shared_voice or "", spec.recording_voice(job.namespace)
    shared_voice = recording if voice and not is_named_voice(voice) else voice
    return CorrectedJob(job.id, job.version, spec, shared_voice, recording)


def _sharing_by_name(store: JobStore, job: Job) -> list[Job]:
    """Return the other jobs that need the same named voice. Raises InvalidStateError if it was ordered for one."""
    if job.shared_voice is None or not is_named_voice(job.shared_voice):
        return []
    voice = store.recordings.named_voice(job.shared_voice)
    if voice.persona_id is not None:
        raise InvalidStateError(f"the voice of job {job.id} exists already: a retry uses it, and needs no recording")
    if voice.creator is not None and voice.creator != job.id:
        [creator] = store.get([voice.creator])
        if creator is not None and creator.state not in _FOLLOWING:
            raise InvalidStateError(
                f"job {creator.id} is {creator.state} and creates the voice of job {job.id}; wait until it has ended"
            )
    if voice.jobs <= 1:
        return []
    return list(islice(_needing(store, job), voice.jobs - 1))


def _needing(store: JobStore, job: Job) -> Iterator[Job]:
    for state in _FOLLOWING:
        job_ids = store.list_ids(state=state, batch=job.qualified_batch if job.spec.batch else None)
        while page := list(islice(job_ids, _PAGE)):
            for other in store.get(page):
                if other is not None and other.id != job.id and _needs_same_voice(other, job):
                    transitions.require_unordered(other)
                    yield other


def _needs_same_voice(other: Job, job: Job) -> bool:
    return other.shared_voice == job.shared_voice and other.stage is job.stage
