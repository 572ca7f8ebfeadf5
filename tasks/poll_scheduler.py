"""Poll times of one process, from the schedules that all workers share and improve."""

from __future__ import annotations

import time
from collections.abc import Iterable

from voicequeue.domain import timeouts
from voicequeue.domain.claims import PollClaim
from voicequeue.domain.poll_schedule import DurationInterval, PollSchedulePolicy
from voicequeue.domain.stage import Stage
from voicequeue.domain.states import State
from voicequeue.storage.monitoring.metrics import MetricsCounter
from voicequeue.storage.poll_history import PollHistory

#: Maximum countdown in seconds. A longer one could exceed the broker's visibility timeout, so a longer order is polled
#: once in between.
COUNTDOWN_MAX_S = 120.0


def duration_kind(stage: Stage, model: str = "") -> str:
    """Return the key of orders that take about as long: those of a stage, and for songs of a model."""
    return f"{stage}:{model}" if model else stage


class PollScheduler:
    """Poll schedules, refreshed every few seconds. Safe to share between threads."""

    def __init__(self, history: PollHistory, plan: PollSchedulePolicy, metrics: MetricsCounter) -> None:
        self._history = history
        self._metrics = metrics
        self._policy = plan
        self._schedules: dict[str, list[float]] = {}
        self._refresh_at = 0.0

    def jitter(self) -> float:
        """Return the jitter that orders polled together share."""
        return self._policy.jitter()

    def next_delay(self, claim: PollClaim, now: float, jitter: float, *, has_failure_report: bool) -> float:
        """Return the delay until the next poll of this job, in seconds.

        The schedule does not apply once upstream reports a failure. A settled job is polled at growing intervals,
        unless other jobs wait for its outcome.
        """
        if claim.state is State.PENDING and not has_failure_report:
            return self.delay_for_age(now - claim.submitted_at, duration_kind(claim.stage, claim.model), jitter)
        if claim.state is State.FAILED or not has_failure_report:
            return max(self._policy.unscheduled_delay(jitter), timeouts.late_poll_delay(now - claim.submitted_at))
        return self._policy.unscheduled_delay(jitter)

    def delay_for_age(self, age: float, kind: str, jitter: float) -> float:
        """Return the delay until the next poll of an order of that age, in seconds."""
        if time.monotonic() >= self._refresh_at and not self._policy.is_fixed:
            self._refresh_at = time.monotonic() + self._policy.max_s
            self._schedules = self._history.schedules()
        return min(COUNTDOWN_MAX_S, self._policy.delay_from_schedule(age, self._schedules.get(kind, ()), jitter))

    def record_durations(self, ready: Iterable[PollClaim], now: float) -> None:
        """Record the durations of orders that are ready now."""
        spans_by_kind: dict[str, list[DurationInterval]] = {}
        for claim in ready:
            lower_s = 0.0 if claim.last_not_ready_at is None else claim.last_not_ready_at - claim.submitted_at
            if 0 <= lower_s < now - claim.submitted_at:  # otherwise the time of submission is unknown
                span = DurationInterval(lower_s, now - claim.submitted_at)
                spans_by_kind.setdefault(duration_kind(claim.stage, claim.model), []).append(span)
                self._metrics.observe("stage", claim.stage, now - claim.submitted_at)
                self._metrics.observe("result_detection_delay", claim.stage, now - claim.submitted_at - lower_s)
        self._history.add_durations(spans_by_kind)
