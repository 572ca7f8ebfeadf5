"""Credits: what the rows of a file cost, and whether the account can pay for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import typer

from voicequeue.cli.ingest.budget import Budget
from voicequeue.cli.ingest.errors import DeclinedError, NotAffordableError
from voicequeue.cli.ingest.intake import Item
from voicequeue.cli.ingest.outcomes import preview
from voicequeue.cli.ingest.source import Source
from voicequeue.cli.terminal import print_note
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.stage import PRICES
from voicequeue.ingest.row import FileKind
from voicequeue.texts import pluralize

_READ_BYTES = 1_048_576

#: The rows of a worksheet.
_WORKSHEET_ROWS_MAX = 1_048_576


class Confirmation:
    """The caller's consent to rows that the account cannot pay for: `--yes`, or the answer on the terminal.

    `batch` gets the rows; `max_credits` is the limit that it will get, None if it keeps its own.
    """

    def __init__(self, jobs: VoiceQueue, batch: str, *, yes: bool, max_credits: int | None) -> None:
        self._jobs = jobs
        self._batch = batch
        self._max_credits = max_credits
        self._left = 0  # credits that can be spent at least
        self.is_given = yes
        self._is_unknown_reported = False

    def check_file(self, source: Source, items: Callable[[], Iterator[Item]]) -> None:
        """Ask before the first row of a file is enqueued, if its rows cost more than the account can pay.

        The exact cost is computed only if an upper bound is too much. Raises NotAffordableError, DeclinedError.
        """
        if self.is_given or self._suffices(budget := self.budget(), _credits_max(source)):
            return
        outcomes = preview(source.shown(items(), "computing the cost"), self._jobs)
        cost = sum(outcome.credits for outcome in outcomes)
        if not budget.suffices(cost):
            self._ask(cost, budget)

    def check_chunk(self, chunk: Sequence[Item]) -> None:
        """Check rows of a stream before they are enqueued; a stream leaves no terminal to ask on.

        Raises NotAffordableError.
        """
        cost_max = sum(item.job.credits for item in chunk if item.job)
        if self.is_given or cost_max <= self._left:
            self._left -= cost_max
            return
        budget = self.budget()
        if not self._suffices(budget, cost_max):
            cost = sum(outcome.credits for outcome in preview(chunk, self._jobs))
            if not budget.suffices(cost):
                raise NotAffordableError(f"The next {pluralize(len(chunk), 'row')} {_costs(cost, budget)} {_CURES}")
        self._left = (budget.spendable or 0) - cost_max

    def budget(self) -> Budget:
        """Return what the account can pay for now."""
        return Budget.of(self._jobs, self._batch, self._max_credits)

    def _suffices(self, budget: Budget, cost: int) -> bool:
        """Return whether the account can pay so much, or its balance is not known, which is reported once."""
        suffices = budget.suffices(cost)
        if suffices is None:
            if not self._is_unknown_reported:
                print_note("the balance of the account is not known yet: it may not suffice for the new jobs")
            self._is_unknown_reported = True
        return suffices is not False

    def _ask(self, cost: int, budget: Budget) -> None:
        question = f"The new jobs {_costs(cost, budget)}"
        if not _is_interactive():
            raise NotAffordableError(f"{question} {_CURES}")
        try:
            is_confirmed = typer.confirm(f"{question} Jobs that cannot be paid for wait. Enqueue them?", err=True)
        except typer.Abort:  # Ctrl-C, or the end of the input
            is_confirmed = False
        if not is_confirmed:
            raise DeclinedError("the new jobs were not confirmed")


_CURES = (
    "Add credits to the account, limit the batch with --max-credits, or pass --yes: the jobs then wait until the "
    "account can pay for them"
)


def _costs(cost: int, budget: Budget) -> str:
    return f"cost up to {pluralize(cost, 'credit')}; {budget.explanation(cost)}."


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
