"""A job's life: its states, its stages, the moves between them, and the record of one job.

Pure: no I/O; times are Unix seconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, cast, overload

from voicequeue.domain.clip import Clip
from voicequeue.domain.gate import Refusal
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import Stage

if TYPE_CHECKING:
    from voicequeue.domain import schemas


class State(StrEnum):
    """Where a job stands; docs/concepts.md tells each state's story."""

    WAITING = "waiting"
    QUEUED = "queued"
    ADMITTED = "admitted"
    CHARGING = "charging"
    PENDING = "pending"
    UNSURE = "unsure"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Nothing happens any more unless somebody asks for it.
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

#: Holds a slot: counted against the in-flight limit.
IN_FLIGHT = frozenset({State.ADMITTED, State.CHARGING, State.PENDING})

#: Over for us; where upstream was paid, its result, or the rest of it, may still come, and is kept.
MAY_BE_LATE = FINAL

#: Every legal move that is decided on one job alone. The store refuses any other.
MOVES: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.PENDING, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.ADMITTED, State.PENDING, State.FAILED, State.CANCELLED}),
    State.ADMITTED: frozenset({State.CHARGING, State.QUEUED, State.PENDING, State.FAILED, State.CANCELLED}),
    State.CHARGING: frozenset({State.PENDING, State.ADMITTED, State.QUEUED, State.UNSURE, State.FAILED}),
    State.PENDING: frozenset({State.ADMITTED, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.UNSURE: frozenset({State.PENDING, State.ADMITTED, State.FAILED}),
    State.SUCCEEDED: frozenset({State.SUCCEEDED}),
    State.FAILED: frozenset({State.QUEUED, State.PENDING, State.SUCCEEDED, State.FAILED}),
    State.CANCELLED: frozenset({State.CANCELLED}),
}

#: What the store makes of the move of a job whose cancelling was asked for while its order was under way.
WHEN_CANCELLING: Mapping[State, frozenset[State]] = {
    State.CHARGING: frozenset({State.CANCELLED}),
    State.UNSURE: frozenset({State.CANCELLED}),
}

#: What the store makes of jobs that share a voice, in the script that makes the move of the one that makes it.
WITH_THE_VOICE: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED}),
    State.QUEUED: frozenset({State.WAITING, State.QUEUED, State.SUCCEEDED}),
    State.ADMITTED: frozenset({State.QUEUED, State.SUCCEEDED}),
    State.PENDING: frozenset({State.WAITING}),
    State.FAILED: frozenset({State.WAITING}),
}


class Code(StrEnum):
    """Why a job failed. A closed set: scripts may rely on it."""

    REFUSED = "refused"  # upstream says the request is wrong
    MODERATED = "moderated"  # upstream refuses the text
    UPSTREAM_FAILED = "upstream_failed"  # upstream took the credits and then failed; what comes all the same is kept
    DEADLINE = "deadline"  # upstream took too long; its task may still finish, and is then kept
    EXPIRED = "expired"  # not started in time
    ABANDONED = "abandoned"  # a person gave up on an unsure charge


@dataclass(frozen=True, slots=True)
class Failure:
    """Why and where a job failed; `message` is upstream's own words where there are any."""

    code: Code
    stage: Stage
    message: str


class InArchive(StrEnum):
    """Where the songs of a job stand on their way into the archive."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class Part(StrEnum):
    """What of a clip is archived."""

    AUDIO = "audio"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Move:
    """One step in a job's life: applied if the job still stands at `version`, else not at all.

    `due` is when the job next needs somebody (Unix seconds): always in flight, and where it is over if upstream was
    paid and its result, or a part of it, may still come.
    `fields` are written to the record; None removes one. `credits` were spent for certain, on the order of that
    `attempt` (None: the job's latest); each order is counted once. Of an order that upstream `refused` the store
    decides what follows: the job is queued again, or fails. `unsettled` are the credits of a lost order which may have
    been charged, and which this move waits for no longer.
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    to: State
    to_stage: Stage | None = None
    due: float | None = None
    reason: str = ""
    fields: Mapping[str, str | None] = field(default_factory=dict)
    credits: int = 0
    refused: Refusal | None = None
    attempt: int | None = None
    unsettled: int = 0

    def __post_init__(self) -> None:
        if self.to not in MOVES[self.state]:
            raise ValueError(f"no move leads from {self.state} to {self.to}")
        if self.due is None and self.to in IN_FLIGHT:
            raise ValueError(f"a job that is {self.to} must be looked after: due is missing")
        if self.due is not None and self.to not in IN_FLIGHT | MAY_BE_LATE:
            raise ValueError(f"of a job that is {self.to} nothing is to come: {self.due} is too much")

    @property
    def goes_first(self) -> bool:
        """Whether it is made before others that are made with it.

        Who waits would else get the voice to make of one that is cancelled with him; and who asks again for a voice
        that was paid would find somebody else about to pay for it.
        """
        return self.state is State.WAITING or self.to is State.PENDING


@dataclass(frozen=True, slots=True)
class Doubt:
    """A failure that upstream reported and may take back: first `at` that time (Unix seconds), in these words."""

    at: float
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a job's timeline: a move that was made, `at` in Unix seconds."""

    at: float
    state: State
    stage: Stage
    reason: str = ""
    attempt: int = 0
    task_id: str | None = None

    def as_dict(self) -> schemas.TimelineEntry:
        """Return the JSON representation."""
        return {
            "at": iso(self.at),
            "state": self.state,
            "stage": self.stage,
            "reason": self.reason,
            "attempt": self.attempt,
            "task_id": self.task_id,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """A move that was just made, as everybody may hear of it. `id` says where to hear on from.

    `job_id` is empty, and `stage` None, where many jobs were enqueued at once; `reason` tells how many. `took` is
    how long (seconds) the job stood where it was before.
    """

    id: str
    job_id: str
    batch: str | None
    state: State
    stage: Stage | None
    reason: str = ""
    took: float | None = None

    @property
    def at(self) -> float:
        """When (Unix seconds, to the millisecond)."""
        return int(self.id.partition("-")[0]) / 1000

    @property
    def moment(self) -> float:
        """The same, a little apart for those of one millisecond, so that their order is theirs."""
        return self.at + int(self.id.partition("-")[2]) / 1e6

    def as_dict(self) -> schemas.Event:
        """Return the JSON representation, in which `job_id` is null where many jobs were enqueued at once."""
        return {
            "at": iso(self.at),
            "job_id": self.job_id or None,
            "batch": self.batch,
            "state": self.state,
            "stage": self.stage,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Charge:
    """One POST that costs credits, and the state it led to (`charging` while it is open)."""

    at: float
    stage: Stage
    attempt: int
    outcome: State
    task_id: str | None = None


def charges(timeline: list[Step]) -> list[Charge]:
    """Return the charges in a timeline: each step into `charging`, the step that answered it, and the task that was
    named then or later."""
    found: dict[int, Charge] = {}
    for step in timeline:
        charge = found.get(step.attempt)
        if step.state is State.CHARGING and charge is None:
            found[step.attempt] = Charge(step.at, step.stage, step.attempt, State.CHARGING)
        elif charge is not None:
            outcome = step.state if charge.outcome is State.CHARGING else charge.outcome
            found[step.attempt] = replace(charge, outcome=outcome, task_id=charge.task_id or step.task_id)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Job:
    """The record of one job, as it stood when it was read. Times are Unix seconds.

    `callback_id` is that of the last callback which tells of it; `archive` is None where its songs are
    not to be archived. `answer` is the beginning of what upstream answered to its last order, where that could not
    be read. `orders` are upstream's tasks by attempt, of all orders that were charged; `lost` are the stages, by
    attempt, of orders that may have been charged and were given up or sent again. `cancelling`: it is charging or
    unsure, and is cancelled as soon as it is known what became of its order; no further stage is ordered for it.
    `origin` is through which door it came, and who brought it (voicequeue/domain/origin.py).
    """

    id: str
    version: int
    state: State
    stage: Stage
    spec: VoiceJob
    created_at: float
    updated_at: float
    settled_at: float | None = None
    attempt: int = 0
    credits: int = 0
    persona_id: str | None = None
    voice_name: str | None = None
    clips: tuple[Clip, ...] = ()
    failure: Failure | None = None
    shares: str | None = None
    task_ids: Mapping[Stage, str] = field(default_factory=dict)
    callback_id: str | None = None
    archive: InArchive | None = None
    answer: str | None = None
    orders: Mapping[int, str] = field(default_factory=dict)
    lost: Mapping[int, Stage] = field(default_factory=dict)
    cancelling: bool = False
    origin: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to this job any more by itself."""
        return self.state in FINAL

    @property
    def has_result(self) -> bool:
        """Whether the stage where it stands has its result, which is never bought again."""
        if self.stage is Stage.MUSIC:
            return any(clip.is_finished for clip in self.clips)
        return self.persona_id is not None

    @property
    def is_incomplete(self) -> bool:
        """Whether upstream has named songs whose links it has not given."""
        return any(clip.is_missing for clip in self.clips)

    @property
    def may_still_come(self) -> bool:
        """Whether upstream has the order of this stage and has not delivered all of it. It may do so even after it said
        that the order failed."""
        return self.stage in self.task_ids and (self.is_incomplete or not self.has_result)

    def as_dict(self) -> schemas.Job:
        """Return the JSON representation."""
        return {
            "id": self.id,
            "key": self.spec.key,
            "batch": self.spec.batch,
            "origin": self.origin,
            "name": self.spec.name,
            "priority": self.spec.priority,
            "state": self.state,
            "cancelling": self.cancelling,
            "stage": self.stage,
            "audio_url": self.spec.audio_url,
            "persona_id": self.persona_id,
            "voice_name": self.voice_name,
            "clips": [cast("schemas.Clip", asdict(clip)) for clip in self.clips],
            "incomplete": self.is_incomplete,
            "archive": self.archive,
            "failure": cast("schemas.Failure", asdict(self.failure)) if self.failure else None,
            "credits": self.credits,
            "created_at": iso(self.created_at),
            "settled_at": iso(self.settled_at),
            "metadata": self.spec.metadata,
        }


@overload
def iso(at: float) -> str: ...


@overload
def iso(at: float | None) -> str | None: ...


def iso(at: float | None) -> str | None:
    """Format Unix seconds as ISO 8601 in UTC, to the millisecond; None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
