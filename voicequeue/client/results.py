"""What became of jobs that were enqueued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from voicequeue.domain.claims import Outcome
from voicequeue.domain.job import Job
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.errors import InvalidJob, KeyConflict, Problem, VoiceQueueError


@dataclass(frozen=True, slots=True)
class Rejection:
    """One of many jobs that could not be enqueued; `index` is its place among those given, from 0."""

    index: int
    error: VoiceQueueError


@dataclass(slots=True)
class Receipt:
    """What became of many jobs: how many were new, were there already, and could not be taken.

    `credits` is what the new ones will cost. `rejections` stays empty where `on_reject` took them.
    """

    new: int = 0
    known: int = 0
    rejected: int = 0
    credits: int = 0
    rejections: list[Rejection] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Count one order; of one that was not taken whole, what was."""
        self.new += entry.new
        self.credits += entry.credits
        if entry.error is not None:
            self.rejected += 1
        else:
            self.known += len(entry.job_ids) - entry.new


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one order that was enqueued with others: of its jobs (one for each song, the one that makes the
    voice first) so many were `new`, and will cost so much; or (`error`) it was not taken, or not whole.
    """

    job_ids: tuple[str, ...] = ()
    new: int = 0
    credits: int = 0
    error: InvalidJob | KeyConflict | None = None

    @property
    def job_id(self) -> str:
        """The first of its jobs."""
        return self.job_ids[0]


def entered(jobs: Sequence[tuple[str, VoiceJob]], outcomes: Sequence[Outcome]) -> Entry:
    """What became of one order's jobs, each of which the store has told of."""
    if len(jobs) == 1 and outcomes[0] is Outcome.NEW:  # nearly all
        [(job_id, spec)] = jobs
        return Entry((job_id,), 1, spec.credits)
    told = list(zip(jobs, outcomes, strict=True))
    return Entry(
        tuple(job_id for job_id, _ in jobs),
        sum(outcome.is_new for outcome in outcomes),
        sum(_cost(spec, outcome) for (_, spec), outcome in told),
        next((error for (job_id, spec), outcome in told if (error := _refused(job_id, spec, outcome))), None),
    )


def _cost(spec: VoiceJob, outcome: Outcome) -> int:
    if not outcome.is_new:
        return 0
    return spec.credits - (PRICES[Stage.VOICE] if outcome is Outcome.SHARES else 0)


def _refused(job_id: str, spec: VoiceJob, outcome: Outcome) -> InvalidJob | KeyConflict | None:
    if outcome is Outcome.CONFLICT:
        return KeyConflict(spec.key or "", job_id)
    if outcome is Outcome.OTHER_VOICE:
        return InvalidJob([Problem("voice", "stands for another recording in this batch")])
    return None


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that was enqueued (or `new` is false: its key stood for it already), and its place in the backlog.

    `position` 1 goes next, as things stand; None where it is not queued (any more). `credits` is what the order
    costs: this job, and the `further` ones that were asked for with it, which sing with its voice.
    """

    job: Job
    new: bool
    position: int | None
    credits: int
    further: tuple[str, ...] = ()
