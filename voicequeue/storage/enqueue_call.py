"""A call that enqueues jobs while its caller does something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from voicequeue.domain.claims import BudgetRefusal, EnqueueOutcome
from voicequeue.domain.spec import VoiceJob
from voicequeue.storage import scripts
from voicequeue.storage.connection.keyspace import Keyspace
from voicequeue.storage.job_ids import StaleIdsError
from voicequeue.storage.script_replies import outcome_at_creation, parse_enqueue_outcome

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
        self._call, self.now, self._after_retry = call, now, after_retry
        self._shows_account = shows_account

    def send(self) -> None:
        """Send the call to Redis."""
        self._call.send()

    def outcomes(self) -> list[EnqueueReply]:
        """Wait for the reply and return the outcome of each job. Raises StaleIdsError."""
        replies = self._call.result()
        if replies is None:
            raise StaleIdsError
        outcomes = [parse_enqueue_outcome(reply, self.now, shows_account=self._shows_account) for reply in replies]
        return self._after_retry(outcomes) if self._call.may_have_run_twice() else outcomes


def outcomes_after_retry(
    space: Keyspace, jobs: Sequence[tuple[str, VoiceJob]], outcomes: list[EnqueueReply], now: float
) -> list[EnqueueReply]:
    """Correct the outcomes of a retried call: jobs created at its very time were created by its first attempt."""
    # If a job occurs twice in one call, only its first occurrence can be new.
    positions = {job_id: position for position, (job_id, _) in reversed(list(enumerate(jobs)))}
    known_ids = [job_id for job_id, position in positions.items() if outcomes[position] is EnqueueOutcome.EXISTING]
    with space.redis.pipeline(transaction=False) as pipe:
        for job_id in known_ids:
            pipe.hmget(space.key(f"job:{job_id}"), "created", "stage", "state")
        records = cast(list[list[str]], pipe.execute())
    latest = now + 1e-5 * len(jobs)  # the script creates the jobs of one call microseconds apart
    ours = {
        positions[job_id]: outcome_at_creation(jobs[positions[job_id]][1], stage, state)
        for job_id, (created, stage, state) in zip(known_ids, records, strict=True)
        if now - 1e-6 < float(created) < latest
    }
    return [ours.get(position, outcome) for position, outcome in enumerate(outcomes)]
