"""When this process asks upstream: by the schedules that all workers share, and learning from its answers."""

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

#: A countdown longer than this (seconds) could outlive the broker's patience with messages that wait: an
#: order that takes longer is asked about once in between.
COUNTDOWN_MAX_S = 120.0


def kind_of(stage: Stage, model: str = "") -> str:
    """Orders of one stage, and for songs of one model, take about as long."""
    return f"{stage}:{model}" if model else stage


class Polls:
    """The schedules, read anew every few seconds. Safe to share between threads."""

    def __init__(self, history: PollHistory, plan: PollPlan, tally: Tally) -> None:
        self._history = history
        self._tally = tally
        self._plan = plan
        self._schedules: dict[str, list[float]] = {}
        self._read_again = 0.0

    def luck(self) -> float:
        """What orders that are asked about together share."""
        return self._plan.luck()

    def wait(self, claim: Claimed, now: float, luck: float, *, is_doubted: bool) -> float:
        """Return how long to wait before asking about this job again, in seconds.

        Where upstream reports a failure, the plan says nothing any more; where the job is over, it is asked about ever
        more rarely, unless others wait for it to end.
        """
        if claim.state is State.PENDING and not is_doubted:
            return self.after(now - claim.since, kind_of(claim.stage, claim.model), luck)
        if claim.state is State.FAILED or not is_doubted:
            return max(self._plan.delay(luck), timeouts.look_again(now - claim.since))
        return self._plan.delay(luck)

    def after(self, age: float, kind: str, luck: float) -> float:
        """How long to wait before an order of that age is asked about, in seconds."""
        if time.monotonic() >= self._read_again and not self._plan.is_fixed:
            self._read_again = time.monotonic() + self._plan.gap_s
            self._schedules = self._history.schedules()
        return min(COUNTDOWN_MAX_S, self._plan.after(age, self._schedules.get(kind, ()), luck))

    def learn(self, ready: Iterable[Claimed], now: float) -> None:
        """Note how long these orders took, which are ready now."""
        spans: dict[str, list[Span]] = {}
        for claim in ready:
            over = 0.0 if claim.asked is None else claim.asked - claim.since
            if 0 <= over < now - claim.since:  # else nobody knows when it was ordered
                spans.setdefault(kind_of(claim.stage, claim.model), []).append(Span(over, now - claim.since))
                self._tally.measure("stage", claim.stage, now - claim.since)
                self._tally.measure("lateness", claim.stage, now - claim.since - over)
        for kind, found in spans.items():
            self._history.add_durations(kind, found)
