"""A call that enqueues jobs while its caller does something else."""

from __future__ import annotations

from collections.abc import Callable

from voicequeue.domain.claims import BudgetRefusal, EnqueueOutcome
from voicequeue.storage import scripts
from voicequeue.storage.job_ids import StaleIdsError
from voicequeue.storage.script_replies import parse_enqueue_outcome

#: The outcome of one job.
EnqueueReply = EnqueueOutcome | BudgetRefusal


class EnqueueCall:
    """A running call that enqueues jobs at the time `now` (Unix seconds)."""

    def __init__(
        self,
        call: scripts.ScriptCall,
        now: float,
        after_retry: Callable[[list[EnqueueReply]], list[EnqueueReply]],
        *,
        shows_account: bool,
    ) -> None:
        self._call, self._now, self._after_retry = call, now, after_retry
        self._shows_account = shows_account

    def send(self) -> None:
        """Send the call to Redis."""
        self._call.send()

    def outcomes(self) -> list[EnqueueReply]:
        """Wait for the reply and return the outcome of each job. Raises StaleIdsError."""
        replies = self._call.result()
        if replies is None:
            raise StaleIdsError
        outcomes = [parse_enqueue_outcome(reply, self._now, shows_account=self._shows_account) for reply in replies]
        return self._after_retry(outcomes) if self._call.may_have_run_twice() else outcomes
