"""Bulk changes in two steps: a plan lists the jobs and what the change may cost, then its token executes it."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from voicequeue.client import cancelling, search
from voicequeue.client.audited import filter_details
from voicequeue.client.search import CHUNK, Filter
from voicequeue.domain import transitions
from voicequeue.domain.job import Job
from voicequeue.domain.namespaces import named_in
from voicequeue.domain.stage import PRICES
from voicequeue.domain.states import State
from voicequeue.errors import PlanNotFoundError
from voicequeue.storage.connection.recorded_change import amend, begin_part, current_change
from voicequeue.storage.job_store import JobStore

#: Jobs in one plan, at most.
MAX_JOBS = 100_000

#: Selected jobs that the audit log names.
LISTED_MAX = 50

#: How long a plan can be executed (seconds).
TOKEN_TTL_S = 3_600

#: The pages of a plan are this far apart (seconds), so that its jobs do not all enter their state at one time: a
#: summary (storage/summaries.py) starts and ends between two times.
TICK_S = 1e-6

_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)


class BulkAction(StrEnum):
    """A bulk change."""

    CANCEL = "cancel"
    RETRY = "retry"


#: The states of jobs to which each action applies.
_ALLOWED: Mapping[BulkAction, tuple[State, ...]] = {
    BulkAction.RETRY: (State.FAILED,),
    BulkAction.CANCEL: (*transitions.CANCELLABLE, *transitions.ONLY_MARKABLE),
}


@dataclass(frozen=True, slots=True)
class BulkPlan:
    """A list of jobs, and the token that changes exactly these.

    Attributes:
        token: Pass it to `execute_plan`.
        action: The change.
        resubmit: True if a retry submits new orders even where upstream can be polled again.
        count: Number of jobs in the plan.
        max_credits: The most credits that a retry costs.
        repeat_credits: Of these, credits for stages that were, or may have been, charged before.
        submitted: Jobs to cancel that upstream is working on; their orders stay paid.
        uncertain: Jobs to cancel that are `charging` or `unsure`; they are cancelled later.
        expires_at: When the token expires (Unix seconds).
        is_complete: False if more jobs match than one plan takes.
    """

    token: str
    action: BulkAction
    resubmit: bool
    count: int
    max_credits: int
    repeat_credits: int
    submitted: int
    uncertain: int
    expires_at: float
    is_complete: bool


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The result of executing a plan.

    Attributes:
        action: The change.
        count: Number of jobs in the plan.
        changed: Jobs that were cancelled or retried.
        cancelling: Jobs that are `charging` or `unsure` and will be cancelled once the outcome of their order
            is known.
    """

    action: BulkAction
    count: int
    changed: int
    cancelling: int = 0

    @property
    def skipped(self) -> int:
        """Number of jobs that were skipped: they changed since the plan (retry), or have settled (cancel)."""
        return self.count - self.changed - self.cancelling


def create_plan(
    store: JobStore, action: BulkAction, job_filter: Filter, now: float, *, resubmit: bool = False
) -> BulkPlan:
    """Store the list of jobs that match the filter and allow the action."""
    jobs = _changeable(store, action, job_filter)
    scope = {"batch": job_filter.batch, "filter": filter_details(job_filter)}
    return _store_plan(store, action, jobs, now, scope, resubmit=resubmit)


def create_plan_of(
    store: JobStore, action: BulkAction, job_ids: Sequence[str], now: float, *, resubmit: bool = False
) -> BulkPlan:
    """Store the list of those of these jobs that allow the action."""
    ids = list(dict.fromkeys(job_ids))
    pages = (store.get(ids[start : start + CHUNK]) for start in range(0, len(ids), CHUNK))
    jobs = [job for page in pages for job in page if job is not None and _allows(action, job)]
    selected: dict[str, list[str]] = {}
    for job in jobs:
        selected.setdefault(job.namespace, []).append(job.id)
    scope = {"batch": None, "filter": {}, "selected": {name: _listed(of) for name, of in selected.items()}}
    return _store_plan(store, action, iter(jobs), now, scope, resubmit=resubmit)


def _listed(job_ids: Sequence[str]) -> str:
    """Return ids for the audit log."""
    more = f" and {len(job_ids) - LISTED_MAX:,} more" if len(job_ids) > LISTED_MAX else ""
    return " ".join(job_ids[:LISTED_MAX]) + more


def _store_plan(
    store: JobStore, action: BulkAction, jobs: Iterator[Job], now: float, scope: dict[str, Any], *, resubmit: bool
) -> BulkPlan:
    """Store a plan of these jobs. `scope` says in the audit log which jobs they are."""
    entries: list[tuple[str, bool, str]] = []
    totals: Counter[str] = Counter()
    parts: dict[str, Counter[str]] = {}
    for job in islice(jobs, MAX_JOBS):
        goes_first = _goes_first(action, job, now, resubmit=resubmit)
        entries.append((job.namespace, not goes_first, f"{job.id} {job.version} {job.namespace}"))
        changes = _totals(action, job, resubmit=resubmit)
        totals.update(changes)
        parts.setdefault(job.namespace, Counter()).update({"count": 1, **changes})
    plan = BulkPlan(
        token=secrets.token_urlsafe(16),
        action=action,
        resubmit=resubmit,
        count=len(entries),
        max_credits=totals["max_credits"],
        repeat_credits=totals["repeat_credits"],
        submitted=totals["submitted"],
        uncertain=totals["uncertain"],
        expires_at=now + TOKEN_TTL_S,
        is_complete=next(jobs, None) is None,
    )
    entries.sort(key=lambda entry: entry[:2])
    header = json.dumps(asdict(plan) | scope | {"namespace": store.scope.namespace, "parts": parts})
    store.indexes.store_plan(plan.token, [header, *(line for *_, line in entries)], ttl_s=TOKEN_TTL_S)
    return plan


def execute_plan(
    store: JobStore, action: BulkAction, token: str, now: float, *, may_resubmit: bool = True
) -> BulkResult:
    """Retry each job of the plan that has not changed, or cancel each that has not settled. Idempotent.

    A plan of another scope does not exist. Raises PlanNotFoundError.
    """
    lines = store.indexes.plan_lines(token) if _TOKEN.fullmatch(token) else iter(())
    plan = json.loads(next(lines, "{}"))
    is_own = store.scope.is_all or plan.get("namespace") == store.scope.namespace
    if plan.get("action") != action or not is_own or (plan["resubmit"] and not may_resubmit):
        raise PlanNotFoundError
    changed = marked = 0
    for namespace, page in _pages(lines):
        _record(action, plan, namespace)
        now += TICK_S
        versions = {job_id: int(version) for job_id, version, _ in page}
        jobs = [job for job in store.get(list(versions)) if job]
        if action is BulkAction.CANCEL:
            cancelled = cancelling.cancel(store, [job for job in jobs if transitions.can_be_cancelled(job)], now)
            changed += sum(job.state is State.CANCELLED for job in cancelled)
            marked += sum(job.is_cancelling for job in cancelled)
        else:
            unchanged = [job for job in jobs if job.version == versions[job.id]]
            moves = [transitions.retry(job, now, resubmit=plan["resubmit"]) for job in unchanged]
            changed += sum(store.apply_transitions(moves, now))
    return BulkResult(action, plan["count"], changed, marked)


def _pages(lines: Iterator[str]) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield pages of the jobs of a plan, each of one namespace: id, version and namespace."""
    for namespace, own in groupby((line.split(" ") for line in lines), key=itemgetter(2)):
        while page := list(islice(own, CHUNK)):
            yield namespace, page


def _record(action: BulkAction, plan: dict[str, Any], namespace: str) -> None:
    """Describe the plan in the audit log of a namespace: its jobs and the credits that the actor agreed to."""
    change, part = current_change(), plan["parts"][namespace]
    if change is not None and change.namespace != namespace:
        begin_part((), namespace=namespace)
    selected = plan.get("selected", {}).get(namespace)
    details = plan["filter"] | ({"job_ids": selected} if selected else {})
    details |= {"resubmit": True} if plan["resubmit"] else {}
    credits = part["max_credits"] if action is BulkAction.RETRY else None
    batch = named_in(plan["namespace"], plan["batch"] or "")[1]
    amend(action=action, batch=batch, jobs=part["count"], credits=credits, details=details)


def _changeable(store: JobStore, action: BulkAction, job_filter: Filter) -> Iterator[Job]:
    """Yield the jobs that match the filter and allow the action."""
    states = [state for state in _ALLOWED[action] if job_filter.state in (None, state)]
    # A batch has one index; of all jobs, only the indexes of the relevant states are read.
    filters = (
        [job_filter]
        if job_filter.batch and job_filter.state is None
        else [replace(job_filter, state=state) for state in states]
    )
    listed_ids: set[str] = set()
    for part in filters:
        for job in search.iter_matching(store, part):
            if job.state in states and _allows(action, job) and job.id not in listed_ids:
                listed_ids.add(job.id)
                yield job


def _allows(action: BulkAction, job: Job) -> bool:
    """Return whether the action applies to a job."""
    return job.state in _ALLOWED[action] and not job.is_cancelling


def _totals(action: BulkAction, job: Job, *, resubmit: bool) -> dict[str, int]:
    """Return what one job adds to the totals of the plan."""
    if action is BulkAction.CANCEL:
        return {"submitted": int(job.state is State.PENDING), "uncertain": int(job.state in transitions.ONLY_MARKABLE)}
    again = PRICES[job.stage] if transitions.pays_again(job, resubmit=resubmit) else 0
    return {"max_credits": transitions.retry_cost(job, resubmit=resubmit), "repeat_credits": again}


def _goes_first(action: BulkAction, job: Job, now: float, *, resubmit: bool) -> bool:
    """Return whether the job has to be changed before jobs that share a voice with it."""
    if action is BulkAction.CANCEL:
        return job.state is State.WAITING
    return transitions.retry(job, now, resubmit=resubmit).is_applied_first
