"""Cancel jobs, whatever becomes of them meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from voicequeue.domain import transitions
from voicequeue.domain.job import Job, State
from voicequeue.storage.job_store import Store

#: Jobs that are cancelled together.
_PAGE = 500


def cancel(store: Store, jobs: Sequence[Job], now: float) -> list[Job]:
    """Cancel jobs that are not over, and mark those whose order is on its way or was lost: no further stage is
    ordered for any of them.

    A job that has moved on since it was read is cancelled where it is now. Gives the jobs as they are afterwards.
    """
    # A job that waits would else be given the voice to make of one that is cancelled with it.
    waiting_first = sorted(jobs, key=lambda job: job.state is not State.WAITING)
    pages = (waiting_first[start : start + _PAGE] for start in range(0, len(waiting_first), _PAGE))
    return [job for page in pages for job in _cancel(store, page, now)]


def _cancel(store: Store, jobs: Sequence[Job], now: float) -> list[Job]:
    latest = {job.id: job for job in jobs}
    while open_jobs := [job for job in latest.values() if transitions.can_be_cancelled(job)]:
        store.apply([transitions.cancel(job, now) for job in open_jobs if job.state in transitions.CANCELLABLE], now)
        store.withdraw([job for job in open_jobs if job.state in transitions.UNDER_WAY], now)
        for open_job, job in zip(open_jobs, store.get([job.id for job in open_jobs]), strict=True):
            if job is None:  # it was over, and is purged
                del latest[open_job.id]
            else:
                latest[job.id] = job
    return list(latest.values())
