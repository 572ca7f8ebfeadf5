"""Holds of queued jobs, read as the admission decides them."""

from __future__ import annotations

from collections.abc import Sequence

from voicequeue.domain.budgets import period_ends
from voicequeue.domain.job_holds import JobHold
from voicequeue.domain.namespaces import split
from voicequeue.storage.connection.keyspace import Keyspace, rows

#: Jobs of one script; Redis does nothing else meanwhile.
_PAGE = 500


def read_job_holds(space: Keyspace, job_ids: Sequence[str], now: float) -> list[list[JobHold]]:
    """Return the holds of each job, besides those of the gate; [] for a job that is not queued."""
    replies: list[list[str]] = []
    for start in range(0, len(job_ids), _PAGE):
        replies += space.run_script("read_holds", f"{now:.6f}", *job_ids[start : start + _PAGE])
    ends = period_ends(now)
    return [[_job_hold(space, row, ends) for row in rows(reply, 3)] for reply in replies]


def _job_hold(space: Keyspace, row: tuple[str, ...], ends: dict[str, float]) -> JobHold:
    reason, owner, until = row
    kind, _, name = owner.partition("/")
    if kind == "batch" and not space.scope.is_all:
        owner = f"batch/{split(name)[1]}"
    if until == "reset":
        return JobHold(reason, owner, ends[reason.removeprefix("budget_")])
    return JobHold(reason, owner, float(until) if until else None)
