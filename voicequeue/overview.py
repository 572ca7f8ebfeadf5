"""The queue, a batch and the backlog at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from voicequeue.gate import Account, Gate
from voicequeue.job import State
from voicequeue.spec import Priority


@dataclass(frozen=True, slots=True)
class Line:
    """The queued jobs of one priority and batch (None: of none); `oldest` in Unix seconds."""

    priority: Priority
    batch: str | None
    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A named set of jobs: how many stand in each state, the credits they spent, and what somebody set for it."""

    name: str
    states: dict[State, int]
    credits: int
    paused: bool = False
    max_credits: int | None = None
    max_in_flight: int | None = None

    @property
    def total(self) -> int:
        """All jobs that were ever put into it."""
        return sum(self.states.values())

    @property
    def is_settled(self) -> bool:
        """Whether every job is final or waits for a person (`unsure`)."""
        resting = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.UNSURE)
        return self.total == sum(self.states[state] for state in resting)

    def as_dict(self) -> dict[str, Any]:
        """The shape that the command line and callbacks show; scripts may rely on its names."""
        return {
            "batch": self.name,
            "states": {state.value: count for state, count in self.states.items()},
            "total": self.total,
            "settled": self.is_settled,
            "credits": self.credits,
        }


@dataclass(frozen=True, slots=True)
class CallbackCounts:
    """How many callbacks are pending (`waiting`: of those, behind an earlier one of their job), were given up,
    and were ever delivered; how many workers deliver them."""

    pending: int = 0
    waiting: int = 0
    undelivered: int = 0
    delivered: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class ArchiveCounts:
    """Of how many jobs the songs are to be archived, were given up, and were ever archived, in how many `files`;
    how many workers archive."""

    pending: int = 0
    failed: int = 0
    jobs: int = 0
    files: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The queue, or one batch of it, at a glance (`failures`, by code, `rejects`, `callbacks` and `archive` are
    counted for all jobs together only).

    `limit` is how many jobs may be in flight now; `pace` how many succeed a minute, of late;
    `seconds_left` the time to finish all that is not settled at that pace (None: nothing to go by);
    `rejects` how many messages became no job.
    """

    states: dict[State, int]
    gate: Gate
    in_flight: int
    limit: int
    credits: int
    workers: int
    account: Account
    backlog: tuple[Line, ...]
    failures: dict[str, int]
    pace: float
    seconds_left: float | None
    rejects: int = 0
    callbacks: CallbackCounts = CallbackCounts()
    archive: ArchiveCounts = ArchiveCounts()
