"""The findings of an audit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

_KINDS = {True: "missing", False: "too much"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A disagreement between records and indexes or counters, or a reason why they could not be compared; `str` gives
    its text."""

    @property
    def kind(self) -> str:
        """The group of the finding in reports."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON, as in the output of the CLI."""
        return {"kind": self.kind, **asdict(self), "text": str(self)}


@dataclass(frozen=True, slots=True)
class IndexMismatch(Finding):
    """A job that is missing in an index (`belongs`) or does not belong there; `version` is its record's, '' if there is
    no record."""

    index: str
    job_id: str
    belongs: bool
    version: str

    @property
    def kind(self) -> str:
        """The index; one group for the indexes of all batches and namespaces."""
        family, _, rest = self.index.partition(":")
        index = "batch:*:jobs" if family == "batch" and rest else self.index.partition("/")[0]
        return f"{index}: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"{self.index}: job {self.job_id} {_problem(self.belongs)}"


@dataclass(frozen=True, slots=True)
class BatchListMismatch(Finding):
    """A batch that has jobs and is missing in the list of batches (`belongs`), or is listed without jobs."""

    batch: str
    belongs: bool

    @property
    def kind(self) -> str:
        """One group for all batches."""
        return f"batches: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"batches: batch {self.batch} {_problem(self.belongs)}"


@dataclass(frozen=True, slots=True)
class MissingNamespace(Finding):
    """A namespace that has jobs and is missing in the list of namespaces."""

    namespace: str

    @property
    def kind(self) -> str:
        """One group for all namespaces."""
        return f"namespaces: {_KINDS[True]}"

    def __str__(self) -> str:
        return f"namespaces: {self.namespace} {_problem(True)}"


@dataclass(frozen=True, slots=True)
class BudgetListMismatch(Finding):
    """An owner that has a budget and is missing in the list of budgets (`belongs`), or is listed without one."""

    owner: str
    belongs: bool

    @property
    def kind(self) -> str:
        """One group for all owners."""
        return f"budgets: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"budgets: {self.owner} {_problem(self.belongs)}"


@dataclass(frozen=True, slots=True)
class MissingOwner(Finding):
    """A namespace or API key (`namespace/NAME`, `key/NAME`) that has jobs and is missing in the list of owners."""

    owner: str

    @property
    def kind(self) -> str:
        """One group for all owners."""
        return f"owners: {_KINDS[True]}"

    def __str__(self) -> str:
        return f"owners: {self.owner} {_problem(True)}"


@dataclass(frozen=True, slots=True)
class StoppedListMismatch(Finding):
    """A batch that has stopped itself and is missing in the list of such batches (`belongs`), or is listed and has
    not."""

    batch: str
    belongs: bool

    @property
    def kind(self) -> str:
        """One group for all batches."""
        return f"batches:stopped: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        return f"batches:stopped: batch {self.batch} {_problem(self.belongs)}"


@dataclass(frozen=True, slots=True)
class LaneTurnMismatch(Finding):
    """A batch that has queued jobs of a priority and no turn (`belongs`), or has a turn without queued jobs."""

    rank: int
    batch: str
    belongs: bool

    @property
    def kind(self) -> str:
        """One group for all priorities."""
        return f"lanes: {_KINDS[self.belongs]}"

    def __str__(self) -> str:
        owner = f"batch {self.batch}" if self.batch else "jobs without a batch"
        return f"lanes:{self.rank}: {owner} {_problem(self.belongs)}"


@dataclass(frozen=True, slots=True)
class VoiceWithoutCreator(Finding):
    """A voice that jobs wait for, for example `job_id`, and that no job creates."""

    voice: str
    job_id: str

    @property
    def kind(self) -> str:
        """One group for all voices."""
        return "voices"

    def __str__(self) -> str:
        return f"voices: jobs wait for {self.voice}, and no job creates it"


@dataclass(frozen=True, slots=True)
class CounterMismatch(Finding):
    """A wrong field of counters; `corrections` is the number of corrections at the time of the comparison."""

    counters: str
    field: str
    actual: int
    expected: int
    corrections: str

    @property
    def kind(self) -> str:
        """The counters; one group for those of all batches, and of all namespaces."""
        family, _, name = self.counters.partition(":")
        return f"{family}:*: counters" if name else family

    def __str__(self) -> str:
        return f"{_title(self.counters)}: counts {self.actual:,} {self.field}, the records say {self.expected:,}"


@dataclass(frozen=True, slots=True)
class SummaryMismatch(Finding):
    """A summary of a range of jobs that lacks one of them; `entry` is that of `summaries:<index>`."""

    index: str
    entry: str
    job_id: str

    @property
    def kind(self) -> str:
        """One group for all summaries."""
        return "summaries"

    def __str__(self) -> str:
        return f"summaries: searches by text pass over job {self.job_id} in {self.index}"


@dataclass(frozen=True, slots=True)
class NotComparable(Finding):
    """Counters that could not be compared, because jobs changed too fast."""

    counters: str

    @property
    def kind(self) -> str:
        """One group for all counters."""
        return "unclear"

    def __str__(self) -> str:
        return f"{_title(self.counters)}: jobs changed too fast to compare them; run the audit again under less load"


@dataclass(frozen=True, slots=True)
class UnknownState(Finding):
    """A record in a state that this release does not know; its indexes are not checked."""

    job_id: str
    state: str

    @property
    def kind(self) -> str:
        """One group for all records."""
        return "records"

    def __str__(self) -> str:
        return f"records: job {self.job_id} is in the state {self.state!r}, which this release does not know"


@dataclass(frozen=True, slots=True)
class UndeliverableCallback(Finding):
    """A callback that would never be delivered, and the reason."""

    callback_id: str
    problem: str

    @property
    def kind(self) -> str:
        """One group for all callbacks."""
        return "callbacks"

    def __str__(self) -> str:
        return f"callbacks: {self.callback_id} {self.problem}"


def _problem(belongs: bool) -> str:
    return "is missing" if belongs else "does not belong there"


def _title(counters: str) -> str:
    return counters.replace(":", " ", 1)
