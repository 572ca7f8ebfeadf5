"""Previews of enqueueing: the outcome of each job, computed without writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1

from voicequeue.domain.budgets import ACCOUNT, period_ends
from voicequeue.domain.namespaces import qualify
from voicequeue.domain.spec import VoiceJob, is_named_voice
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import (
    CONSENT_REQUIRED,
    BudgetExceededError,
    ErasedError,
    InvalidJobError,
    KeyConflictError,
    Problem,
    VoiceQueueError,
)
from voicequeue.storage.connection.clock import RedisClock
from voicequeue.storage.connection.keyspace import Keyspace, rows
from voicequeue.storage.erasure import Erasure
from voicequeue.storage.job_ids import JobIds


@dataclass(frozen=True, slots=True)
class EnqueuePreview:
    """The outcome of enqueueing one job: it is new, or it exists, or it is rejected.

    Attributes:
        is_new: True if the job would be created.
        credits: Cost of the new job, in credits; 0 if it exists.
        error: Reason of the rejection; None if the job is not rejected.
    """

    is_new: bool = False
    credits: int = 0
    error: VoiceQueueError | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """The data in Redis that concern one job, and the voice that it shares."""

    job_id: str
    shared_voice: str
    content: str | None
    #: The SHA-1 of each content that the job had before its recording was corrected.
    earlier_contents: str = ""
    recording: str | None = None
    has_voice: bool = False


class EnqueuePreviewer:
    """The preview of one run of jobs, chunk by chunk; earlier jobs of the run count for later ones.

    It holds about 150 bytes in memory for each new job.
    """

    def __init__(self, space: Keyspace, job_ids: JobIds, *, reuse: bool = False) -> None:
        self._space = space
        self._job_ids = job_ids
        self._namespace = space.scope.target
        self._reuse = reuse
        self._erasure = Erasure(space)
        self._contents: dict[str, int] = {}  # by job id: the hash of the content of each new job
        self._recordings: dict[str, str] = {}  # by named voice
        self._voices: set[str] = set()  # voices that new jobs create
        self._budgets: list[_HardBudget] | None = None

    def preview(self, specs: Sequence[VoiceJob]) -> list[EnqueuePreview]:
        """Return the outcome of each job, in the same order."""
        expanded = [spec.expand() for spec in specs]
        parts = [part for item in expanded for part in item]
        stored = self._read(parts)
        refusals = self._refusals(parts, [data.job_id for data in stored])
        outcomes = iter(
            [
                EnqueuePreview(error=refusal) if refusal and data.content is None else self._outcome(part, data)
                for part, data, refusal in zip(parts, stored, refusals, strict=True)
            ]
        )
        return [_combined([next(outcomes) for _ in item]) for item in expanded]

    def _refusals(self, specs: Sequence[VoiceJob], job_ids: Sequence[str]) -> list[VoiceQueueError | None]:
        """Return why new jobs are refused: they were erased, or name no consent though the queue requires it."""
        if not specs:
            return []
        names = [(job_id, *self._recordings_of(spec)) for spec, job_id in zip(specs, job_ids, strict=True)]
        erased = iter(self._erasure.are_erased([name for own in names for name in own]))
        is_erased = [True in [next(erased) for _ in own] for own in names]
        is_required = self._erasure.is_consent_required()
        return [
            ErasedError()
            if is_gone
            else InvalidJobError([Problem("metadata.consent_ref", CONSENT_REQUIRED)])
            if is_required and not spec.metadata.get("consent_ref", "").strip()
            else None
            for spec, is_gone in zip(specs, is_erased, strict=True)
        ]

    def _recordings_of(self, spec: VoiceJob) -> list[str]:
        sha256 = [qualify(self._namespace, f"sha256-{spec.audio_sha256}")] if spec.audio_sha256 else []
        return [name for name in (self._recording_of(spec), *sha256) if name]

    def _read(self, specs: Sequence[VoiceJob]) -> list[_Stored]:
        """Read, in one round trip, what scripts/enqueue.lua reads."""
        shared_voices = [spec.shared_voice(reuse=self._reuse, namespace=self._namespace) for spec in specs]
        keys = list(zip(self._job_ids.look_up(specs), shared_voices, strict=True))
        with self._space.redis.pipeline(transaction=False) as pipe:
            for spec, (job_id, shared_voice) in zip(specs, keys, strict=True):
                pipe.hmget(self._space.key(f"job:{job_id}"), "spec", "earlier_specs")
                if shared_voice:
                    pipe.hmget(self._space.key(f"voice:{shared_voice}"), "persona_id", "creator", "recording")
                    # A named voice is not one that others created from the same recording.
                    by_url = shared_voice if is_named_voice(shared_voice) else self._recording_of(spec)
                    pipe.hget(self._space.key(f"voice:{by_url}"), "persona_id")
            replies = iter(pipe.execute())
        return [
            _stored(job_id, shared_voice, next(replies), *((next(replies), next(replies)) if shared_voice else ()))
            for job_id, shared_voice in keys
        ]

    def _recording_of(self, spec: VoiceJob) -> str:
        return spec.recording_voice(self._namespace)

    def _outcome(self, spec: VoiceJob, stored: _Stored) -> EnqueuePreview:
        job_id, shared_voice, content = stored.job_id, stored.shared_voice, spec.canonical_content()
        if stored.content is not None and (stored.content == content or _digest(content) in stored.earlier_contents):
            return EnqueuePreview()
        if is_named_voice(shared_voice):
            recording = stored.recording or self._recordings.setdefault(shared_voice, self._recording_of(spec))
            if recording != self._recording_of(spec):
                return EnqueuePreview(
                    error=InvalidJobError([Problem("voice", "is already used for another recording in this batch")])
                )
        existing = self._contents.get(job_id) if stored.content is None else hash(stored.content)
        if existing is not None:
            is_same = existing == hash(content)
            return EnqueuePreview() if is_same else EnqueuePreview(error=KeyConflictError(spec.key or "", job_id))
        self._contents[job_id] = hash(content)
        has_voice = bool(shared_voice) and (stored.has_voice or shared_voice in self._voices)
        credits = spec.credits - has_voice * PRICES[Stage.VOICE]
        if error := self._take_from_budgets(credits):
            del self._contents[job_id]
            return EnqueuePreview(error=error)
        self._voices |= {shared_voice} if shared_voice else set()
        return EnqueuePreview(is_new=True, credits=credits)

    def _take_from_budgets(self, credits: int) -> BudgetExceededError | None:
        """Take the price of a new job from the hard budgets of the account and the namespace, or return the error."""
        if self._budgets is None:
            self._budgets = _read_hard_budgets(self._space, qualify(self._namespace, ""))
        for budget in self._budgets:
            if credits > budget.remaining:
                return budget.error(credits, shows_figures=self._space.scope.is_all or budget.owner != ACCOUNT)
        for budget in self._budgets:
            budget.remaining -= credits
        return None


@dataclass(slots=True)
class _HardBudget:
    """A hard budget, and what it leaves for new jobs."""

    owner: str
    period: str
    limit: int
    remaining: int
    resets_at: float

    def error(self, price: int, *, shows_figures: bool) -> BudgetExceededError:
        """Return the error of a job that it does not allow."""
        limit, remaining = (self.limit, max(0, self.remaining)) if shows_figures else (None, None)
        return BudgetExceededError(
            self.owner, self.period, price, limit=limit, remaining=remaining, resets_at=self.resets_at
        )


def _read_hard_budgets(space: Keyspace, batch: str) -> list[_HardBudget]:
    now = RedisClock(space.redis)()
    ends = period_ends(now)
    flat = space.run_script("read_hard_budgets", f"{now:.6f}", batch, "")
    return [
        _HardBudget(owner, period, int(limit), int(remaining), ends[period])
        for owner, period, limit, remaining in rows(flat, 4)
    ]


def _stored(
    job_id: str,
    shared_voice: str,
    contents: list[str | None],
    voice: list[str | None] | None = None,
    by_url: str | None = None,
) -> _Stored:
    content, earlier = contents[0], contents[1] or ""
    if voice is None:
        return _Stored(job_id, shared_voice, content, earlier)
    persona_id, creator, recording = voice
    return _Stored(job_id, shared_voice, content, earlier, recording, bool(persona_id or creator or by_url))


def _digest(content: str) -> str:
    return sha1(content.encode(), usedforsecurity=False).hexdigest()


def _combined(parts: list[EnqueuePreview]) -> EnqueuePreview:
    if len(parts) == 1:
        return parts[0]
    error = next((part.error for part in parts if part.error), None)
    return EnqueuePreview(any(part.is_new for part in parts), sum(part.credits for part in parts), error)
