"""Polls that one process of each worker repeats in its task, where orders may be ready within seconds.

A Celery message costs several times as much as the poll that it requests. Where polls are seconds apart, one process
of a worker stays in its poll task and polls all that is due; polls that are due soon need no message meanwhile, and
songs are ordered as soon as their voices are ready. Where orders take minutes, polls are further apart than a task may
stay, and each group of them, and each portion of songs, has its message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from tasks.background_orders import BackgroundOrders
from tasks.context import TaskContext
from tasks.poll import PollResult, PollRound, poll_orders
from tasks.submit import SubmitResult
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


@dataclass(frozen=True, slots=True)
class Messages:
    """Functions that send the messages of a poll task: for songs to order after a delay in seconds, and for polls."""

    submit: Callable[[list[str], float], object]
    poll: Callable[[PollRound], object]


def poll_repeatedly(services: TaskContext, job_ids: Sequence[str], messages: Messages) -> list[PollRound]:
    """Poll these jobs, and stay while polls are due soon, if this worker has no process that does; return the polls
    that a message must request."""
    may_stay = has_short_intervals(services)
    turn = poll_orders(services, job_ids, overdue_s=STAY_S if may_stay else 0.0)
    if may_stay and services.repeating.try_acquire():
        return _Stay(services, messages).run(turn)
    if turn.to_music:
        messages.submit(turn.to_music, 0.0)
    if not may_stay or turn.is_full:  # it is more than another process should poll
        return turn.rounds
    return [poll_round for poll_round in turn.rounds if needs_message(services, poll_round.delay_s)]


class _Stay:
    """The stay of a task, which holds the lock of its worker."""

    def __init__(self, services: TaskContext, messages: Messages) -> None:
        self._services = services
        self._messages = messages
        self._orders = BackgroundOrders(services)
        self._ends_at = services.clock() + STAY_S
        self._last_due = 0.0
        self._has_left = False

    def run(self, turn: PollResult) -> list[PollRound]:
        """Poll all that is due until the stay is over or no poll is due; return the next polls."""
        with closing(self._orders):
            try:
                turn = self._repeat(turn)
            finally:
                self._services.repeating.release()
            rounds = turn.rounds if self._has_left else self._remaining()
            if not self._orders.is_open:
                return rounds
            for poll_round in rounds:  # the answers to orders may take longer
                self._messages.poll(poll_round)
            return self._polls_of(self._orders.close())

    def _repeat(self, turn: PollResult) -> PollResult:
        services, interval_s = self._services, self._services.poll_plan.coalesce_interval_s
        self._plan(turn)
        while self._continues(interval_s):
            services.sleep(interval_s)
            if services.is_stopping():
                break
            for poll_round in self._polls_of(self._orders.collect()):
                self._rely_on(poll_round)
            turn = poll_orders(services, (), overdue_s=STAY_S, slow_after_s=SLOW_AFTER_S, on_slow=self._leave)
            self._plan(turn)
        return turn

    def _continues(self, interval_s: float) -> bool:
        """Return whether there is another round: during the stay while polls are due, and until all orders are
        answered, because the process waits for these anyway."""
        has_polls = self._services.clock() + interval_s < min(self._ends_at, self._last_due + interval_s)
        return not self._has_left and (has_polls or self._orders.is_open)

    def _plan(self, turn: PollResult) -> None:
        """Order the songs, send messages for the polls that are far off, and note when the others are due."""
        if turn.is_full:
            self._leave([job_id for poll_round in turn.rounds for job_id in poll_round.job_ids])
        self._order(turn.to_music)
        for poll_round in turn.rounds if not self._has_left else ():
            self._rely_on(poll_round)

    def _order(self, job_ids: list[str]) -> None:
        """Order songs, or have them ordered by a message: while others are, and once the stay is over."""
        services = self._services
        is_over = self._has_left or services.is_stopping() or services.clock() >= self._ends_at
        if job_ids and (is_over or not self._orders.start(job_ids)):
            self._messages.submit(job_ids, 0.0)

    def _polls_of(self, orders: SubmitResult) -> list[PollRound]:
        """Return the polls of songs that were ordered; send a message for those that must wait."""
        if orders.deferred:
            self._messages.submit(orders.deferred, orders.retry_in_s)
        return [PollRound(orders.pending, orders.poll_in_s, Stage.MUSIC)] if orders.pending else []

    def _rely_on(self, poll_round: PollRound) -> None:
        if poll_round.delay_s > RELIED_ON_S:
            self._messages.poll(poll_round)
        else:
            self._last_due = max(self._last_due, self._services.clock() + poll_round.delay_s)

    def _leave(self, own_ids: Sequence[str] = ()) -> None:
        """Leave the polls of jobs other than these to messages: answers are slow, or more polls are due than one
        process should make."""
        if self._has_left:
            return
        self._has_left = True
        self._services.repeating.release()
        for poll_round in self._remaining(own_ids):
            self._messages.poll(poll_round)

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
