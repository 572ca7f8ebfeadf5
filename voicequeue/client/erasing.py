"""Erasing persons: a plan shows what is concerned, then its token erases it and returns a certificate."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from voicequeue.client import cancelling, search
from voicequeue.client.audited import audited
from voicequeue.client.bulk_operations import MAX_JOBS, TOKEN_TTL_S
from voicequeue.client.reading import ReadMethods
from voicequeue.client.search import CHUNK, Filter
from voicequeue.domain import transitions
from voicequeue.domain.erasure import ErasureCertificate, ErasurePlan
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import qualify
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State
from voicequeue.errors import InvalidJobError, PlanNotFoundError, Problem
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend
from voicequeue.storage.erasure import ERASE, Erased
from voicequeue.storage.job_store import JobStore

_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)

#: How long the certificate of an executed plan can be read again (seconds).
CERTIFICATE_TTL_S = 86_400


class EraseMethods(ReadMethods):
    """Methods of `VoiceQueue` that erase persons."""

    def plan_erasure(self, metadata: Mapping[str, str]) -> ErasurePlan:
        """Return what an erasure of all jobs with these metadata concerns; change nothing.

        Args:
            metadata: Names and values that all have to match, such as `{"subject": "42"}`.

        Raises:
            InvalidJobError: `metadata` is empty or invalid.
        """
        if not metadata or not all(metadata.values()):
            raise InvalidJobError([Problem("metadata", "name at least one, with its value, such as subject=42")])
        job_filter = Filter(metadata=dict(metadata))
        with translated_errors():
            return _plan(self._store, job_filter, self._now())

    @audited
    def erase(self, token: str) -> ErasureCertificate:
        """Erase what a plan lists, and return a certificate. May be repeated with the same token after an error.

        The certificate, with the ids at upstream, is returned again by the same token for a day.

        Jobs in flight are cancelled first. Those that are `charging` or `unsure` are erased by the workers once the
        outcome of their order is known. Keys and recordings of erased jobs are not ordered again.

        Args:
            token: The token of the plan.

        Raises:
            PlanNotFoundError: No plan has this token, or it has expired.
        """
        with translated_errors():
            return _execute(self._store, token, self._actor.name, self._now())

    @audited
    def allow_erased(
        self, *, key: str | None = None, audio_url: str | None = None, audio_sha256: str | None = None
    ) -> int:
        """Allow an erased key or recording to be ordered again in the client's namespace; return how many were erased.

        A client of all namespaces acts in the default one.

        Args:
            key: The idempotency key.
            audio_url: URL of the recording.
            audio_sha256: SHA-256 of the recording, if its jobs named it: it is erased besides the URL.
        """
        amend(namespace=self._store.scope.target)
        names = []
        if key is not None:
            spec = VoiceJob(audio_url="https://recordings.invalid/a.wav", key=key)
            names += self._store.job_ids.look_up([spec])
        if audio_url is not None:
            names.append(VoiceJob(audio_url=audio_url).recording_voice(self._store.scope.target))
        if audio_sha256 is not None:
            names.append(qualify(self._store.scope.target, f"sha256-{audio_sha256.lower()}"))
        with translated_errors():
            return self._store.erasure.forget_tombstones(names)


def _plan(store: JobStore, job_filter: Filter, now: float) -> ErasurePlan:
    matching = search.iter_matching(store, job_filter)
    jobs = list({job.id: job for job in islice(matching, MAX_JOBS)}.values())
    token = secrets.token_urlsafe(16)
    rejected = store.erasure.rejected(job_filter.metadata, jobs)
    header = _Header(store.scope.namespace, sorted(job_filter.metadata), rejected)
    lines = [json.dumps(asdict(header)), *(job.id for job in jobs)]
    store.indexes.store_plan(token, lines, ttl_s=TOKEN_TTL_S)
    uncertain = [job for job in jobs if job.state in transitions.ONLY_MARKABLE]
    open_orders = [job for job in jobs if job.state is State.PENDING or job.may_have_late_result]
    return ErasurePlan(
        token=token,
        jobs_by_state=dict(Counter(str(job.state) for job in jobs)),
        songs=sum(len(job.clips) for job in jobs),
        archived_files=_archived_files(jobs),
        personas=len({job.persona_id for job in jobs if job.persona_id and not job.spec.persona_id}),
        callbacks=len(store.erasure.callback_ids([job.id for job in jobs])),
        rejected_messages=sum(map(len, rejected.values())),
        sharing_jobs=store.erasure.count_sharing(jobs),
        uncertain=len(uncertain),
        credits_in_flight=sum(PRICES[job.stage] for job in (*uncertain, *open_orders)),
        expires_at=now + TOKEN_TTL_S,
        is_complete=next(matching, None) is None,
    )


@dataclass(frozen=True, slots=True)
class _Header:
    """The first line of a stored plan. It contains no text of the person; what the jobs have, from its execution on.

    Attributes:
        namespace: Namespace of the plan; `*`: all.
        metadata: Names of the metadata, without their values.
        rejected: Hashes of rejected messages by namespace.
        archived_files: Number of archived files.
        callback_hosts: Hosts that may have received callbacks.
        upstream_ids: Personas and tasks at upstream.
        action: Distinguishes it from plans of other changes.
        certificate: The result, once it has been executed.
    """

    namespace: str
    metadata: Sequence[str]
    rejected: Mapping[str, Sequence[str]]
    archived_files: int = 0
    callback_hosts: Sequence[str] = ()
    upstream_ids: Sequence[str] = ()
    action: str = ERASE
    certificate: Mapping[str, Any] | None = None

    def with_jobs(self, jobs: Sequence[Job]) -> _Header:
        """Return the header with what these jobs have now; an earlier attempt may have erased others."""
        return replace(
            self,
            archived_files=max(self.archived_files, _archived_files(jobs)),
            callback_hosts=sorted({*self.callback_hosts, *_callback_hosts(jobs)}),
            upstream_ids=sorted({*self.upstream_ids, *_upstream_ids(jobs)}),
        )


def _read(store: JobStore, token: str) -> tuple[_Header, list[str]]:
    """Return the header of a plan and the ids of its jobs. Raises PlanNotFoundError."""
    lines = store.indexes.plan_lines(token) if _TOKEN.fullmatch(token) else iter(())
    header = json.loads(next(lines, "{}"))
    is_own = store.scope.is_all or header.get("namespace") == store.scope.namespace
    if header.get("action") != ERASE or not is_own:
        raise PlanNotFoundError
    return _Header(**header), list(lines)


def _execute(store: JobStore, token: str, actor: str, now: float) -> ErasureCertificate:
    plan, job_ids = _read(store, token)
    if plan.certificate is not None:
        return ErasureCertificate.from_stored(plan.certificate)
    amend(namespace=plan.namespace, details={"metadata": ", ".join(plan.metadata)}, jobs=len(job_ids))
    listed = [job for start in range(0, len(job_ids), CHUNK) for job in store.get(job_ids[start : start + CHUNK])]
    jobs = [job for job in listed if job is not None]
    if len(owners := {job.namespace for job in jobs} | set(plan.rejected)) == 1:
        amend(namespace=owners.pop())
    plan = plan.with_jobs(jobs)
    store.indexes.replace_header(token, json.dumps(asdict(plan)))
    store.erasure.delete_rejected(plan.rejected)
    cancelling.cancel(store, [job for job in jobs if transitions.can_be_cancelled(job)], now)
    certificate = _certificate(plan, store, store.erasure.erase(job_ids, now), actor, now)
    result = replace(plan, rejected={}, certificate=asdict(certificate))
    store.indexes.finish_plan(token, json.dumps(asdict(result)), ttl_s=CERTIFICATE_TTL_S)
    return certificate


def _certificate(plan: _Header, store: JobStore, erased: Erased, actor: str, now: float) -> ErasureCertificate:
    return ErasureCertificate(
        at=now,
        actor=actor,
        namespace=plan.namespace,
        jobs=tuple(store.erasure.tombstones(erased.job_ids)),
        pending=len(erased.pending_ids),
        callbacks=erased.callbacks,
        rejected_messages=sum(map(len, plan.rejected.values())),
        events=erased.events,
        audit_entries=erased.audit_entries,
        audit_entries_left=erased.audit_entries_left,
        archived_files=plan.archived_files,
        callback_hosts=tuple(plan.callback_hosts),
        upstream_ids=tuple(plan.upstream_ids),
    )


def _archived_files(jobs: Sequence[Job]) -> int:
    files = (file for job in jobs for clip in job.clips for file in (clip.archived_audio, clip.archived_image))
    return sum(file is not None for file in files)


def _callback_hosts(jobs: Sequence[Job]) -> set[str]:
    urls = (job.spec.callback_url for job in jobs)
    return {urlsplit(str(url)).hostname or "" for url in urls if url}


def _upstream_ids(jobs: Sequence[Job]) -> set[str]:
    # A voice that a job only named may be used by others, and was not made from the person's recording for it.
    personas = {job.persona_id for job in jobs if job.persona_id and not job.spec.persona_id}
    return personas | {task for job in jobs for task in job.charged_task_ids.values() if task}
