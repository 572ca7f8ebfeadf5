"""What happened to jobs, one after the other, as it is told to whoever follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voicequeue.job import State, iso


@dataclass(frozen=True, slots=True)
class Event:
    """One move of one job; or (without a `job_id`) that jobs were enqueued, `reason` tells how many.

    `id` says from where to follow on; `at` is in Unix seconds.
    """

    id: str
    at: float
    job_id: str | None
    batch: str | None
    state: State
    stage: str | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The shape that HTTP shows; scripts may rely on its names."""
        return {
            "at": iso(self.at),
            "job_id": self.job_id,
            "batch": self.batch,
            "state": self.state.value,
            "stage": self.stage,
            "reason": self.reason,
        }


def event(event_id: str, fields: Mapping[str, str]) -> Event:
    """The event that an entry of the stream describes."""
    return Event(
        id=event_id,
        at=int(event_id.partition("-")[0]) / 1000,
        job_id=fields["id"] or None,
        batch=fields["batch"] or None,
        state=State(fields["state"]),
        stage=fields["stage"] or None,
        reason=fields["reason"],
    )


def place(event_id: str) -> tuple[int, int]:
    """An event's place among all, to be compared. Raises ValueError for what is no event's id."""
    at, dash, number = event_id.partition("-")
    if not (dash and at.isascii() and at.isdigit() and number.isascii() and number.isdigit() and len(event_id) <= 40):
        raise ValueError("must be an event's id, such as 1760000000000-0")
    found = int(at), int(number)
    if max(found) >= 2**64:
        raise ValueError("must be an event's id, such as 1760000000000-0")
    return found
