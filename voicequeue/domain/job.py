"""The job record, and transitions of it.

Pure: no I/O. Times are in Unix seconds and come from the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast, overload

from voicequeue.domain.clip import Clip
from voicequeue.domain.gate import Refusal
from voicequeue.domain.namespaces import qualify
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import (
    IN_FLIGHT,
    MAY_HAVE_LATE_RESULT,
    SETTLED,
    TRANSITIONS,
    ArchiveState,
    FailureCode,
    State,
)

if TYPE_CHECKING:
    from voicequeue.domain import schemas


#: The beginning of the key of a job from a Celery message that names no key; the id of the message follows.
MESSAGE_KEY = "message-"


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason and the stage of a failure.

    Attributes:
        code: Machine-readable reason.
        stage: Stage that failed.
        message: Details; upstream's text where there is one.
    """

    code: FailureCode
    stage: Stage
    message: str


@dataclass(frozen=True, slots=True)
class Transition:
    """A transition of one job, applied only if the job is still at `version`, in `state` and `stage`, and claimed by
    `holder`, if a claim led to it: after a failover has forgotten changes, others may give the job the same version.

    `due` is when the job next needs attention (Unix seconds): required in flight, and set on a settled job while a paid
    result, or a part of it, may still arrive. `fields` are written to the record; None removes one. `credits` were
    certainly spent on the order of that `attempt` (None: the latest); each order is counted once. If upstream `refused`
    the order, the store decides whether the job is queued again or fails. `released_credits` are the credits of a lost
    order that may have been charged and that this transition gives up. A job that is queued again is not admitted
    before `rests_until` (Unix seconds).
    """

    job_id: str
    version: int
    state: State
    stage: Stage
    to_state: State
    to_stage: Stage | None = None
    due: float | None = None
    reason: str = ""
    fields: Mapping[str, str | None] = field(default_factory=dict)
    credits: int = 0
    refused: Refusal | None = None
    attempt: int | None = None
    released_credits: int = 0
    rests_until: float | None = None
    holder: str | None = None

    def __post_init__(self) -> None:
        if self.to_state not in TRANSITIONS[self.state]:
            raise ValueError(f"no transition leads from {self.state} to {self.to_state}")
        if self.due is None and self.to_state in IN_FLIGHT:
            raise ValueError(f"a job that is {self.to_state} needs a due time")
        if self.due is not None and self.to_state not in IN_FLIGHT | MAY_HAVE_LATE_RESULT:
            raise ValueError(f"a job that is {self.to_state} must not have a due time, but it has {self.due}")

    @property
    def is_applied_first(self) -> bool:
        """True if the transition must be applied before others of the same call.

        A waiting job would otherwise be chosen to create the voice of a job that is cancelled in the same call, and a
        retry that polls a paid voice would find another job about to pay for it.
        """
        return self.state is State.WAITING or self.to_state is State.PENDING


@dataclass(frozen=True, slots=True)
class FailureReport:
    """A failure that upstream first reported `at` that time (Unix seconds) and may still revoke."""

    at: float
    message: str


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One entry of a job's timeline: a transition that was applied.

    Attributes:
        at: Time of the transition (Unix seconds).
        state: State that the job entered.
        stage: Stage that the job was in.
        reason: Reason of the transition in words; may be empty.
        attempt: Number of the order that it concerns, from 1; 0 before the first. A charge discovered later has the
            number of an older order.
        task_id: Upstream's id of the task; None if the transition recorded none.
    """

    at: float
    state: State
    stage: Stage
    reason: str = ""
    attempt: int = 0
    task_id: str | None = None

    def as_dict(self) -> schemas.TimelineEntry:
        """Return the JSON representation."""
        return {
            "at": to_iso8601(self.at),
            "state": self.state,
            "stage": self.stage,
            "reason": self.reason,
            "attempt": self.attempt,
            "task_id": self.task_id,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """A transition that was just applied, as published to subscribers.

    Attributes:
        id: Cursor to continue from.
        job_id: Id of the job; empty where many jobs were enqueued at once.
        batch: Batch of the job; None if it has none.
        state: State that the job entered.
        stage: Stage that the job was in; None where many jobs were enqueued at once.
        reason: Reason of the transition in words; contains the number of jobs where many were enqueued at once. May be
            empty.
        previous_state_s: Time that the job spent in its previous state, in seconds; None if unknown.
        namespace: Namespace of the job; empty for the default one.
    """

    id: str
    job_id: str
    batch: str | None
    state: State
    stage: Stage | None
    reason: str = ""
    previous_state_s: float | None = None
    namespace: str = ""

    @property
    def qualified_batch(self) -> str:
        """The batch with its namespace, such as `shop/spring`; of a job without a batch, the namespace alone."""
        return qualify(self.namespace, self.batch or "")

    @property
    def at(self) -> float:
        """The time of the event (Unix seconds, in whole milliseconds)."""
        return int(self.id.partition("-")[0]) / 1000

    @property
    def sort_key(self) -> float:
        """The same time with a fraction that keeps the order of events within one millisecond."""
        return self.at + int(self.id.partition("-")[2]) / 1e6

    def as_dict(self) -> schemas.Event:
        """Return the JSON representation, in which `job_id` is null where many jobs were enqueued at once."""
        return {
            "at": to_iso8601(self.at),
            "job_id": self.job_id or None,
            "namespace": self.namespace,
            "batch": self.batch,
            "state": self.state,
            "stage": self.stage,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Charge:
    """One paid POST and the state it led to.

    Attributes:
        at: Time of the POST (Unix seconds).
        stage: Stage that was paid.
        attempt: Number of the order, from 1.
        outcome: State that the job entered after the POST; `charging` while it is unanswered.
        task_id: Upstream's id of the task; None if it is not known.
    """

    at: float
    stage: Stage
    attempt: int
    outcome: State
    task_id: str | None = None


def charges(timeline: list[TimelineEntry]) -> list[Charge]:
    """Return the charges in a timeline: each `charging` entry, the entry that answered it, and its task id."""
    by_attempt: dict[int, Charge] = {}
    for step in timeline:
        charge = by_attempt.get(step.attempt)
        if step.state is State.CHARGING and charge is None:
            by_attempt[step.attempt] = Charge(step.at, step.stage, step.attempt, State.CHARGING)
        elif charge is not None:
            outcome = step.state if charge.outcome is State.CHARGING else charge.outcome
            by_attempt[step.attempt] = replace(charge, outcome=outcome, task_id=charge.task_id or step.task_id)
    return list(by_attempt.values())


@dataclass(frozen=True, slots=True)
class Job:
    """The record of one job at the time it was read.

    Attributes:
        id: Unique id.
        version: Version of the record; each transition increments it.
        state: Current state.
        stage: Current stage; `voice` creates the voice, `music` the song.
        spec: Specification, as enqueued.
        created_at: Time of enqueueing (Unix seconds).
        updated_at: Time of the last change (Unix seconds).
        settled_at: Time when the job reached a final state (Unix seconds); None until then.
        attempt: Number of the last order, from 1; 0 before the first.
        credits: Credits spent so far.
        persona_id: Upstream's id of the voice; None until it exists.
        voice_name: Name of the voice at upstream; None if it is not known.
        clips: Songs; empty until upstream names them.
        failure: Reason of the failure; None unless the job failed.
        shared_voice: Id of the voice that the job shares with others; None if it shares none.
        task_ids: Upstream's task ids by stage; a stage without a task is left out.
        callback_id: Id of the last callback about the job; None if there is none.
        archive: Progress of archiving; None where its songs are not archived.
        unreadable_response: Beginning of the response to its last order, if it could not be read; otherwise None.
        charged_task_ids: Upstream's task ids by attempt, of all charged orders.
        lost_stages: Stages by attempt of orders that may have been charged and were given up or resubmitted.
        is_cancelling: True if the job is charging or unsure, and is cancelled as soon as the outcome of its order is
            known; no further stage is submitted.
        source: Interface that enqueued the job and the name of the caller, such as `http:shop`
            (voicequeue/domain/source.py); None if it was not recorded.
        source_row: Row of the job in the caller's file, from 1; None if it was not recorded.
        message_ids: Ids of the Celery messages that enqueued the job: the first and the latest; empty if it came
            another way.
        namespace: Namespace that owns the job; empty for the default one.
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
    shared_voice: str | None = None
    task_ids: Mapping[Stage, str] = field(default_factory=dict)
    callback_id: str | None = None
    archive: ArchiveState | None = None
    unreadable_response: str | None = None
    charged_task_ids: Mapping[int, str] = field(default_factory=dict)
    lost_stages: Mapping[int, Stage] = field(default_factory=dict)
    is_cancelling: bool = False
    source: str | None = None
    source_row: int | None = None
    message_ids: tuple[str, ...] = ()
    namespace: str = ""

    @property
    def qualified_batch(self) -> str:
        """The batch with its namespace, such as `shop/spring`; of a job without a batch, the namespace alone."""
        return qualify(self.namespace, self.spec.batch or "")

    @property
    def is_final(self) -> bool:
        """True if the job changes only on request."""
        return self.state in SETTLED

    @property
    def has_result(self) -> bool:
        """True if its current stage has a result, which is never paid for again."""
        if self.stage is Stage.MUSIC:
            return any(clip.is_finished for clip in self.clips)
        return self.persona_id is not None

    @property
    def is_incomplete(self) -> bool:
        """True if upstream has named songs without giving their links."""
        return any(clip.is_missing for clip in self.clips)

    @property
    def may_have_late_result(self) -> bool:
        """True if upstream has an order of the current stage that it has not delivered completely.

        It may deliver even after it has reported a failure.
        """
        return self.stage in self.task_ids and (self.is_incomplete or not self.has_result)

    def as_dict(self) -> schemas.Job:
        """Return the JSON representation."""
        return {
            "id": self.id,
            "namespace": self.namespace,
            "key": self.spec.key,
            "batch": self.spec.batch,
            "source": self.source,
            "source_row": self.source_row,
            "message_ids": list(self.message_ids),
            "name": self.spec.name,
            "priority": self.spec.priority,
            "state": self.state,
            "cancelling": self.is_cancelling,
            "stage": self.stage,
            "audio_url": self.spec.audio_url,
            "persona_id": self.persona_id,
            "voice_name": self.voice_name,
            "clips": [cast("schemas.Clip", clip.as_dict()) for clip in self.clips],
            "incomplete": self.is_incomplete,
            "archive": self.archive,
            "failure": cast("schemas.Failure", asdict(self.failure)) if self.failure else None,
            "credits": self.credits,
            "created_at": to_iso8601(self.created_at),
            "settled_at": to_iso8601(self.settled_at),
            "metadata": self.spec.metadata,
        }


def queued_job(
    job_id: str, spec: VoiceJob, created_at: float, *, source: str, namespace: str = "", shared_voice: str = ""
) -> Job:
    """Return a job as its record is when it has just been enqueued, by no Celery message."""
    created_at = round(created_at, 6)
    return Job(
        id=job_id,
        version=1,
        state=State.QUEUED,
        stage=spec.stages[0],
        spec=spec.stored_content(),
        created_at=created_at,
        updated_at=created_at,
        persona_id=spec.persona_id,
        shared_voice=shared_voice or None,
        source=source,
        source_row=spec.source_row,
        message_ids=message_ids_of_key(spec.key),
        namespace=namespace,
    )


def message_ids_of_key(key: str | None) -> tuple[str, ...]:
    """Return the id of the message that is in the key of its job; () for a key of another origin."""
    return (key.removeprefix(MESSAGE_KEY),) if key and key.startswith(MESSAGE_KEY) else ()


@overload
def to_iso8601(at: float) -> str: ...


@overload
def to_iso8601(at: float | None) -> str | None: ...


def to_iso8601(at: float | None) -> str | None:
    """Format Unix seconds as ISO 8601 in UTC, to the millisecond; None stays None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
