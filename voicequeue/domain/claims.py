"""What the store gives to those who work on jobs: claims, and what became of a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from voicequeue.domain.clip import Clip
from voicequeue.domain.job import Doubt, State
from voicequeue.domain.spec import VoiceJob, stored
from voicequeue.domain.stage import Stage


@dataclass(frozen=True, slots=True)
class Admitted:
    """Jobs that have a slot now, by the stage they stand at. `news` is `short` where the next job cannot be
    paid since now, `enough` where it can again."""

    by_stage: dict[Stage, list[str]]
    news: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """The submit rate allows no POST for so many seconds."""

    seconds: float


class Outcome(IntEnum):
    """What became of one job that was enqueued. SHARES: it is new, and somebody else pays for its voice."""

    NEW = 1
    SHARES = 2
    KNOWN = 0
    CONFLICT = -1
    OTHER_VOICE = -2

    @property
    def is_new(self) -> bool:
        """Whether it was not there before."""
        return self in (Outcome.NEW, Outcome.SHARES)


@dataclass(frozen=True, slots=True)
class Charged:
    """A claim to send one POST, which `charging` was written for.

    It holds `until` then (Unix seconds); later somebody else may have decided over the job.
    `persona_id` is the voice that this job has made; `content` is what `spec` reads.
    """

    job_id: str
    version: int
    stage: Stage
    attempt: int
    content: str
    persona_id: str | None
    until: float

    def spec(self) -> VoiceJob:
        """What was asked for. Raises ValueError for a record of a release with other rules."""
        return stored(self.content)


@dataclass(frozen=True, slots=True)
class ChargedOrder:
    """A charge that upstream confirmed, and the task that it named for it."""

    job_id: str
    stage: Stage
    attempt: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim to ask upstream about one job; `since` is when the stage was paid, `asked` when it was last not
    ready (Unix seconds), `model` the song's, `clips` are the songs that are known already.

    `state` is pending; or a final one, where only what comes late is still to be kept. `doubt`: upstream has said
    that the order failed. `reorder`: it is ordered again if so.
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
    """A job, at that version, is to be asked about when it is `due`; `asked` is when it was known not to be ready (Unix
    seconds), `doubt` the failure that upstream reports. With `keeps_doubt` what it reported before stays noted. `clips`
    are the songs of it that are known now, where one has finished."""

    job_id: str
    version: int
    due: float
    asked: float | None = None
    doubt: Doubt | None = None
    keeps_doubt: bool = True
    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job of which something is to come, and that nobody looked after in time. `may_be_charged`: an order of it was
    lost."""

    job_id: str
    version: int
    state: State
    stage: Stage
    may_be_charged: bool = False
