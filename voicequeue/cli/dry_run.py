"""`ingest --dry-run`: what a file would come to; nothing is changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from voicequeue.cli.intake import Item, kind
from voicequeue.cli.show import clock, print_reasons, span
from voicequeue.cli.terminal import out, print_json, safe
from voicequeue.client.queue import VoiceQueue
from voicequeue.domain.job import ACTIVE, iso
from voicequeue.domain.spec import VoiceJob
from voicequeue.domain.status import Status
from voicequeue.errors import VoiceQueueError
from voicequeue.ingest.checkpoint import Counts

#: So many rejected rows are told in full, the first ones.
TOLD = 5


@dataclass(slots=True)
class Outlook:
    """What ingesting would come to, and the first problems by line."""

    counts: Counts = field(default_factory=Counts)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def reject(self, item: Item, error: VoiceQueueError) -> None:
        """One row would not be taken."""
        self.counts.reject(kind(error))
        self.problems = sorted([*self.problems, (item.row.line, str(error))])[:TOLD]


def foreseen(found: Iterator[Item], jobs: VoiceQueue) -> Outlook:
    """What all of them would come to."""
    outlook, asked = Outlook(), deque[Item]()

    def given() -> Iterator[VoiceJob]:
        for item in found:
            if item.error is not None:
                outlook.reject(item, item.error)
            for job in item.job.each() if item.job else ():
                asked.append(item)
                yield job

    for each in jobs.preview(given()):
        item = asked.popleft()
        outlook.counts.new += each.is_new
        outlook.counts.known += not each.is_new and each.error is None
        outlook.counts.credits += each.credits
        if each.error is not None:
            outlook.reject(item, each.error)
    return outlook


@dataclass(frozen=True, slots=True)
class Means:
    """What there is to pay and to do it with. `spendable`: credits that are neither promised nor below the floor,
    None before anybody asked upstream."""

    status: Status
    floor: int

    @classmethod
    def of(cls, jobs: VoiceQueue) -> Means:
        """As things stand."""
        return cls(jobs.status(), jobs.limits().credit_floor)

    @property
    def spendable(self) -> int | None:
        account = self.status.account
        return None if account.left is None else max(0, account.left - account.committed - self.floor)

    @property
    def unsettled(self) -> int:
        """Jobs that are in the queue already."""
        return sum(self.status.states[state] for state in ACTIVE)

    def seconds(self, new: int) -> float | None:
        """Until all that is there and so many more have settled, at the present pace."""
        return (self.unsettled + new) * 60 / self.status.pace if self.status.pace else None


def report(outlook: Outlook, means: Means, *, as_json: bool) -> None:
    """Tell it."""
    if as_json:
        print_json(_json(outlook, means))
        return
    counts = outlook.counts
    out.print(
        f"dry run, nothing was changed: [green]{counts.new:,} new[/], {counts.known:,} known already, "
        f"{counts.rejected:,} rejected"
    )
    print_reasons(counts.reasons)
    for line, reason in outlook.problems:
        out.print(f"  line {line}: {safe(reason)}", soft_wrap=True)
    out.print(f"credits    the new ones will cost {counts.credits:,}; {_suffices(counts.credits, means)}")
    out.print(f"time       {_time(counts.new, means)}")


def _suffices(cost: int, means: Means) -> str:
    account, spendable = means.status.account, means.spendable
    if spendable is None:
        return "how many are left was not asked yet"
    left = f"{account.left or 0:,} were left at {clock(account.at)}"
    less = {" are for jobs in flight or unsure": account.committed, " are the floor": means.floor}
    but = "".join(f", of which {credits:,}{what}" for what, credits in less.items() if credits)
    verdict = "[green]enough[/]" if spendable >= cost else f"[red]{cost - spendable:,} too few[/]"
    queued = f" ({means.unsettled:,} jobs that are queued or in flight are paid first)" if means.unsettled else ""
    return f"{left}{but}: {verdict}{queued}"


def _time(new: int, means: Means) -> str:
    seconds = means.seconds(new)
    if seconds is None:
        return "nothing has succeeded of late, so there is no pace to go by"
    before = f", after {means.unsettled:,} that are there already" if means.unsettled else ""
    return f"about {span(seconds)} at the present pace of {means.status.pace:,.1f} a minute{before}"


def _json(outlook: Outlook, means: Means) -> dict[str, Any]:
    counts, account = outlook.counts, means.status.account
    return {
        "new": counts.new,
        "known": counts.known,
        "rejected": counts.rejected,
        "reasons": counts.reasons,
        "problems": [{"line": line, "reason": reason} for line, reason in outlook.problems],
        "credits": counts.credits,
        "credits_left": account.left,
        "credits_left_at": iso(account.at),
        "credits_committed": account.committed,
        "credit_floor": means.floor,
        "suffices": None if means.spendable is None else means.spendable >= counts.credits,
        "unsettled": means.unsettled,
        "per_minute": means.status.pace,
        "seconds": means.seconds(counts.new),
    }
