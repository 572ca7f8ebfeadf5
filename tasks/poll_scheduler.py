"""Poll times of one process, from the schedules that all workers share and improve."""

from __future__ import annotations

import time
from collections.abc import Iterable

from voicequeue.domain import timeouts
from voicequeue.domain.claims import Claimed
from voicequeue.domain.job import State
from voicequeue.domain.poll_schedule import PollPlan, Span
from voicequeue.domain.stage import Stage
from voicequeue.storage.monitoring.metrics import Tally
from voicequeue.storage.poll_history import PollHistory

#: Maximum countdown in seconds. A longer one could exceed the broker's visibility timeout, so a longer order is polled
#: once in between.
COUNTDOWN_MAX_S = 120.0


def kind_of(stage: Stage, model: str = "") -> str:
    """Return the key of orders that take about as long: those of a stage, and for songs of a model."""
    return f"{stage}:{model}" if model else stage


class Polls:
    """Poll schedules, refreshed every few seconds. Safe to share between threads."""

    def __init__(self, history: PollHistory, plan: PollPlan, tally: Tally) -> None:
        self._history = history
        self._tally = tally
        self._plan = plan
        self._schedules: dict[str, list[float]] = {}
        self._refresh_at = 0.0

    def luck(self) -> float:
        """Return the jitter that orders polled together share."""
        return self._plan.luck()

    def wait(self, claim: Claimed, now: float, luck: float, *, is_doubted: bool) -> float:
        """Return the delay until the next poll of this job, in seconds.

        The schedule does not apply once upstream reports a failure. A settled job is polled at growing intervals,
        unless other jobs wait for its outcome.
        """
        if claim.state is State.PENDING and not is_doubted:
            return self.after(now - claim.since, kind_of(claim.stage, claim.model), luck)
        if claim.state is State.FAILED or not is_doubted:
            return max(self._plan.delay(luck), timeouts.look_again(now - claim.since))
        return self._plan.delay(luck)

    def after(self, age: float, kind: str, luck: float) -> float:
        """Return the delay until the next poll of an order of that age, in seconds."""
        if time.monotonic() >= self._refresh_at and not self._plan.is_fixed:
            self._refresh_at = time.monotonic() + self._plan.gap_s
            self._schedules = self._history.schedules()
        return min(COUNTDOWN_MAX_S, self._plan.after(age, self._schedules.get(kind, ()), luck))

    def learn(self, ready: Iterable[Claimed], now: float) -> None:
        """Record the durations of orders that are ready now."""
        spans_by_kind: dict[str, list[Span]] = {}
        for claim in ready:
            lower_s = 0.0 if claim.asked is None else claim.asked - claim.since
            if 0 <= lower_s < now - claim.since:  # otherwise the time of submission is unknown
                span = Span(lower_s, now - claim.since)
                spans_by_kind.setdefault(kind_of(claim.stage, claim.model), []).append(span)
                self._tally.measure("stage", claim.stage, now - claim.since)
                self._tally.measure("lateness", claim.stage, now - claim.since - lower_s)
        for kind, spans in spans_by_kind.items():
            self._history.add_durations(kind, spans)
