"""The credits that the account can spend on new jobs, beside those that other jobs will take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from voicequeue.cli.terminal import format_time
from voicequeue.client.queue import VoiceQueue, in_namespace
from voicequeue.domain.namespaces import ALL, Scope
from voicequeue.domain.states import ACTIVE
from voicequeue.domain.status import Batch, Status
from voicequeue.errors import BatchNotFoundError

#: The batches with queued jobs whose limits are read. All jobs of further ones count.
BATCHES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The state of the queue and the account when rows are ingested into a batch.

    `needed`: credits that queued jobs will take within the limits of their batches. `stopped`: those that the jobs of
    stopped batches would take in addition, once resumed. `room`: credits that the new jobs may spend within the limit
    of their batch; None if it has none.
    """

    status: Status
    min_balance: int
    needed: int
    stopped: int = 0
    room: int | None = None

    @classmethod
    def of(cls, jobs: VoiceQueue, batch: str, max_credits: int | None = None) -> Budget:
        """Read the current state. `max_credits`: the limit that the batch will get; None if it keeps its own."""
        queue, own = in_namespace(jobs, ALL), Scope(jobs.namespace).qualify(batch)  # the account is that of all
        status = queue.status()
        needed, stopped, room = status.account.queued_credits, 0, max_credits
        for stored in _batches(queue, status, own):
            is_own = stored.qualified_name == own
            limited = replace(stored, max_credits=max_credits) if is_own and max_credits is not None else stored
            usable = _usable(limited)
            needed -= limited.queued_credits - (0 if limited.stop else usable)
            stopped += usable if limited.stop else 0
            if is_own and limited.max_credits is not None:
                room = _unspent(limited, limited.max_credits) - usable
        return cls(status, queue.limits().min_balance, max(0, needed), stopped, room)

    @property
    def spendable(self) -> int | None:
        """The credits that no other job will take, above the minimum balance; negative if jobs lack credits already.

        None if the balance is not known.
        """
        balance = self.status.account.balance
        return None if balance is None else balance - sum(self.unavailable.values())

    @property
    def unavailable(self) -> dict[str, int]:
        """Credits of the balance that cannot be spent on new jobs, by reason."""
        return {
            "already needed by queued jobs": self.needed,
            "reserved for jobs in flight or unsure": self.status.account.reserved,
            "the minimum balance": self.min_balance,
        }

    @property
    def unsettled(self) -> int:
        """Jobs that are in the queue already."""
        return sum(self.status.states[state] for state in ACTIVE)

    def seconds(self, new: int) -> float | None:
        """Return how long the queue takes for its jobs and the new ones, at the measured pace.

        None if unknown: no job has succeeded in the last minutes, or the queue had too few jobs to show its pace.
        """
        pace = self.status.jobs_per_minute
        return (self.unsettled + new) * 60 / pace if pace and self.unsettled else None

    def limited(self, cost: int) -> int:
        """Return what of the cost of new jobs the limit of their batch allows."""
        return cost if self.room is None else min(cost, self.room)

    def suffices(self, cost: int) -> bool | None:
        """Return whether the account can pay `cost` for new jobs; None if the balance is not known."""
        limited = self.limited(cost)
        return None if self.spendable is None else limited == 0 or self.spendable >= limited

    def explanation(self, cost: int) -> str:
        """Return the balance, what of it is not available, and whether the rest suffices for `cost`."""
        if self.spendable is None:
            return "the balance is not known yet"
        account, limited = self.status.account, self.limited(cost)
        uses = ", ".join(f"{credits:,} are {use}" for use, credits in self.unavailable.items() if credits)
        verdict = "enough" if self.suffices(cost) else f"{limited - self.spendable:,} too few"
        limit = f" for the {limited:,} that the limit of the batch allows" if limited < cost else ""
        stopped = f" (stopped batches need {self.stopped:,} more once they are resumed)" if self.stopped else ""
        balance = f"{account.balance or 0:,} were left at {format_time(account.updated_at)}"
        return f"{balance}{'; ' if uses else ''}{uses}{stopped}: {verdict}{limit}"


def _batches(jobs: VoiceQueue, status: Status, own: str) -> Iterator[Batch]:
    """Yield the own batch and those with queued jobs, as far as they exist."""
    names = dict.fromkeys((own, *(lane.qualified_batch for lane in status.backlog if lane.batch is not None)))
    for name in islice(names, BATCHES_MAX):
        with suppress(BatchNotFoundError):
            yield jobs.batch(name)


def _unspent(batch: Batch, max_credits: int) -> int:
    return max(0, max_credits - batch.credits - batch.reserved_credits)


def _usable(batch: Batch) -> int:
    """Return what of the credits of its queued jobs the limit of a batch allows."""
    if batch.max_credits is None:
        return batch.queued_credits
    return min(batch.queued_credits, _unspent(batch, batch.max_credits))
