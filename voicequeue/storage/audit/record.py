"""The fields of a job record that determine indexes and counters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from voicequeue.domain.namespaces import namespace_of, split
from voicequeue.domain.source import Source
from voicequeue.domain.stage import PRICES, Stage
from voicequeue.domain.states import State

_STATES = frozenset(State)


class Record(NamedTuple):
    """The fields of a record that determine indexes and counters."""

    state: str
    batch: str
    credits: int
    rank: str
    stage: str
    next_stage: str
    code: str
    shared_voice: str
    archive: str
    refused: str
    is_cancelling: bool
    #: The cost of its lost orders that were given up or resubmitted.
    unsettled: int
    #: Name of the API key that it was enqueued with.
    api_key: str
    #: What its orders cost, by the number of the day on which they were submitted.
    spent: tuple[tuple[int, int], ...]

    @property
    def is_known(self) -> bool:
        """True if this release has the state; the indexes of other states are unknown."""
        return self.state in _STATES

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return namespace_of(self.batch)

    @property
    def is_in_batch(self) -> bool:
        """True if its `batch` is a batch, not only a namespace."""
        return bool(split(self.batch)[1])

    def owners(self) -> Iterator[str]:
        """Yield its namespace and its API key as owners of budgets."""
        yield f"namespace/{self.namespace}"
        if self.api_key:
            yield f"key/{self.api_key}"


#: The fields of a record that are read.
FIELDS = (
    *(
        "state",
        "batch",
        "credits",
        "rank",
        "stage",
        "next_stage",
        "failure",
        "shared_voice",
        "archive",
        "refused",
        "cancelling",
    ),
    *("source", "submissions", "lost_orders", "orders"),
)


def record_of(values: Sequence[str | None]) -> Record | None:
    """Return the record from its `FIELDS`; None if there is none."""
    if values == [None] * len(FIELDS):
        return None
    state, batch, credits, rank, stage, next_stage, failure, shared_voice, archive, refused, cancelling, *rest = values
    source, submissions, *orders = rest
    code = json.loads(failure)["code"] if failure else ""
    spent = int(credits or 0)
    # Only needed in this state; equal records are stored once.
    shared_voice = shared_voice if state == State.WAITING else None
    fields = (state or "", batch or "", spent, rank or "", stage or "", next_stage or "", code, shared_voice or "")
    flags = (archive or "", "refused" if refused else "", bool(cancelling))
    return Record(*fields, *flags, _unsettled(*orders), *_spending(source, submissions, orders[1]))


def _unsettled(lost: str | None, orders: str | None) -> int:
    """Return the cost of lost orders that upstream has not reported; the same as in scripts/lib/orders.lua."""
    if not lost:
        return 0
    reported = json.loads(orders or "{}")
    return sum(PRICES[Stage(stage)] for attempt, stage in json.loads(lost).items() if attempt not in reported)


def _spending(
    source: str | None, submissions: str | None, orders: str | None
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the API key of a job, and what its charged orders cost by day; the same as in scripts/lib/orders.lua."""
    charged, spent = json.loads(orders or "{}"), Counter[int]()
    for attempt, (day, credits) in json.loads(submissions or "{}").items():
        if attempt in charged:
            spent[day] += credits
    return Source.http_caller(source or ""), tuple(sorted(spent.items()))
