"""The gate between admitted jobs and their orders: a job passes once its recording is known to be fit.

A job keeps its slot for the first seconds of a check. If the check takes longer, the job is queued again, and passes at
a later admission with the outcome that the check has left in Redis. After the first such check of a host, its next jobs
are queued at once. While a host is left alone after failures, its jobs rest, and no failure is counted. A worker that
is killed leaves the job admitted: nothing was sent, and it is checked again.
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
    url: str
    future: Future[CheckOutcome | None]
    #: When its job gives up its slot, by the monotonic clock.
    until: float
    #: Whether its host was known to be slow.
    is_slow: bool
    #: Whether the job has joined an older check before, whose outcome does not apply to it.
    is_second: bool = False


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

    def _start(self, checks: RecordingChecks, job: UncheckedJob, url: str, *, is_second: bool = False) -> None:
        is_slow, hold_s = checks.is_slow(url), checks.timeouts.hold_s
        if is_slow or job.has_waited:
            hold_s = 0.0 if is_slow else min(HOLD_AGAIN_S, hold_s)
        future = checks.start(url, is_last=self._is_last(checks, job))
        self._open.append(_Check(job, url, future, time.monotonic() + hold_s, is_slow, is_second))

    def _is_last(self, checks: RecordingChecks, job: UncheckedJob) -> bool:
        """Return whether the time for checks of the job is over: its last one takes place also in a pause."""
        since = job.waits_since
        return since is not None and self._services.clock() >= since + checks.timeouts.give_up_after_s

    def is_current(self, claim: SubmitClaim) -> bool:
        """Return whether the claimed job has not changed since its recording was checked."""
        return self._checks is None or claim.version == self._versions.get(claim.job_id, claim.version) + 1

    def collect(self, timeout_s: float) -> list[str]:
        """Return the jobs whose recordings were found fit; wait up to `timeout_s` seconds for the first check.

        The other checked jobs fail or are queued again, and so are jobs whose check takes too long.
        """
        checks = self._checks
        if not self._open or checks is None:
            return []
        passed: list[str] = []
        first_late_s = min(check.until for check in self._open) - time.monotonic()
        wait([check.future for check in self._open], max(0.0, min(timeout_s, first_late_s)), FIRST_COMPLETED)
        now = time.monotonic()
        done = [check for check in self._open if check.future.done()]
        late = [check for check in self._open if check not in done and now >= check.until]
        self._open = [check for check in self._open if check not in done and check not in late]
        with defer_to_reconciler([check.job.job_id for check in (*done, *late)]):
            passed = self._settle(self._outcomes(checks, done))
            at = self._services.clock()
            self._apply([decisions.check_in_progress(check.job, at, keeps_place=not check.is_slow) for check in late])
            for check in late:
                checks.note_late(check.url)
        return passed

    def _outcomes(self, checks: RecordingChecks, done: Sequence[_Check]) -> list[tuple[UncheckedJob, CheckOutcome]]:
        """Return the outcomes that apply; queue the jobs whose host is left alone."""
        outcomes: list[tuple[UncheckedJob, CheckOutcome]] = []
        postponed: list[Transition] = []
        at = self._services.clock()
        for check in done:
            outcome = check.future.result()
            if outcome is None:
                pause_s = checks.pause_s(check.url)
                postponed.append(decisions.check_postponed(check.job, at, pause_s, checks.timeouts))
            elif outcome.code is not None and outcome.at < check.job.asked_at and not check.is_second:
                self._start(checks, check.job, check.url, is_second=True)
            else:
                outcomes.append((check.job, outcome))
        self._apply(postponed)
        return outcomes

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
