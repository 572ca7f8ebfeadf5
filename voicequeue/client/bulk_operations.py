"""Many jobs changed at once: first a plan, which freezes the list and says what it costs; then exactly that."""

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

#: The most jobs in one plan.
MOST = 100_000

#: How long a plan may be carried out (seconds).
KEPT_S = 3_600

_TOKEN = re.compile(r"[\w-]{22}", re.ASCII)


class Action(StrEnum):
    """What may be done to many jobs at once."""

    CANCEL = "cancel"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen list of `found` jobs and what its `token` may do to them until `expires_at` (Unix seconds).

    A retry may cost up to `credits`, `again` of them for what was charged before; a cancel gives up `paid`
    jobs that upstream works on, and marks `under_way` ones, which are charging or unsure. Not `complete`: there are
    more such jobs than one plan takes.
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
    """What became of a plan: so many of the `found` jobs were changed, and of those that are charging or unsure so many
    `marked` as to be cancelled; the others had moved on since."""

    action: Action
    found: int
    changed: int
    marked: int = 0

    @property
    def moved_on(self) -> int:
        """Jobs that were left alone."""
        return self.found - self.changed - self.marked


def draw_up(store: Store, action: Action, wanted: Filter, now: float, *, resubmit: bool = False) -> Plan:
    """Freeze the list of jobs that match and that the action may be done to; nothing is changed yet."""
    jobs = _open(store, action, wanted)
    lines: list[tuple[bool, str]] = []
    sums: Counter[str] = Counter()
    for job in islice(jobs, MOST):
        goes_first = _goes_first(action, job, now, resubmit=resubmit)
        lines.append((goes_first, f"{job.id} {job.version}"))
        sums.update(_stakes(action, job, resubmit=resubmit))
    plan = Plan(
        token=secrets.token_urlsafe(16),
        action=action,
        resubmit=resubmit,
        found=len(lines),
        credits=sums["credits"],
        again=sums["again"],
        paid=sums["paid"],
        under_way=sums["under_way"],
        expires_at=now + KEPT_S,
        complete=next(jobs, None) is None,
    )
    lines.sort(key=lambda line: not line[0])
    store.lookup.keep_plan(plan.token, [json.dumps(asdict(plan)), *(line for _, line in lines)], for_s=KEPT_S)
    return plan


def carry_out(store: Store, action: Action, token: str, now: float) -> Done:
    """Retry each job of the plan that is still as it was, or cancel each that is not over, wherever it is by now. Again
    does no harm. Raises UnknownPlan."""
    lines = store.lookup.plan(token) if _TOKEN.fullmatch(token) else iter(())
    head = json.loads(next(lines, "{}"))
    if head.get("action") != action:
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
            same = [job for job in jobs if job.version == versions[job.id]]
            moves = [transitions.retry(job, now, resubmit=head["resubmit"]) for job in same]
            changed += sum(store.apply(moves, now))
    return Done(action, head["found"], changed, marked)


def _open(store: Store, action: Action, wanted: Filter) -> Iterator[Job]:
    """The jobs that match and may be changed so."""
    allowed = (State.FAILED,) if action is Action.RETRY else (*transitions.CANCELLABLE, *transitions.UNDER_WAY)
    states = [state for state in allowed if wanted.state in (None, state)]
    # A batch is walked once; of all jobs only the states that count.
    filters = [wanted] if wanted.batch and wanted.state is None else [replace(wanted, state=state) for state in states]
    told: set[str] = set()
    for each in filters:
        for job in search.matching(store, each):
            if job.state in states and not job.cancelling and job.id not in told:
                told.add(job.id)
                yield job


def _stakes(action: Action, job: Job, *, resubmit: bool) -> dict[str, int]:
    """What one job adds to the plan's sums."""
    if action is Action.CANCEL:
        return {"paid": int(job.state is State.PENDING), "under_way": int(job.state in transitions.UNDER_WAY)}
    again = PRICES[job.stage] if transitions.pays_again(job, resubmit=resubmit) else 0
    return {"credits": transitions.cost(job, resubmit=resubmit), "again": again}


def _goes_first(action: Action, job: Job, now: float, *, resubmit: bool) -> bool:
    if action is Action.CANCEL:
        return job.state is State.WAITING
    return transitions.retry(job, now, resubmit=resubmit).goes_first
