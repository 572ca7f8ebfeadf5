"""What became of jobs that were enqueued."""

from __future__ import annotations

from dataclasses import dataclass, field

from voicequeue.errors import InvalidJob, KeyConflict, VoiceQueueError
from voicequeue.job import Job


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


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one job that was enqueued with others: new, known already, or (`error`) not taken."""

    job_id: str = ""
    new: bool = False
    credits: int = 0
    error: InvalidJob | KeyConflict | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A job that was enqueued (or `new` is false: its key stood for it already), and its place in the backlog.

    `position` 1 goes next, as things stand; None where it is not queued any more.
    """

    job: Job
    new: bool
    position: int | None
