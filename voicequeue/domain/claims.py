"""Claims that the store grants to workers, and results of enqueueing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from voicequeue.domain.clip import Clip
from voicequeue.domain.job import FailureReport
from voicequeue.domain.spec import VoiceJob, parse_stored_spec
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State


@dataclass(frozen=True, slots=True)
class Admitted:
    """Jobs that were admitted, by stage.

    `balance_change` is `short` if the account has just become unable to pay for the next job, and `enough` once it can
    again.
    """

    by_stage: dict[Stage, list[str]]
    balance_change: str = ""


@dataclass(frozen=True, slots=True)
class SubmitDeferred:
    """The submit rate allows no POST for this many seconds."""

    retry_in_s: float


class EnqueueOutcome(IntEnum):
    """Result of enqueueing one job.

    SHARES_VOICE: the job is new, and another job pays for its voice. OTHER_VOICE: the batch uses the name of its voice
    for another recording. ERASED: its key or its recording is one of an erased person. NO_CONSENT: the queue requires
    a consent, and the job names none.
    """

    NEW = 1
    SHARES_VOICE = 2
    EXISTING = 0
    CONFLICT = -1
    OTHER_VOICE = -2
    ERASED = -3
    NO_CONSENT = -4

    @property
    def is_new(self) -> bool:
        """True if the job did not exist before."""
        return self in (EnqueueOutcome.NEW, EnqueueOutcome.SHARES_VOICE)


@dataclass(frozen=True, slots=True)
class BudgetRefusal:
    """The outcome of a job that was not enqueued: the hard budget of `owner` for a `period` does not allow its price.

    `price`, `limit` and `remaining` are in credits; the last two None if the caller may not know them.
    `resets_at` is in Unix seconds.
    """

    owner: str
    period: str
    price: int
    limit: int | None
    remaining: int | None
    resets_at: float
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class SubmitClaim:
    """Permission to send one POST; the state `charging` was recorded for it.

    After `expires_at` (Unix seconds) another worker may have changed the job. `persona_id` is the voice that this job
    has created; `content` is what `spec` parses; `holder` is the token of the claim. Without `is_replicated` nothing
    may be sent: a failover could forget the claim, and the order would be sent again.
    """

    job_id: str
    version: int
    stage: Stage
    attempt: int
    content: str
    persona_id: str | None
    expires_at: float
    holder: str
    is_replicated: bool = True

    def spec(self) -> VoiceJob:
        """Return the job's spec. Raises ValueError for a record that this release cannot read."""
        return parse_stored_spec(self.content)


@dataclass(frozen=True, slots=True)
class ChargedOrder:
    """An order that upstream confirmed as charged, with its task id."""

    job_id: str
    stage: Stage
    attempt: int
    task_id: str


@dataclass(frozen=True, slots=True)
class PollClaim:
    """Permission to poll one job.

    `submitted_at` is when the stage was submitted, `last_not_ready_at` when its task was last not ready (Unix seconds).
    `model` is that of the song, and `clips` are the songs reported so far. `state` is pending, or a final state if only
    a late result is awaited. `failure_report` is a failure that upstream has reported; with `resubmits` the stage is
    submitted again if it is confirmed.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    task_id: str
    submitted_at: float
    next_stage: Stage | None = None
    last_not_ready_at: float | None = None
    model: str = ""
    clips: tuple[Clip, ...] = ()
    failure_report: FailureReport | None = None
    resubmits: bool = False


@dataclass(frozen=True, slots=True)
class PollReschedule:
    """Next poll of a job, if it is still at that version: `due` in Unix seconds.

    `last_not_ready_at` is when the task was last not ready (Unix seconds), and `failure_report` the failure that
    upstream reports. With `keeps_failure_report` an earlier report is kept. `clips` are the known songs, if one has
    finished.
    """

    job_id: str
    version: int
    due: float
    last_not_ready_at: float | None = None
    failure_report: FailureReport | None = None
    keeps_failure_report: bool = True
    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True, slots=True)
class StalledJob:
    """A job in flight that is overdue.

    `may_be_charged`: an order of it was lost.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    may_be_charged: bool = False
