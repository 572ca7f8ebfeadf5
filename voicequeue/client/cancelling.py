"""Cancelling many jobs, even while they change."""

from __future__ import annotations

from collections.abc import Sequence

from voicequeue.domain import transitions
from voicequeue.domain.job import Job
from voicequeue.domain.states import State
from voicequeue.storage.job_store import JobStore

#: Jobs cancelled by one call to Redis.
_PAGE = 500


def cancel(store: JobStore, jobs: Sequence[Job], now: float) -> list[Job]:
    """Cancel jobs that are not settled, mark those that are `charging` or `unsure`, and return all as they are then.

    No further stage is submitted for any of them. A job that changed since it was read is cancelled in its new state.
    """
    # If the job that creates a voice were cancelled first, a job waiting for the voice would be queued to create it.
    waiting_first = sorted(jobs, key=lambda job: job.state is not State.WAITING)
    pages = (waiting_first[start : start + _PAGE] for start in range(0, len(waiting_first), _PAGE))
    return [job for page in pages for job in _cancel_page(store, page, now)]


def _cancel_page(store: JobStore, jobs: Sequence[Job], now: float) -> list[Job]:
    latest = {job.id: job for job in jobs}
    while open_jobs := [job for job in latest.values() if transitions.can_be_cancelled(job)]:
        store.apply_transitions(
            [transitions.cancel(job, now) for job in open_jobs if job.state in transitions.CANCELLABLE], now
        )
        store.request_cancellation([job for job in open_jobs if job.state in transitions.ONLY_MARKABLE], now)
        for open_job, job in zip(open_jobs, store.get([job.id for job in open_jobs]), strict=True):
            if job is None:  # it settled and was purged
                del latest[open_job.id]
            else:
                latest[job.id] = job
    return list(latest.values())
