"""Bulk changes in two steps: a plan lists the jobs and what the change may cost, then its token executes it."""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from itertools import islice

from voicequeue.client import cancelling, search
from voicequeue.client.search import CHUNK, Filter
from voicequeue.domain import transitions
from voicequeue.domain.job import Job, State
from voicequeue.domain.stage import PRICES
from voicequeue.errors import UnknownPlan
from voicequeue.storage.job_store import Store

#: Jobs in one plan, at most.
MOST = 100_000

#: How long a plan can be executed (seconds).
KEPT_S = 3_600

_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)


class Action(StrEnum):
    """A bulk change."""

    CANCEL = "cancel"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Plan:
    """A list of jobs, and the token that changes exactly these.

    Attributes:
        token: Pass it to `carry_out`.
        action: The change.
        resubmit: Whether a retry submits new orders even where upstream can be polled again.
        found: Jobs in the list.
        credits: Credits that a retry may cost, at most.
        again: Those of the credits that pay for stages which were, or may have been, charged before.
        paid: Jobs that a cancel gives up while upstream works on their paid order.
        under_way: Jobs that a cancel can only mark, because they are `charging` or `unsure`.
        expires_at: When the token expires (Unix seconds).
        complete: Whether every matching job is in the list; false if there are more than one plan holds.
    """

    token: str
    action: Action
    resubmit: bool
    found: int
    credits: int
    again: int
    paid: int
    under_way: int
    expires_at: float
    complete: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The result of executing a plan.

    Attributes:
        action: The change.
        found: Jobs in the plan.
        changed: Jobs that were cancelled or retried.
        marked: Jobs that are `charging` or `unsure` and will be cancelled as soon as their order's outcome is known.
    """

    action: Action
    found: int
    changed: int
    marked: int = 0

    @property
    def moved_on(self) -> int:
        """Jobs that were skipped because they had changed since the plan was made."""
        return self.found - self.changed - self.marked


def draw_up(store: Store, action: Action, job_filter: Filter, now: float, *, resubmit: bool = False) -> Plan:
    """Store the list of jobs that match the filter and allow the action."""
    jobs = _changeable(store, action, job_filter)
    entries: list[tuple[bool, str]] = []
    totals: Counter[str] = Counter()
    for job in islice(jobs, MOST):
        goes_first = _goes_first(action, job, now, resubmit=resubmit)
        entries.append((goes_first, f"{job.id} {job.version}"))
        totals.update(_totals(action, job, resubmit=resubmit))
    plan = Plan(
        token=secrets.token_urlsafe(16),
        action=action,
        resubmit=resubmit,
        found=len(entries),
        credits=totals["credits"],
        again=totals["again"],
        paid=totals["paid"],
        under_way=totals["under_way"],
        expires_at=now + KEPT_S,
        complete=next(jobs, None) is None,
    )
    entries.sort(key=lambda entry: not entry[0])
    store.lookup.keep_plan(plan.token, [json.dumps(asdict(plan)), *(line for _, line in entries)], for_s=KEPT_S)
    return plan


def carry_out(store: Store, action: Action, token: str, now: float) -> Done:
    """Retry each job of the plan that has not changed, or cancel each that has not settled. Idempotent.

    Raises UnknownPlan.
    """
    lines = store.lookup.plan(token) if _TOKEN.fullmatch(token) else iter(())
    plan = json.loads(next(lines, "{}"))
    if plan.get("action") != action:
        raise UnknownPlan
    changed = marked = 0
    while page := list(islice(lines, CHUNK)):
        versions = {job_id: int(version) for job_id, version in map(str.split, page)}
        jobs = [job for job in store.get(list(versions)) if job]
        if action is Action.CANCEL:
            cancelled = cancelling.cancel(store, [job for job in jobs if transitions.can_be_cancelled(job)], now)
            changed += sum(job.state is State.CANCELLED for job in cancelled)
            marked += sum(job.cancelling for job in cancelled)
        else:
            unchanged = [job for job in jobs if job.version == versions[job.id]]
            moves = [transitions.retry(job, now, resubmit=plan["resubmit"]) for job in unchanged]
            changed += sum(store.apply(moves, now))
    return Done(action, plan["found"], changed, marked)


def _changeable(store: Store, action: Action, job_filter: Filter) -> Iterator[Job]:
    """Yield the jobs that match the filter and allow the action."""
    allowed = (State.FAILED,) if action is Action.RETRY else (*transitions.CANCELLABLE, *transitions.UNDER_WAY)
    states = [state for state in allowed if job_filter.state in (None, state)]
    # A batch has one index; of all jobs, only the indexes of the relevant states are read.
    filters = (
        [job_filter]
        if job_filter.batch and job_filter.state is None
        else [replace(job_filter, state=state) for state in states]
    )
    listed_ids: set[str] = set()
    for part in filters:
        for job in search.matching(store, part):
            if job.state in states and not job.cancelling and job.id not in listed_ids:
                listed_ids.add(job.id)
                yield job


def _totals(action: Action, job: Job, *, resubmit: bool) -> dict[str, int]:
    """Return what one job adds to the totals of the plan."""
    if action is Action.CANCEL:
        return {"paid": int(job.state is State.PENDING), "under_way": int(job.state in transitions.UNDER_WAY)}
    again = PRICES[job.stage] if transitions.pays_again(job, resubmit=resubmit) else 0
    return {"credits": transitions.cost(job, resubmit=resubmit), "again": again}


def _goes_first(action: Action, job: Job, now: float, *, resubmit: bool) -> bool:
    """Return whether the job has to be changed before jobs that share a voice with it."""
    if action is Action.CANCEL:
        return job.state is State.WAITING
    return transitions.retry(job, now, resubmit=resubmit).goes_first
