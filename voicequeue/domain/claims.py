"""Claims that the store grants to workers, and results of enqueueing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Doubt, State
from voicequeue.domain.spec import VoiceJob, stored
from voicequeue.domain.stage import Stage


@dataclass(frozen=True, slots=True)
class Admitted:
    """Jobs that were admitted, by stage.

    `news` is `short` if the account has just become unable to pay for the next job, and `enough` once it can again.
    """

    by_stage: dict[Stage, list[str]]
    news: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """The submit rate allows no POST for this many seconds."""

    seconds: float


class Outcome(IntEnum):
    """Result of enqueueing one job.

    SHARES: the job is new, and another job pays for its voice.
    """

    NEW = 1
    SHARES = 2
    KNOWN = 0
    CONFLICT = -1
    OTHER_VOICE = -2

    @property
    def is_new(self) -> bool:
        """True if the job did not exist before."""
        return self in (Outcome.NEW, Outcome.SHARES)


@dataclass(frozen=True, slots=True)
class Charged:
    """Claim to send one POST, which `charging` was recorded for.

    It is valid `until` that time (Unix seconds); afterwards another worker may have changed the job. `persona_id` is
    the voice that this job has created; `content` is what `spec` parses.
    """

    job_id: str
    version: int
    stage: Stage
    attempt: int
    content: str
    persona_id: str | None
    until: float

    def spec(self) -> VoiceJob:
        """Return the job's spec. Raises ValueError for a record that this release cannot read."""
        return stored(self.content)


@dataclass(frozen=True, slots=True)
class ChargedOrder:
    """An order that upstream confirmed as charged, with its task id."""

    job_id: str
    stage: Stage
    attempt: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """Claim to poll one job.

    `since` is when the stage was submitted and `asked` when its task was last not ready (Unix seconds). `model` is that
    of the song, and `clips` are the songs known so far. `state` is pending, or a final state if only a late result is
    awaited. `doubt` is a failure that upstream has reported; with `reorder` the stage is submitted again if it is
    confirmed.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    task_id: str
    since: float
    next_stage: Stage | None = None
    asked: float | None = None
    model: str = ""
    clips: tuple[Clip, ...] = ()
    doubt: Doubt | None = None
    reorder: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """Next poll of a job, if it is still at that version: `due` in Unix seconds.

    `asked` is when the task was last not ready (Unix seconds), and `doubt` the failure that upstream reports. With
    `keeps_doubt` an earlier report is kept. `clips` are the known songs, if one has finished.
    """

    job_id: str
    version: int
    due: float
    asked: float | None = None
    doubt: Doubt | None = None
    keeps_doubt: bool = True
    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job in flight that is overdue.

    `may_be_charged`: an order of it was lost.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    may_be_charged: bool = False
