"""What enqueueing would come to, without doing it: it only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import InvalidJob, KeyConflict, Problem, VoiceQueueError
from voicequeue.storage.connection.keyspace import Keyspace


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would become of one job: it is new and costs so many credits, or known already, or not taken."""

    is_new: bool = False
    credits: int = 0
    error: VoiceQueueError | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What Redis holds that concerns one job, and which voice it shares."""

    job_id: str
    shares: str
    content: str | None
    recording: str | None = None
    is_made: bool = False


class Preview:
    """Foresees one run of jobs, chunk after chunk; what comes earlier in it counts for what comes later.

    It remembers about 150 bytes of each new job.
    """

    def __init__(self, space: Keyspace, *, reuse: bool = False) -> None:
        self._space = space
        self._reuse = reuse
        self._contents: dict[str, int] = {}  # of jobs that would be new by then, hashed
        self._recordings: dict[str, str] = {}  # by the voice that would be named so by then
        self._made: set[str] = set()

    def foresee(self, specs: Sequence[VoiceJob]) -> list[Foreseen]:
        """What would become of each of the jobs, in their order."""
        parts = [spec.each() for spec in specs]
        found = iter(self._read([part for each in parts for part in each]))
        return [_together([self._one(part, next(found)) for part in each]) for each in parts]

    def _read(self, specs: Sequence[VoiceJob]) -> list[_Found]:
        """One round trip. scripts/enqueue.lua looks at the same."""
        named = [(spec.id(), spec.shares(reuse=self._reuse)) for spec in specs]
        with self._space.redis.pipeline(transaction=False) as pipe:
            for spec, (job_id, shares) in zip(specs, named, strict=True):
                pipe.hget(self._space.key(f"job:{job_id}"), "spec")
                if shares:
                    pipe.hmget(self._space.key(f"voice:{shares}"), "persona_id", "maker", "recording")
                    # A name means no voice that others made of the recording.
                    same = shares if shares.startswith("named-") else spec.recording()
                    pipe.hget(self._space.key(f"voice:{same}"), "persona_id")
            answers = iter(pipe.execute())
        return [
            _found(job_id, shares, next(answers), *((next(answers), next(answers)) if shares else ()))
            for job_id, shares in named
        ]

    def _one(self, spec: VoiceJob, found: _Found) -> Foreseen:
        job_id, shares, content = found.job_id, found.shares, spec.content()
        if shares.startswith("named-"):
            recording = found.recording or self._recordings.setdefault(shares, spec.recording())
            if recording != spec.recording():
                return Foreseen(error=InvalidJob([Problem("voice", "stands for another recording in this batch")]))
        before = self._contents.get(job_id) if found.content is None else hash(found.content)
        if before is not None:
            same = before == hash(content)
            return Foreseen() if same else Foreseen(error=KeyConflict(spec.key or "", job_id))
        self._contents[job_id] = hash(content)
        is_made = bool(shares) and (found.is_made or shares in self._made)
        self._made |= {shares} if shares else set()
        return Foreseen(is_new=True, credits=spec.credits - is_made * PRICES[Stage.VOICE])


def _found(
    job_id: str, shares: str, content: str | None, voice: list[str | None] | None = None, by_url: str | None = None
) -> _Found:
    if voice is None:
        return _Found(job_id, shares, content)
    persona_id, maker, recording = voice
    return _Found(job_id, shares, content, recording, bool(persona_id or maker or by_url))


def _together(parts: list[Foreseen]) -> Foreseen:
    if len(parts) == 1:
        return parts[0]
    error = next((part.error for part in parts if part.error), None)
    return Foreseen(any(part.is_new for part in parts), sum(part.credits for part in parts), error)
