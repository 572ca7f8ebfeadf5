"""A job's life: its states, its stages, the moves between them, and the record of one job.

Pure: no I/O; times are Unix seconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from voicequeue.gate import Refusal
from voicequeue.spec import VoiceJob
from voicequeue.stage import Stage


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

#: Over for us; where upstream was paid, its result may still come, and is kept.
MAY_BE_LATE = frozenset({State.FAILED, State.CANCELLED})

#: Every legal move that is decided on one job alone. The store refuses any other.
MOVES: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.ADMITTED, State.FAILED, State.CANCELLED}),
    State.ADMITTED: frozenset({State.CHARGING, State.QUEUED, State.FAILED, State.CANCELLED}),
    State.CHARGING: frozenset({State.PENDING, State.ADMITTED, State.QUEUED, State.UNSURE, State.FAILED}),
    State.PENDING: frozenset({State.ADMITTED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.UNSURE: frozenset({State.PENDING, State.ADMITTED, State.FAILED}),
    State.SUCCEEDED: frozenset(),
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
    State.FAILED: frozenset({State.WAITING}),
}


class Code(StrEnum):
    """Why a job failed. A closed set: scripts may rely on it."""

    REFUSED = "refused"  # upstream says the request is wrong
    MODERATED = "moderated"  # upstream refuses the text
    UPSTREAM_FAILED = "upstream_failed"  # upstream took the credits and then failed
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
class ArchivedFile:
    """A file that lies whole in the archive: where, its `size` in bytes, its SHA-256 in hex."""

    url: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Clip:
    """One song of a job, as upstream gave it; `duration` in seconds. Upstream's links die, those of what was
    archived don't."""

    clip_id: str
    state: str
    title: str | None = None
    audio_url: str | None = None
    image_url: str | None = None
    duration: float | None = None
    archived_audio: ArchivedFile | None = None
    archived_image: ArchivedFile | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """One step in a job's life: applied if the job still stands at `version`, else not at all.

    `due` is when the job next needs somebody (Unix seconds): always in flight, and after a failure or
    a cancellation where upstream was paid and its result may still come.
    `fields` are written to the record; None removes one. `credits` were spent for certain. Of an order that upstream
    `refused` the store decides what follows: the job is queued again, or fails. `unsettled` are the credits of a lost
    order which may have been charged, and which this move waits for no longer.
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
class Step:
    """One line of a job's timeline: a move that was made, `at` in Unix seconds."""

    at: float
    state: State
    stage: Stage
    reason: str = ""
    attempt: int = 0
    task_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The shape that the command line and HTTP show."""
        return {
            "at": iso(self.at),
            "state": self.state.value,
            "stage": self.stage.value,
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

    def as_dict(self) -> dict[str, Any]:
        """The shape that HTTP shows; there `job_id` is null where many jobs were enqueued at once."""
        return {
            "at": iso(self.at),
            "job_id": self.job_id or None,
            "batch": self.batch,
            "state": self.state.value,
            "stage": self.stage.value if self.stage else None,
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
    """The charges in a timeline: each step into `charging`, with the step that answered it."""
    answers = [*timeline[1:], None]
    return [
        Charge(
            at=step.at,
            stage=step.stage,
            attempt=step.attempt,
            outcome=State.CHARGING if answer is None else answer.state,
            task_id=None if answer is None else answer.task_id,
        )
        for step, answer in zip(timeline, answers, strict=False)
        if step.state is State.CHARGING
    ]


@dataclass(frozen=True, slots=True)
class Job:
    """The record of one job, as it stood when it was read. Times are Unix seconds.

    `callback_id` is that of the last callback which tells of it; `archive` is None where its songs are
    not to be archived. `cancelling`: it is charging or unsure, and is cancelled as soon as it is known what became of
    its order; no further stage is ordered for it.
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
    cancelling: bool = False

    @property
    def is_final(self) -> bool:
        """Whether nothing happens to this job any more by itself."""
        return self.state in FINAL

    @property
    def has_result(self) -> bool:
        """Whether the stage where it stands has its result, which is never bought again."""
        return bool(self.clips) if self.stage is Stage.MUSIC else self.persona_id is not None

    @property
    def may_still_come(self) -> bool:
        """Whether upstream has the order of this stage and has neither delivered nor failed it."""
        given_up = self.failure is None or self.failure.code in (Code.DEADLINE, Code.ABANDONED)
        return given_up and self.stage in self.task_ids and not self.has_result

    def as_dict(self) -> dict[str, Any]:
        """The shape that the command line and HTTP show; scripts may rely on its names."""
        return {
            "id": self.id,
            "key": self.spec.key,
            "batch": self.spec.batch,
            "name": self.spec.name,
            "priority": self.spec.priority.value,
            "state": self.state.value,
            "cancelling": self.cancelling,
            "stage": self.stage.value,
            "audio_url": self.spec.audio_url,
            "persona_id": self.persona_id,
            "voice_name": self.voice_name,
            "clips": [asdict(clip) for clip in self.clips],
            "archive": self.archive.value if self.archive else None,
            "failure": asdict(self.failure) if self.failure else None,
            "credits": self.credits,
            "created_at": iso(self.created_at),
            "settled_at": iso(self.settled_at),
            "metadata": self.spec.metadata,
        }


def iso(at: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
