"""States of a job, the transitions between them, and why a job failed.

Pure data. docs/explanation/concepts.md describes each state; docs/images/states.svg draws the transitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """State of a job; docs/explanation/concepts.md describes each."""

    WAITING = "waiting"
    QUEUED = "queued"
    ADMITTED = "admitted"
    CHARGING = "charging"
    PENDING = "pending"
    UNSURE = "unsure"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: Final states. A job leaves them only on request.
SETTLED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

#: States that a job does not leave without a person: final ones and `unsure`.
INACTIVE = SETTLED | {State.UNSURE}

#: States that a job leaves by itself.
ACTIVE = frozenset(State) - INACTIVE

#: The job holds a slot: it counts against the in-flight limit.
IN_FLIGHT = frozenset({State.ADMITTED, State.CHARGING, State.PENDING})

#: The job is settled, but a paid result, or a part of it, may still arrive and is kept.
MAY_HAVE_LATE_RESULT = SETTLED

#: Every legal transition that is decided from one job. The store rejects any other.
TRANSITIONS: Mapping[State, frozenset[State]] = {
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

#: Transitions that the store substitutes for a job that was marked as cancelling.
CANCELLING_TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.CHARGING: frozenset({State.CANCELLED}),
    State.UNSURE: frozenset({State.CANCELLED}),
}

#: Transitions of jobs that share a voice, applied by the script that applies the transition of the job that creates it.
SHARED_VOICE_TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.WAITING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED}),
    State.QUEUED: frozenset({State.WAITING, State.QUEUED, State.SUCCEEDED}),
    State.ADMITTED: frozenset({State.QUEUED, State.SUCCEEDED}),
    State.PENDING: frozenset({State.WAITING}),
    State.FAILED: frozenset({State.WAITING}),
}


class FailureCode(StrEnum):
    """Reason of a failure. A closed set: scripts may rely on it."""

    REFUSED = "refused"  # upstream rejects the request as wrong
    MODERATED = "moderated"  # upstream rejects the text
    UPSTREAM_FAILED = "upstream_failed"  # upstream charged the order and then failed; a late result is kept
    DEADLINE = "deadline"  # upstream took too long; a late result is kept
    EXPIRED = "expired"  # not started in time
    RECORDING_UNREACHABLE = "recording_unreachable"  # the recording could not be fetched when its order was to go
    RECORDING_UNFIT = "recording_unfit"  # the recording was fetched, and is too short or no MP3 or WAV
    ABANDONED = "abandoned"  # an operator gave up an unsure charge


class ArchiveState(StrEnum):
    """Progress of archiving the songs of a job."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class ClipPart(StrEnum):
    """Part of a clip that is archived."""

    AUDIO = "audio"
    IMAGE = "image"
