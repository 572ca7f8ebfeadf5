"""Erasing persons: a plan shows what is concerned, then its token erases it and returns a certificate."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from urllib.parse import urlsplit

from voicequeue.client import cancelling, search
from voicequeue.client.audited import audited
from voicequeue.client.bulk_operations import MAX_JOBS, TOKEN_TTL_S
from voicequeue.client.reading import ReadMethods
from voicequeue.client.search import CHUNK, Filter
from voicequeue.domain import transitions
from voicequeue.domain.erasure import ErasureCertificate, ErasurePlan
from voicequeue.domain.job import Job
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State
from voicequeue.errors import InvalidJobError, PlanNotFoundError, Problem
from voicequeue.storage.connection.errors import translated_errors
from voicequeue.storage.connection.recorded_change import amend
from voicequeue.storage.job_store import JobStore

_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)
_ACTION = "erase"


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
    def allow_erased(self, *, key: str | None = None, audio_url: str | None = None) -> int:
        """Allow an erased key or recording to be ordered again, and return how many were erased.

        Args:
            key: The idempotency key.
            audio_url: URL of the recording.
        """
        amend(namespace=self._store.scope.target)
        names = []
        if key is not None:
            spec = VoiceJob(audio_url="https://recordings.invalid/a.wav", key=key)
            names += self._store.job_ids.look_up([spec])
        if audio_url is not None:
            names.append(VoiceJob(audio_url=audio_url).recording_voice(self._store.scope.target))
        with translated_errors():
            return self._store.erasure.forget_tombstones(names)


def _plan(store: JobStore, job_filter: Filter, now: float) -> ErasurePlan:
    matching = search.iter_matching(store, job_filter)
    jobs = list({job.id: job for job in islice(matching, MAX_JOBS)}.values())
    token = secrets.token_urlsafe(16)
    header = {"action": _ACTION, "namespace": store.scope.namespace, "metadata": dict(job_filter.metadata)}
    store.indexes.store_plan(token, [json.dumps(header), *(job.id for job in jobs)], ttl_s=TOKEN_TTL_S)
    uncertain = [job for job in jobs if job.state in transitions.ONLY_MARKABLE]
    open_orders = [job for job in jobs if job.state is State.PENDING or job.may_have_late_result]
    return ErasurePlan(
        token=token,
        jobs_by_state=dict(Counter(str(job.state) for job in jobs)),
        songs=sum(len(job.clips) for job in jobs),
        archived_files=_archived_files(jobs),
        personas=len({job.persona_id for job in jobs if job.persona_id and not job.spec.persona_id}),
        callbacks=len(store.erasure.callback_ids([job.id for job in jobs])),
        rejected_messages=len(store.erasure.rejected_lines(job_filter.metadata, _urls(jobs))),
        sharing_jobs=store.erasure.count_sharing(jobs),
        uncertain=len(uncertain),
        credits_in_flight=sum(PRICES[job.stage] for job in (*uncertain, *open_orders)),
        expires_at=now + TOKEN_TTL_S,
        is_complete=next(matching, None) is None,
    )


def _execute(store: JobStore, token: str, actor: str, now: float) -> ErasureCertificate:
    lines = store.indexes.plan_lines(token) if _TOKEN.fullmatch(token) else iter(())
    plan = json.loads(next(lines, "{}"))
    is_own = store.scope.is_all or plan.get("namespace") == store.scope.namespace
    if plan.get("action") != _ACTION or not is_own:
        raise PlanNotFoundError
    job_ids = list(lines)
    amend(namespace=plan["namespace"], details={"metadata": ", ".join(plan["metadata"])}, jobs=len(job_ids))
    listed = [job for start in range(0, len(job_ids), CHUNK) for job in store.get(job_ids[start : start + CHUNK])]
    jobs = [job for job in listed if job is not None]
    if len(owners := {job.namespace for job in jobs}) == 1:
        amend(namespace=owners.pop())
    rejected = store.erasure.rejected_lines(plan["metadata"], _urls(jobs))
    store.erasure.delete_rejected(rejected)
    cancelling.cancel(store, [job for job in jobs if transitions.can_be_cancelled(job)], now)
    erased = store.erasure.erase(job_ids, now)
    store.erasure.delete_plan(token)
    return ErasureCertificate(
        at=now,
        actor=actor,
        namespace=plan["namespace"],
        jobs=tuple(store.erasure.tombstones(erased.job_ids)),
        pending=len(erased.pending_ids),
        callbacks=erased.callbacks,
        rejected_messages=len(rejected),
        events=erased.events,
        audit_entries=erased.audit_entries,
        archived_files=_archived_files(jobs),
        callback_hosts=_callback_hosts(jobs),
        upstream_ids=_upstream_ids(jobs),
    )


def _archived_files(jobs: Sequence[Job]) -> int:
    files = (file for job in jobs for clip in job.clips for file in (clip.archived_audio, clip.archived_image))
    return sum(file is not None for file in files)


def _urls(jobs: Sequence[Job]) -> set[str]:
    return {job.spec.audio_url for job in jobs if job.spec.audio_url}


def _callback_hosts(jobs: Sequence[Job]) -> tuple[str, ...]:
    urls = (job.spec.callback_url for job in jobs)
    return tuple(sorted({urlsplit(str(url)).hostname or "" for url in urls if url}))


def _upstream_ids(jobs: Sequence[Job]) -> tuple[str, ...]:
    personas = {job.persona_id for job in jobs if job.persona_id}
    tasks = {task for job in jobs for task in job.charged_task_ids.values() if task}
    return tuple(sorted(personas | tasks))
