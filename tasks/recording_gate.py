"""The gate between admitted jobs and their orders: a job passes once its recording is known to be fit.

A job keeps its slot for the first seconds of a check. If the check takes longer, the job is queued again, and passes at
a later admission with the outcome that the check has left in Redis. A worker that is killed leaves the job admitted:
nothing was sent, and it is checked again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from tasks import decisions
from tasks.context import TaskContext, defer_to_reconciler
from tasks.recordings import RecordingChecks
from voicequeue.domain.claims import SubmitClaim
from voicequeue.domain.job import Transition
from voicequeue.domain.recording_check import CheckOutcome, UncheckedJob
from voicequeue.domain.stage import Stage

log = logging.getLogger("voicequeue")


#: The time (seconds) for which a job keeps its slot that has waited for its check before.
HOLD_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class _Check:
    job: UncheckedJob
    future: Future[CheckOutcome]
    #: When its job gives up its slot, by the monotonic clock.
    until: float


class RecordingGate:
    """The checks that the jobs of one chunk wait for. Every job passes at once where nothing is checked."""

    def __init__(self, services: TaskContext, stage: Stage) -> None:
        self._services = services
        self._checks: RecordingChecks | None = services.recordings if stage is Stage.VOICE else None
        self._open: list[_Check] = []
        self._versions: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        """True while jobs wait for a check."""
        return bool(self._open)

    def enter(self, job_ids: Sequence[str]) -> list[str]:
        """Start the checks of these jobs; return the jobs that pass already.

        A job that is not admitted does not pass: it might be admitted, unchecked, before it is claimed. Another message
        follows its admission.
        """
        if self._checks is None:
            return list(job_ids)
        passed: list[str] = []
        with defer_to_reconciler(job_ids):
            jobs = self._checks.recordings.unchecked(job_ids)
            self._versions = {job.job_id: job.version for job in jobs}
            outcomes = self._checks.recordings.outcomes({job.url for job in jobs if job.url is not None})
            checked: list[tuple[UncheckedJob, CheckOutcome]] = []
            for job in jobs:
                if job.url is None:
                    passed.append(job.job_id)
                elif (outcome := outcomes.get(job.url)) is not None and job.accepts(outcome):
                    checked.append((job, outcome))
                else:
                    self._start(self._checks, job, job.url)
            passed += self._settle(checked)
        return passed

    def _start(self, checks: RecordingChecks, job: UncheckedJob, url: str) -> None:
        hold_s = min(HOLD_AGAIN_S, checks.timeouts.hold_s) if job.has_waited else checks.timeouts.hold_s
        self._open.append(_Check(job, checks.start(url), time.monotonic() + hold_s))

    def is_current(self, claim: SubmitClaim) -> bool:
        """Return whether the claimed job has not changed since its recording was checked."""
        return self._checks is None or claim.version == self._versions.get(claim.job_id, claim.version) + 1

    def collect(self, timeout_s: float) -> list[str]:
        """Return the jobs whose recordings were found fit; wait up to `timeout_s` seconds for the first check.

        The other checked jobs fail or are queued again, and so are jobs whose check takes too long.
        """
        if not self._open:
            return []
        passed: list[str] = []
        wait([check.future for check in self._open], timeout_s, FIRST_COMPLETED)
        now = time.monotonic()
        done = [check for check in self._open if check.future.done()]
        late = [check for check in self._open if check not in done and now >= check.until]
        self._open = [check for check in self._open if check not in done and check not in late]
        with defer_to_reconciler([check.job.job_id for check in (*done, *late)]):
            passed = self._settle([(check.job, check.future.result()) for check in done])
            at = self._services.clock()
            self._apply([decisions.check_in_progress(check.job, at) for check in late])
        return passed

    def leave(self) -> list[str]:
        """Wait for no further check; return the jobs that waited."""
        waiting = [check.job.job_id for check in self._open]
        self._open.clear()
        return waiting

    def _settle(self, checked: Sequence[tuple[UncheckedJob, CheckOutcome]]) -> list[str]:
        """Fail or queue the jobs whose check failed; return the others."""
        if self._checks is None:
            return []
        now = self._services.clock()
        failed = [(job, outcome) for job, outcome in checked if outcome.code is not None]
        self._apply([decisions.check_failed(job, outcome, now, self._checks.timeouts) for job, outcome in failed])
        for job, outcome in failed:
            context = {"job": job.job_id, "stage": str(Stage.VOICE), "outcome": outcome.result}
            log.info("recording checked", extra={**context, "reason": outcome.message})
        return [job.job_id for job, outcome in checked if outcome.code is None]

    def _apply(self, transitions: Sequence[Transition]) -> None:
        if transitions:
            self._services.store.apply_transitions(transitions, self._services.clock())
