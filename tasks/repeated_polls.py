"""Polls that one process of each worker repeats in its task, where orders may be ready within seconds.

A Celery message costs several times as much as the poll that it requests. Where polls are seconds apart, one process
of a worker stays in its poll task and polls all that is due; polls that are due soon need no message meanwhile. Where
orders take minutes, polls are further apart than a task may stay, and each group of them has its message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tasks.context import TaskContext
from tasks.poll import PollResult, PollRound, poll_orders
from voicequeue.domain.stage import Stage
from voicequeue.storage.coordination import DuePoll

#: Seconds for which a task stays: other tasks of its worker may wait for its process.
STAY_S = 2.0

#: The intervals of polls (seconds) with which a task stays.
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.02, STAY_S / 4

#: Seconds after which the answers to a round count as slow: until then, polls of other jobs may wait for them.
SLOW_AFTER_S = 1.0

#: Seconds within which due polls need no message while a process of the worker stays: before it leaves, it sends a
#: message for those that are still to be made.
RELIED_ON_S = 30.0

#: Polls that are late for longer are left to maintenance; how often one worker hands out late ones (seconds), and how
#: many at once.
ABANDONED_MAX_S, ABANDONED_EVERY_S, ABANDONED_AT_ONCE = 60.0, 3.0, 500

#: The number of such polls that a message names: the others are found due by the process that receives it.
NAMED_MAX = 20


def has_short_intervals(services: TaskContext) -> bool:
    """Return whether processes of this worker stay in their poll tasks."""
    is_short = INTERVAL_MIN_S <= services.poll_plan.coalesce_interval_s <= INTERVAL_MAX_S
    return is_short and services.repeating.is_open


def abandoned_polls(services: TaskContext) -> list[DuePoll]:
    """Return polls that are so late that no process which stays makes them: the one that they were left to was killed,
    its message was lost, or Redis did not answer for seconds."""
    coordination, now = services.store.coordination, services.clock()
    if not has_short_intervals(services) or not coordination.try_acquire("abandoned_polls", ttl_s=ABANDONED_EVERY_S):
        return []
    return coordination.due_polls(now - ABANDONED_MAX_S, now - STAY_S, at_most=ABANDONED_AT_ONCE)


def needs_message(services: TaskContext, delay_s: float) -> bool:
    """Return whether a poll in `delay_s` seconds needs a message, because no process of this worker will make it."""
    return delay_s > RELIED_ON_S or not services.repeating.is_held_elsewhere()


def poll_repeatedly(
    services: TaskContext,
    job_ids: Sequence[str],
    submit: Callable[[list[str]], object],
    send: Callable[[PollRound], object],
) -> list[PollRound]:
    """Poll these jobs, and stay while polls are due soon, if this worker has no process that does; return the polls
    that a message must request.

    Jobs whose song is to be submitted are given to `submit`, and polls meanwhile that need a message to `send`.
    """
    may_stay = has_short_intervals(services)
    turn = poll_orders(services, job_ids, overdue_s=STAY_S if may_stay else 0.0)
    submit(turn.to_music)
    if may_stay and services.repeating.try_acquire():
        return _Stay(services, submit, send).run(turn)
    if not may_stay or turn.is_full:  # it is more than another process should poll
        return turn.rounds
    return [poll_round for poll_round in turn.rounds if needs_message(services, poll_round.delay_s)]


class _Stay:
    """The stay of a task, which holds the lock of its worker."""

    def __init__(
        self, services: TaskContext, submit: Callable[[list[str]], object], send: Callable[[PollRound], object]
    ) -> None:
        self._services = services
        self._submit = submit
        self._send = send
        self._last_due = 0.0
        self._has_left = False

    def run(self, turn: PollResult) -> list[PollRound]:
        """Poll all that is due until the stay is over or no poll is due; return the next polls."""
        services = self._services
        ends_at, interval_s = services.clock() + STAY_S, services.poll_plan.coalesce_interval_s
        try:
            self._plan(turn)
            while services.clock() + interval_s < min(ends_at, self._last_due + interval_s) and not self._has_left:
                services.sleep(interval_s)
                if services.is_stopping():
                    break
                turn = poll_orders(services, (), overdue_s=STAY_S, slow_after_s=SLOW_AFTER_S, on_slow=self._leave)
                self._submit(turn.to_music)
                self._plan(turn)
        finally:
            services.repeating.release()
        return turn.rounds if self._has_left else self._remaining()

    def _plan(self, turn: PollResult) -> None:
        """Send messages for the polls that are far off, and note when the others are due."""
        if turn.is_full:
            self._leave([job_id for poll_round in turn.rounds for job_id in poll_round.job_ids])
        now = self._services.clock()
        for poll_round in turn.rounds if not self._has_left else ():
            if poll_round.delay_s > RELIED_ON_S:
                self._send(poll_round)
            else:
                self._last_due = max(self._last_due, now + poll_round.delay_s)

    def _leave(self, own_ids: Sequence[str] = ()) -> None:
        """Leave the polls of jobs other than these to messages: answers are slow, or more polls are due than one
        process should make."""
        if self._has_left:
            return
        self._has_left = True
        self._services.repeating.release()
        for poll_round in self._remaining(own_ids):
            self._send(poll_round)

    def _remaining(self, own_ids: Sequence[str] = ()) -> list[PollRound]:
        """Return the polls that need no message during the stay. Call it without the lock: polls that are planned
        afterwards have messages."""
        services, now = self._services, self._services.clock()
        polls = services.store.coordination.due_polls(now - STAY_S, now + RELIED_ON_S, at_most=NAMED_MAX)
        others = [poll for poll in polls if poll.job_id not in own_ids]
        by_stage = {stage: [poll for poll in others if poll.stage is stage] for stage in Stage}
        return [
            PollRound([poll.job_id for poll in group], max(0.0, group[0].due - now), stage)
            for stage, group in by_stage.items()
            if group
        ]
