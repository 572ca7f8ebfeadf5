"""Credits: what the rows of a file cost, and whether the account can pay for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import typer

from voicequeue.cli.ingest.errors import NotAffordableError
from voicequeue.cli.ingest.intake import Item
from voicequeue.cli.ingest.outcomes import preview
from voicequeue.cli.ingest.source import Source
from voicequeue.cli.terminal import format_time
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import ACTIVE
from voicequeue.domain.status import Status
from voicequeue.ingest.checkpoint import IngestCounts
from voicequeue.ingest.row import FileKind

_READ_BYTES = 1_048_576

#: The rows of a worksheet.
_WORKSHEET_ROWS_MAX = 1_048_576


@dataclass(frozen=True, slots=True)
class Budget:
    """The state of the queue and the account, and the minimum balance."""

    status: Status
    min_balance: int

    @classmethod
    def of(cls, jobs: VoiceQueue) -> Budget:
        """Read the current state."""
        return cls(jobs.status(), jobs.limits().min_balance)

    @property
    def spendable(self) -> int | None:
        """Credits that no other job will take, above the minimum balance; None if the balance is not known."""
        balance = self.status.account.balance
        return None if balance is None else max(0, balance - sum(self.unavailable.values()))

    @property
    def unavailable(self) -> dict[str, int]:
        """Credits of the balance that cannot be spent on new jobs, by reason."""
        account = self.status.account
        return {
            "reserved for jobs in flight or unsure": account.reserved,
            "needed by queued jobs": account.queued_credits,
            "the minimum balance": self.min_balance,
        }

    @property
    def unsettled(self) -> int:
        """Jobs that are in the queue already."""
        return sum(self.status.states[state] for state in ACTIVE)

    def seconds(self, new: int) -> float | None:
        """Return how long the queue takes for its jobs and the new ones, at the measured pace; None if unknown."""
        return (self.unsettled + new) * 60 / self.status.jobs_per_minute if self.status.jobs_per_minute else None

    def explanation(self, cost: int) -> str:
        """Return the balance, what of it is not available, and whether the rest suffices for `cost`."""
        if self.spendable is None:
            return "the balance is not known yet"
        account = self.status.account
        less = "".join(f", of which {credits:,} are {use}" for use, credits in self.unavailable.items() if credits)
        verdict = "enough" if self.spendable >= cost else f"{cost - self.spendable:,} too few"
        return f"{account.balance or 0:,} were left at {format_time(account.updated_at)}{less}: {verdict}"


class Confirmation:
    """The caller's consent to rows that the account cannot pay for: `--yes`, or the answer on the terminal.

    `max_credits` limits what the batch may spend, however many rows are enqueued.
    """

    def __init__(self, jobs: VoiceQueue, *, yes: bool, max_credits: int | None) -> None:
        self._jobs = jobs
        self._max_credits = max_credits
        self._left = 0  # credits that are spendable at least
        self.is_given = yes

    def check_file(self, source: Source, items: Callable[[], Iterator[Item]]) -> None:
        """Ask before the first row of a file is enqueued, if its rows cost more than the account can pay.

        The exact cost is computed only if an upper bound is too much. Raises NotAffordableError.
        """
        if self.is_given or (budget := Budget.of(self._jobs)).spendable is None:
            return
        if self._limited(_credits_max(source)) <= budget.spendable:
            return
        outcomes = preview(source.shown(items(), "computing the cost"), self._jobs)
        cost = self._limited(sum(outcome.credits for outcome in outcomes))
        if cost > budget.spendable:
            self._ask(cost, budget)

    def check_chunk(self, chunk: Sequence[Item], counts: IngestCounts) -> None:
        """Check rows of a stream before they are enqueued; a stream leaves no terminal to ask on.

        Raises NotAffordableError.
        """
        cost_max = sum(item.job.credits for item in chunk if item.job)
        if self.is_given or cost_max <= self._left:
            self._left -= cost_max
            return
        budget = Budget.of(self._jobs)
        if budget.spendable is None:
            return
        if cost_max > budget.spendable:
            cost = counts.credits + sum(outcome.credits for outcome in preview(chunk, self._jobs))
            cost = self._limited(cost) - self._limited(counts.credits)
            if cost > budget.spendable:
                raise NotAffordableError(f"The next {len(chunk):,} rows {_costs(cost, budget)} {_CURES}")
        self._left = budget.spendable - cost_max

    def _limited(self, cost: int) -> int:
        return cost if self._max_credits is None else min(cost, self._max_credits)

    def _ask(self, cost: int, budget: Budget) -> None:
        question = f"The new jobs {_costs(cost, budget)}"
        if not _is_interactive():
            raise NotAffordableError(f"{question} {_CURES}")
        typer.confirm(f"{question} Jobs that cannot be paid for wait. Enqueue them?", abort=True, err=True)


_CURES = (
    "Add credits to the account, limit the batch with --max-credits, or pass --yes: the jobs then wait until the "
    "account can pay for them"
)


def _costs(cost: int, budget: Budget) -> str:
    return f"cost up to {cost:,} credits; {budget.explanation(cost)}."


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _credits_max(source: Source) -> int:
    """Return an upper bound of the cost of all rows, without parsing them.

    A row is at least a line, or one object of JSON; so is each of its songs.
    """
    if source.rows.format.kind is FileKind.EXCEL:
        return _WORKSHEET_ROWS_MAX * sum(PRICES.values())
    line_feeds, returns, objects = 0, 0, 0
    for piece in source.pieces(_READ_BYTES):
        line_feeds += piece.count(b"\n")
        returns += piece.count(b"\r")
        objects += piece.count(b"{")
    return (max(line_feeds, returns) + objects + 1) * sum(PRICES.values())
