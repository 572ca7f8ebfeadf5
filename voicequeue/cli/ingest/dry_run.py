"""`ingest --dry-run`: what ingesting a file would do, without changing anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from voicequeue.cli.ingest.intake import Item, rejection_kind
from voicequeue.cli.terminal import escape_untrusted, format_duration, format_time, out, print_json, print_reasons
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.job import to_iso8601
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.states import ACTIVE
from voicequeue.domain.status import Status
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.checkpoint import IngestCounts

#: Rejected rows that are reported with their reason, from the first line on.
PROBLEMS_SHOWN = 5


@dataclass(slots=True)
class DryRunResult:
    """The result that ingesting would have, and the first problems as line and reason."""

    counts: IngestCounts = field(default_factory=IngestCounts)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def reject(self, item: Item, error: VoiceQueueError) -> None:
        """Count a row that would be rejected."""
        self.counts.reject(rejection_kind(error))
        self.problems = sorted([*self.problems, (item.row.line, str(error))])[:PROBLEMS_SHOWN]


def run(items: Iterator[Item], jobs: VoiceQueue) -> DryRunResult:
    """Return the result that ingesting the items would have."""
    outlook, previewed = DryRunResult(), deque[Item]()

    def valid_jobs() -> Iterator[VoiceJob]:
        for item in items:
            if item.error is not None:
                outlook.reject(item, item.error)
            for warning in item.warnings:
                outlook.counts.warn(warning.kind)
            for job in item.job.expand() if item.job else ():
                previewed.append(item)
                yield job

    for preview in jobs.preview(valid_jobs()):
        item = previewed.popleft()
        outlook.counts.new += preview.is_new
        outlook.counts.existing += not preview.is_new and preview.error is None
        outlook.counts.credits += preview.credits
        if preview.error is not None:
            outlook.reject(item, preview.error)
    return outlook


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
        """Credits that are neither reserved nor below the minimum balance; None if the balance is not known."""
        account = self.status.account
        return None if account.balance is None else max(0, account.balance - account.reserved - self.min_balance)

    @property
    def unsettled(self) -> int:
        """Jobs that are in the queue already."""
        return sum(self.status.states[state] for state in ACTIVE)

    def seconds(self, new: int) -> float | None:
        """Return how long the queue takes for its jobs and the new ones, at the current throughput."""
        return (self.unsettled + new) * 60 / self.status.jobs_per_minute if self.status.jobs_per_minute else None


def report(outlook: DryRunResult, means: Budget, *, as_json: bool) -> None:
    """Print the result."""
    if as_json:
        print_json(_json(outlook, means))
        return
    counts = outlook.counts
    out.print(
        f"dry run, nothing was changed: [green]{counts.new:,} new[/], {counts.existing:,} existing, "
        f"{counts.rejected:,} rejected"
    )
    print_reasons(counts.reasons)
    for line, reason in outlook.problems:
        out.print(f"  line {line}: {escape_untrusted(reason)}", soft_wrap=True)
    out.print(f"credits    the new jobs will cost {counts.credits:,}; {_affordability(counts.credits, means)}")
    out.print(f"time       {_duration(counts.new, means)}")


def _affordability(cost: int, means: Budget) -> str:
    account, spendable = means.status.account, means.spendable
    if spendable is None:
        return "the balance is not known yet"
    balance = f"{account.balance or 0:,} were left at {format_time(account.updated_at)}"
    unavailable = {
        " are reserved for jobs in flight or unsure": account.reserved,
        " are the minimum balance": means.min_balance,
    }
    less = "".join(f", of which {credits:,}{use}" for use, credits in unavailable.items() if credits)
    verdict = "[green]enough[/]" if spendable >= cost else f"[red]{cost - spendable:,} too few[/]"
    queued = f" ({means.unsettled:,} jobs queued or in flight are paid first)" if means.unsettled else ""
    return f"{balance}{less}: {verdict}{queued}"


def _duration(new: int, means: Budget) -> str:
    seconds = means.seconds(new)
    if seconds is None:
        return "unknown: no job has succeeded in the last minutes"
    after = f", after {means.unsettled:,} existing jobs" if means.unsettled else ""
    return f"about {format_duration(seconds)} at the current {means.status.jobs_per_minute:,.1f} jobs/min{after}"


def _json(outlook: DryRunResult, means: Budget) -> dict[str, Any]:
    counts, account = outlook.counts, means.status.account
    return {
        "new": counts.new,
        "existing": counts.existing,
        "rejected": counts.rejected,
        "reasons": counts.reasons,
        "problems": [{"line": line, "reason": reason} for line, reason in outlook.problems],
        "credits": counts.credits,
        "balance": account.balance,
        "balance_at": to_iso8601(account.updated_at),
        "credits_reserved": account.reserved,
        "min_balance": means.min_balance,
        "is_affordable": None if means.spendable is None else means.spendable >= counts.credits,
        "unsettled": means.unsettled,
        "jobs_per_minute": means.status.jobs_per_minute,
        "seconds": means.seconds(counts.new),
    }
